"""The one log format of operator and trainer: a line is one JSON object with the same keys on both sides, or text.

Keys, in this order: `time level logger message`, then those of `FIELDS` that are known, then `traceback`. Secrets are
replaced in all of them. JSON escapes control characters by itself; the text format escapes them, so that a value from
a stranger can't forge a line.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from finetune_api import redaction, wording

FIELDS = ("namespace", "name", "uid", "stage", "attempt", "rank", "child", "reason")
"""What a line may say about its run; `name` is that of the FineTuneJob."""
_NAME_ATTRIBUTE = "job"
"""In `extra` the job's name is given as `job`: `name` is the logger's in Python's records."""


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line.

    Args:
        fields: what stands in every line; a record's own `extra` wins.
        secrets: values that are replaced wherever they stand.
    """

    def __init__(self, fields: Mapping[str, str | int] | None = None, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._fields = dict(fields or {})
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._scrub(record.getMessage()),
        }
        known = self._fields | read_fields(record)
        line |= {key: self._scrub(value) for key in FIELDS if (value := known.get(key)) is not None}
        if record.exc_info:
            line["traceback"] = self._scrub(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)

    def _scrub(self, value: object) -> object:
        return redaction.scrub_text(value, self._secrets) if isinstance(value, str) else value


class TextFormatter(logging.Formatter):
    """Writes a record as one line for people; a traceback follows on lines that are indented."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        known = " ".join(f"{key}={value}" for key, value in read_fields(record).items())
        head = f"{self.formatTime(record)} {record.levelname} {record.name} {record.getMessage()} {known}".rstrip()
        lines = [wording.escape_controls(redaction.scrub_text(head, self._secrets))]
        if record.exc_info:
            text = redaction.scrub_text(self.formatException(record.exc_info), self._secrets)
            lines += [f"    {wording.escape_controls(line)}" for line in text.split("\n")]
        return "\n".join(lines)


def read_fields(record: logging.LogRecord) -> dict[str, str | int]:
    """Return what a record's `extra` says about the run."""
    attributes = {key: _NAME_ATTRIBUTE if key == "name" else key for key in FIELDS}
    return {key: getattr(record, attribute) for key, attribute in attributes.items() if hasattr(record, attribute)}
