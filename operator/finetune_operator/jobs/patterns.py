"""The administrator's patterns: which names of a list may be used. Pure.

A pattern is a name in which `*` stands for any text without a slash: it crosses neither from a registry into another,
nor from a folder into one below it, nor from one domain's keys to another's.
"""

import re
from collections.abc import Sequence


def is_allowed(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name matches one of the patterns, from its first letter to its last."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]*"), name) for pattern in patterns)
