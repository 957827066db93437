"""How a rank tells the launcher how it ended: one TerminationMessage in a JSON file, for success and failure alike.

The rank writes it atomically to the path the launcher names in the environment; the launcher alone turns it into the
pod's termination message. Imports neither torch nor anything that does.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.run import TerminationMessage
from finetune_trainer import whole_files

RESULT_VARIABLE = "FINETUNE_RANK_RESULT"
"""Names the file a rank writes its result to."""


def save_result(message: TerminationMessage, path: Path) -> None:
    """Write a rank's result so that a reader sees all of it or nothing; what has no UTF-8 in it is escaped.

    Raises:
        OSError: the file can't be written.
    """
    with whole_files.replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_escape(message.model_dump(exclude_none=True))))
        file.flush()
        os.fsync(file.fileno())


def _escape(value: Any) -> Any:
    """Make every text encodable: half of a surrogate pair in a user's data must not cost the whole message."""
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape(key): _escape(item) for key, item in value.items()}
    return [_escape(item) for item in value] if isinstance(value, list | tuple) else value


def load_result(path: Path) -> TerminationMessage | None:
    """Read a rank's result; None where the rank died before it wrote one."""
    try:
        return TerminationMessage.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
