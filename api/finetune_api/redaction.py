"""The one place that keeps secrets out of what people read: logs of all sides, status, Events, the command line.

Two nets: values that are known to be secret are replaced wherever they stand, and whatever looks like a credential is
replaced by its form. A name is treated as a secret's in any spelling: `AWS_SECRET_ACCESS_KEY=…`,
`secret_access_key: …`, `{"SecretAccessKey": "…"}`. Pure: no environment is read here.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote

REPLACEMENT = "***"
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
"""Variables of a trainer pod whose values are secrets: https://docs.aws.amazon.com/sdkref/latest/guide/feature-static-credentials.html"""
MIN_SECRET_LENGTH = 4
"""A shorter value (a choice) would blot out ordinary words."""

_NAME = (
    r"(?:access[_-]?key(?:[_-]?id)?|secret[_-]?(?:access[_-]?)?key"
    r"|(?:session|security|auth|access|refresh|api|id|hf|hub|jwt)[_-]?token"
    r"|password|passwd|pwd|api[_-]?key|private[_-]?key|client[_-]?secret|[_-]secret)"
)
"""Words a secret's name ends with: those of AWS, of its metadata services and of OAuth."""
_WEAK_NAME = r"(?:token|secret|credentials?|signature)"
"""Ordinary words as well, here above all `token`: a secret's name only as a quoted key or right before `=`."""
_QUOTE = r"(?:\\{0,4}[\"'])"
_GAP = r"\s{0,8}+"
"""Bounded, as everything here: the texts come from strangers, and a search must stay linear."""
_VALUE = rf"(?:({_QUOTE})(?!{_GAP}{_QUOTE}).*?(?={_QUOTE}|\n|$)|(?!\*\*\*)(?!{_QUOTE})[^\s,;&\"'}}\]\\)<>]+)"
"""In quotes a value may hold blanks, without them it ends at one; `***` stays as it is."""
_PATTERNS = (
    re.compile(rf"(?i)({_NAME}{_QUOTE}?{_GAP}(?:[:>]|=>?|%3D){_GAP}){_VALUE}"),
    re.compile(rf"(?i)({_QUOTE}{_WEAK_NAME}{_QUOTE}{_GAP}[:=]{_GAP}|(?<![\w-]){_WEAK_NAME}=|<{_WEAK_NAME}>){_VALUE}"),
    re.compile(r"(?i)((?:\b|-)authorization\\{0,4}[\"']?\s{0,8}[=:]\s{0,8}+\\{0,4}+[\"']?+)(?!\*\*\*)[^\"'\n\\]+"),
    re.compile(r"(?i)(\bBearer\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)(?:=|%3D))[^&\s\"']+"),
    re.compile(r"(\bhf_)[A-Za-z0-9]{16,}"),
    # Unique identifiers of IAM that name keys: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    re.compile(r"(\b(?:AKIA|ASIA))[A-Z0-9]{16}\b"),
    re.compile(r"(://)[^/@\s:]{0,256}:[^/@\s]{1,2048}(?=@)"),
)


def scrub_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace secrets in a text: known values wherever they stand, and whatever looks like one.

    Args:
        text: what is to be shown.
        secrets: values known to be secret; those shorter than `MIN_SECRET_LENGTH` are passed over.
    """
    for value in sorted(set(secrets), key=len, reverse=True):
        if len(value) >= MIN_SECRET_LENGTH:
            # Requests and presigned addresses carry it percent-encoded.
            text = text.replace(value, REPLACEMENT).replace(quote(value, safe=""), REPLACEMENT)
    for pattern in _PATTERNS:
        text = pattern.sub(_replace, text)
    return text


def _replace(found: re.Match[str]) -> str:
    opening = found.group(2) if found.re.groups > 1 else None
    return f"{found.group(1)}{opening or ''}{REPLACEMENT}"
