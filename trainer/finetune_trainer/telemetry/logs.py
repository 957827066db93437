"""Logs of the trainer: one JSON object per line on stderr, with the job, the attempt and the rank in each.

Secrets never pass: values of the credentials in the environment and texts that look like keys, tokens or signed URLs
are replaced before a line is written, in messages, tracebacks and extra fields alike.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from finetune_api.run import JobIdentity

SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
REPLACEMENT = "***"

_MIN_SECRET_LENGTH = 4
"""A shorter value (a choice) would blot out ordinary words."""
_SECRET_PATTERNS = (
    re.compile(r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+"),
    re.compile(
        r"(?i)(\b(?:aws_secret_access_key|aws_session_token|password|secret_key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+"
    ),
    re.compile(r"(?i)(\bAuthorization[\"']?\s*[=:]\s*[\"']?)[^\"'\n]+"),
    re.compile(r"(?i)(\bBearer\s+)[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(\bhf_)[A-Za-z0-9]{16,}"),
    re.compile(r"(\b(?:AKIA|ASIA))[A-Z0-9]{16}\b"),
    re.compile(r"(://)[^/@\s:]+:[^/@\s]+(?=@)"),
)


def scrub_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace secrets in a text: the environment's credentials wherever they stand, and whatever looks like one."""
    for variable in SECRET_VARIABLES:
        value = environment.get(variable, "")
        if len(value) >= _MIN_SECRET_LENGTH:
            text = text.replace(value, REPLACEMENT)
    for pattern in _SECRET_PATTERNS:
        text = pattern.sub(rf"\1{REPLACEMENT}", text)
    return text


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object.

    Args:
        fields: what stands in every line beside time, level, logger and message.
    """

    def __init__(self, fields: Mapping[str, str | int]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub_text(record.getMessage()),
            **self._fields,
        }
        if record.exc_info:
            line["traceback"] = scrub_text(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(job: JobIdentity, stage: str, rank: int = 0, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (stderr) as JSON lines, from level INFO or `LOG_LEVEL`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            {
                "namespace": job.namespace,
                "name": job.name,
                "uid": job.uid,
                "stage": stage,
                "attempt": job.attempt,
                "rank": rank,
            }
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    level = logging.getLevelNamesMapping().get(os.environ.get("LOG_LEVEL", "INFO").upper(), logging.INFO)
    root.setLevel(level)
    for chatty in ("boto3", "botocore", "s3transfer", "urllib3"):
        # At DEBUG these write request headers, which hold session tokens.
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    if not sys.stderr.isatty():
        # Bars that libraries draw are no JSON lines; tqdm reads this when it is imported, which is after this.
        os.environ.setdefault("TQDM_DISABLE", "1")
