"""Logs of the trainer: one JSON object per line on stderr, with the job, the attempt and the rank in each.

Format and redaction are those of both sides (`finetune_api.log_format`, `finetune_api.redaction`); the values of the
credentials in the environment are replaced wherever they stand.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from finetune_api import log_format, redaction
from finetune_api.run import JobIdentity
from finetune_trainer.telemetry import libraries


def load_secrets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values of the credentials in the environment."""
    return [environment[name] for name in redaction.SECRET_VARIABLES if environment.get(name)]


def scrub_text(text: str) -> str:
    """Replace secrets in a text: the environment's credentials wherever they stand, and whatever looks like one."""
    return redaction.scrub_text(text, load_secrets())


def set_up_logs(job: JobIdentity, stage: str, rank: int = 0, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (stderr) as JSON lines, from level INFO or `LOG_LEVEL`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        log_format.JsonFormatter(
            {
                "namespace": job.namespace,
                "name": job.name,
                "uid": job.uid,
                "stage": stage,
                "attempt": job.attempt,
                "rank": rank,
            },
            load_secrets(),
        )
    )
    handler.addFilter(libraries.keep)
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
