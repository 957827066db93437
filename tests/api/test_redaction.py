"""Secrets never pass, in whatever spelling; words that only sound like them do."""

import pytest

from finetune_api.redaction import scrub_text

HIDDEN = [
    ("AWS_SECRET_ACCESS_KEY=abc123 rest", "AWS_SECRET_ACCESS_KEY=*** rest"),
    ("AWS_ACCESS_KEY_ID=minio was sent", "AWS_ACCESS_KEY_ID=*** was sent"),
    ("secret_access_key=abc", "secret_access_key=***"),
    ("aws_secret_access_key = abc, next", "aws_secret_access_key = ***, next"),
    ("aws_session_token: abc123", "aws_session_token: ***"),
    ("AWSSecretKey=abc", "AWSSecretKey=***"),
    ("secretAccessKey: abc", "secretAccessKey: ***"),
    ("{'SecretAccessKey': 'a b'}", "{'SecretAccessKey': '***'}"),
    (
        '{"AccessKeyId": "minio", "SecretAccessKey": "wJalr/+x=", "Token": "IQoJb3==", "Expiration": "2026"}',
        '{"AccessKeyId": "***", "SecretAccessKey": "***", "Token": "***", "Expiration": "2026"}',
    ),
    (r'{\"SecretAccessKey\": \"abc\", \"Code\": 1}', r'{\"SecretAccessKey\": \"***\", \"Code\": 1}'),
    (
        "<SecretAccessKey>abc</SecretAccessKey><SessionToken>x</SessionToken>",
        "<SecretAccessKey>***</SecretAccessKey><SessionToken>***</SessionToken>",
    ),
    ("X-Amz-Security-Token: abcd==", "X-Amz-Security-Token: ***"),
    ("GET https://b.s3/x?X-Amz-Signature=deadbeef&y=1", "GET https://b.s3/x?X-Amz-Signature=***&y=1"),
    ("/a?X-Amz-Credential=AKIA%2F2026&X-Amz-Security-Token=abc", "/a?X-Amz-Credential=***&X-Amz-Security-Token=***"),
    ("next=%3FX-Amz-Signature%3Ddeadbeef", "next=%3FX-Amz-Signature%3D***"),
    ("https://b/x?AWSAccessKeyId=AB&Signature=abc%3D&Expires=1", "https://b/x?AWSAccessKeyId=***&Signature=***&Expires=1"),
    ("Authorization: AWS4-HMAC-SHA256 Credential=x, Signature=b", "Authorization: ***"),
    ("'Authorization': 'Bearer abc.def'", "'Authorization': '***'"),
    ("curl -H 'Proxy-Authorization: Basic dXNlcg=='", "curl -H 'Proxy-Authorization: ***'"),
    ("sent bearer abc.def", "sent bearer ***"),
    ("https://user:secret@host/x", "https://***@host/x"),
    ("http://:secret@host/", "http://***@host/"),
    ("hf_abcdefghijklmnopqrstuvwx", "hf_***"),
    ("key AKIAABCDEFGHIJKLMNOP was refused", "key AKIA*** was refused"),
    ("HF_TOKEN=abc WANDB_API_KEY=def", "HF_TOKEN=*** WANDB_API_KEY=***"),
    ("CLIENT_SECRET=ghi DB_PASSWORD='j k'", "CLIENT_SECRET=*** DB_PASSWORD='***'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "want"), HIDDEN, ids=[text[:30] for text, _ in HIDDEN])
def test_what_looks_like_a_secret_is_replaced(text: str, want: str) -> None:
    assert scrub_text(text) == want


@pytest.mark.parametrize(("text", "want"), HIDDEN, ids=[text[:30] for text, _ in HIDDEN])
def test_a_text_that_was_scrubbed_stays_as_it_is(text: str, want: str) -> None:
    assert scrub_text(want) == want


SHOWN = [
    "nothing to hide: s3://bucket/key, 12 rows",
    "secret not found: s3-credentials",
    'secret "s3-credentials" not found',
    "spec.storage.secretName (s3-credentials) must be the name of a Kubernetes object",
    "the stop token: </s>, pad_token=[PAD], max_tokens: 5",
    "unexpected keyword argument 'token'",
    "AWS_SESSION_TOKEN='' is empty",
    "the key: label, basic training",
]


@pytest.mark.parametrize("text", SHOWN)
def test_ordinary_words_stay(text: str) -> None:
    assert scrub_text(text) == text


def test_a_known_value_is_replaced_wherever_it_stands_also_percent_encoded() -> None:
    text = "asked http://x/?a=wJ%2Fab%2B1 with wJ/ab+1 twice wJ/ab+1, no"
    assert scrub_text(text, ["wJ/ab+1", "no", ""]) == "asked http://x/?a=*** with *** twice ***, no"


HOSTILE = [
    "a_",
    "password",
    '"token": "',
    'password="',
    " ",
    "://a:",
    "\\",
    "Bearer ",
    "authorization: \\",
    "x-amz-",
    "'",
]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.timeout(30)
def test_a_long_hostile_text_takes_no_long_search(unit: str) -> None:
    """Quadratic searches take minutes here."""
    assert scrub_text(unit * (200_000 // len(unit)))
