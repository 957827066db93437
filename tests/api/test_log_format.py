"""A log line looks the same whoever writes it, carries no secret and can't be forged."""

import json
import logging
import sys

from finetune_api import log_format


def _make_record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, None)
    record.__dict__.update(extra)
    record.created = 0.0
    return record


def test_a_line_is_one_json_object_with_the_run() -> None:
    formatter = log_format.JsonFormatter({"namespace": "demo", "attempt": 1, "rank": 0}, ["abcd"])
    line = formatter.format(_make_record("two\nlines %s", "abcd", job="movies", attempt=2, other="left out"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "warning",
        "logger": "x",
        "message": "two\nlines ***",
        "namespace": "demo",
        "name": "movies",
        "attempt": 2,
        "rank": 0,
    }


def test_a_traceback_and_the_fields_carry_no_secret() -> None:
    record = _make_record("failed", reason="AWS_SECRET_ACCESS_KEY=abc")
    try:
        raise ValueError("refused abcd")
    except ValueError:
        record.exc_info = sys.exc_info()
    found = json.loads(log_format.JsonFormatter({}, ["abcd"]).format(record))
    assert found["reason"] == "AWS_SECRET_ACCESS_KEY=***"
    assert found["traceback"].endswith("ValueError: refused ***")
    text = log_format.TextFormatter(["abcd"]).format(record)
    assert "refused ***" in text
    assert "abc" not in text


def test_a_value_from_a_stranger_forges_no_line_of_text() -> None:
    address = "s3://a/\n2026-01-01 INFO forged\x1b[2J"
    line = log_format.TextFormatter().format(_make_record("read %s", address, job="movies"))
    assert line.endswith(r"WARNING x read s3://a/\n2026-01-01 INFO forged\x1b[2J name=movies")
    assert "\n" not in line
