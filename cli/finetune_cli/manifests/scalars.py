"""What a plain word of YAML means to kubectl.

YAML readers disagree: `2e-4` is text for PyYAML and a number for kubectl, `y` is text here and true there. What is
checked must be what the API server will get, so these are the rules of the reader inside kubectl (go.yaml.in/yaml/v2,
resolve.go). A test compares them with the real kubectl.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUES = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSES = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_INTEGER = re.compile(r"^[-+]?(0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|[1-9][0-9]*|0)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_OLD_OCTAL = re.compile(r"^([-+]?)0([0-7]+)$")
_MAX_INTEGER = 2**64 - 1
_MIN_INTEGER = -(2**63)
_MAX_DIGITS = 400
"""Longest word tried as an integer. Far beyond 64 bits; Python refuses to convert some thousand digits."""


class WrittenFloat(float):
    """A number that remembers how it was written, so that a message can say `write it in quotes: "2e-4"`."""

    written: str

    def __new__(cls, written: str) -> WrittenFloat:
        number = super().__new__(cls, written.replace("_", ""))
        number.written = written
        return number

    def __deepcopy__(self, memo: object) -> WrittenFloat:
        return self

    def __str__(self) -> str:
        return self.written

    __repr__ = __str__


def parse_plain(text: str) -> Scalar:
    """Give an unquoted word its type, as kubectl does."""
    if text in _NULLS:
        return None
    if text in _TRUES or text in _FALSES:
        return text in _TRUES
    if text[0] not in "+-.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if len(digits) <= _MAX_DIGITS and _INTEGER.match(digits):
        number = int(_OLD_OCTAL.sub(r"\g<1>0o\g<2>", digits), 0)
        if _MIN_INTEGER <= number <= _MAX_INTEGER:
            return number
    # Beyond the range of a 64-bit integer, and beyond that of a float, kubectl goes on as a float and as text.
    if _FLOAT.match(digits) and math.isfinite(float(digits)):
        return WrittenFloat(text)
    return text
