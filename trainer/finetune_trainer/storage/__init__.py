"""Everything the trainer does in S3; no other module may import boto3 or botocore.

`Store` is the way in: list, fetch, upload, conditional put, read, delete. Errors come out as classes of
`finetune_api.errors`, with the address and a remedy, never with a key or a signed URL.
"""

from finetune_trainer.storage.listing import MAX_FILES, RemoteFile
from finetune_trainer.storage.store import Store

__all__ = ["MAX_FILES", "RemoteFile", "Store"]
