"""How a rank tells the launcher how it ended: one TerminationMessage in a JSON file, for success and failure alike.

The rank writes it atomically to the path the launcher names in the environment; the launcher alone turns it into the
pod's termination message. Imports neither torch nor anything that does.
"""

import os
from pathlib import Path

from pydantic import ValidationError

from finetune_api.run import TerminationMessage

RESULT_VARIABLE = "FINETUNE_RANK_RESULT"
"""Names the file a rank writes its result to."""


def save_result(message: TerminationMessage, path: Path) -> None:
    """Write a rank's result so that a reader sees all of it or nothing.

    Raises:
        OSError: the file can't be written.
    """
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(message.model_dump_json(exclude_none=True))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_result(path: Path) -> TerminationMessage | None:
    """Read a rank's result; None where the rank died before it wrote one."""
    try:
        return TerminationMessage.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
