"""Everything the trainer does with objects; no other module may import boto3, botocore or obstore.

In the order to read: `store` (what the stages may do, one method each), `listing` (what an address stands for), `s3`
(the store in the cluster: boto asks, obstore moves), `connection` and `bucket` (how both get there), `objects` (one at
a time), `transfer` with `fetch` and `upload` (the bodies of files), `folder` (the store on a laptop), `rooted` (nothing
is written outside its folder), `credentials` and `failures` (what is said when it can't work). Errors come out as
classes of `finetune_api.errors`, with the address and a remedy, never with a key or a signed URL.
"""

import os
from pathlib import Path

from finetune_api import run
from finetune_api.kinds.storage import Storage
from finetune_trainer.storage.folder import FolderStore
from finetune_trainer.storage.listing import MAX_FILES, RemoteFile
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.store import Store

__all__ = ["MAX_FILES", "RemoteFile", "Store", "open_store"]


def open_store(storage: Storage) -> Store:
    """Open the store of a run: S3 or, where `FINETUNE_STORE_FOLDER` names a folder, the buckets below that.

    Args:
        storage: `spec.storage`; a folder needs none of it.

    Raises:
        ConfigError: the settings can't work.
    """
    folder = os.environ.get(run.STORE_FOLDER_VARIABLE)
    return FolderStore(Path(folder)) if folder else S3Store(storage)
