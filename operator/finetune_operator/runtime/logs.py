"""Logs of the operator: one JSON object per line on stderr, with the FineTuneJob in each line that is about one.

One line per decision, none per event. Values of Secrets never reach the operator, so there is nothing to hide here but
what a broken trainer prints: `scrub_text` is for texts that come from pods.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

FIELDS = ("namespace", "job", "uid", "stage", "attempt", "reason", "child")
"""Names a log call may give in `extra`; anything else is left out."""

_SECRET_PATTERNS = (
    re.compile(r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+"),
    re.compile(
        r"(?i)(\b(?:[a-z0-9]+_)*(?:access_key(?:_id)?|session_token|password|secret(?:_key)?)[\"']?\s*[=:]\s*)\S+"
    ),
    re.compile(r"(?i)(\bAuthorization[\"']?\s*[=:]\s*)[^\n]+"),
    re.compile(r"(?i)(\bBearer\s+)[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(\bhf_)[A-Za-z0-9]{16,}"),
    re.compile(r"(\b(?:AKIA|ASIA))[A-Z0-9]{16}\b"),
    re.compile(r"(://)[^/@\s:]+:[^/@\s]+(?=@)"),
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def scrub_text(text: str) -> str:
    """Replace whatever looks like a credential, and control characters, in a text that a pod printed."""
    for pattern in _SECRET_PATTERNS:
        text = pattern.sub(r"\1***", text)
    return _CONTROL_CHARACTERS.sub(" ", text)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(log_format: str, level: str) -> None:
    """Send all logs to stderr; libraries that log every event and request are heard from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("kopf.objects", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
