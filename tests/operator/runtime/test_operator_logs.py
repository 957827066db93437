"""Texts from pods, and log lines."""

from finetune_operator.runtime import logs


def test_texts_from_pods_show_no_secret_and_no_control_character() -> None:
    assert logs.scrub_text("secret_access_key=abc\nforged\x1b[31m") == r"secret_access_key=***\nforged\x1b[31m"
