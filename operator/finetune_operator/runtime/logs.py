"""Logs of the operator: one JSON object per line on stderr, with the object in each line that is about one.

One line per decision, none per event. Format and redaction are those of both sides (`finetune_api.log_format`,
`finetune_api.redaction`). Values of Secrets never reach the operator; what a broken trainer prints does.
"""

import logging
import sys

from finetune_api import log_format, redaction, wording


def scrub_text(text: str) -> str:
    """Make a text that a pod printed fit to be shown: no credentials, and control characters as escapes."""
    return wording.escape_controls(redaction.scrub_text(text))


def configure_logging(log_format_name: str, level: str) -> None:
    """Send all logs to stderr; libraries that log every event and request are heard from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_format.JsonFormatter() if log_format_name == "json" else log_format.TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("kopf.objects", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
