"""The AWS variables before they are used: a value that no header can carry is named, not sent.

Such values come from `echo KEY | base64` and from editors; a request signed with one fails in ways that say nothing.
"""

import os
from collections.abc import Iterator

from finetune_api.errors import ConfigError
from finetune_api.kinds.storage import Storage

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_OPTIONAL_KEY = "AWS_SESSION_TOKEN"
_NAMES = {
    "\n": "a line break",
    "\r": "a line break",
    "\t": "a tab",
    " ": "a blank",
    "\N{ZERO WIDTH NO-BREAK SPACE}": "a byte order mark",
}
_QUOTES = "\"'"


def check_variables(storage: Storage) -> None:
    """Check every `AWS_*` variable of this process; no value is ever shown.

    Raises:
        ConfigError: a value can't be what was meant; all are named.
    """
    problems = []
    for name, value in sorted(os.environ.items()):
        if name.startswith("AWS_") and (problem := next(_find_problems(name, value), "")):
            source = f" of secret {storage.secret_name}" if name in _KEYS and storage.secret_name else ""
            problems.append(f"{name}{source} {problem}")
    if problems:
        raise ConfigError(
            "; ".join(problems),
            "write the value anew: kubectl create secret generic NAME --from-literal=KEY=VALUE adds nothing, and"
            " printf %s VALUE | base64 neither, unlike echo.",
        )


def _find_problems(name: str, value: str) -> Iterator[str]:
    is_key = name in _KEYS
    if is_key and not value and name != _OPTIONAL_KEY:
        yield "is empty"
    if is_key and len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
        yield "is in quotes"
    for verb, part in (("ends with", value[-1:]), ("begins with", value[:1]), ("holds", value)):
        for character in part:
            if character == " " and verb == "holds" and not is_key:
                continue  # in the path of a file, for example
            if character.isspace() or character in _NAMES:
                yield f"{verb} {_NAMES.get(character, f'the blank U+{ord(character):04X}')}"
            elif ord(character) < 32 or ord(character) == 127:
                yield f"{verb} the control character U+{ord(character):04X}"
            elif is_key and not character.isascii():
                yield f"{verb} U+{ord(character):04X}, which is no character of ASCII"
