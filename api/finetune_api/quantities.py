"""The strings numbers travel in: decimal strings and Kubernetes quantities, with their patterns and their parsers.

The Kubernetes API conventions forbid floats, and YAML readers disagree on a bare `2e-4` (text in Python, a number in
kubectl), so every decimal number of the API is a string with a pattern.
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

DECIMAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"
FRACTION_PATTERN = r"^(0(\.[0-9]+)?|1(\.0+)?)$"
"""A decimal string from 0 to 1."""
BELOW_ONE_PATTERN = r"^0(\.[0-9]+)?$"
"""A decimal string from 0 to below 1."""
POSITIVE_DECIMAL_PATTERN = r"^(0\.0*[1-9][0-9]*|[1-9][0-9]*(\.[0-9]+)?)([eE][+-]?[0-9]{1,2})?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
CPU_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,3})?|[0-9]{1,9}m)$"
"""Cores; thousandths are the finest Kubernetes knows."""
BYTES_PATTERN = r"^[0-9]{1,18}(\.[0-9]{1,3})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
"""Bytes: without the suffix m, which Kubernetes takes for thousandths of a byte."""

FIGURE_PATTERN = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
"""A measured number, which may be negative."""

_SUFFIX_FACTORS = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
_QUANTITY = re.compile(rf"(?P<digits>[0-9]+([.][0-9]+)?)(?P<suffix>{'|'.join(_SUFFIX_FACTORS)})?")


def _text_from_integer(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


FigureString = Annotated[str, Field(pattern=FIGURE_PATTERN, max_length=32)]
DecimalString = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=32)]
PositiveDecimalString = Annotated[str, Field(pattern=POSITIVE_DECIMAL_PATTERN, max_length=32)]
FractionString = Annotated[str, Field(pattern=FRACTION_PATTERN, max_length=32)]
BelowOneString = Annotated[str, Field(pattern=BELOW_ONE_PATTERN, max_length=32)]


def _build_quantity_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": pattern,
            "maxLength": 32,
        }
    )


Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    BeforeValidator(_text_from_integer),
    _build_quantity_schema(QUANTITY_PATTERN),
]
CpuQuantity = Annotated[
    str,
    Field(pattern=CPU_PATTERN, max_length=32),
    BeforeValidator(_text_from_integer),
    _build_quantity_schema(CPU_PATTERN),
]
BytesQuantity = Annotated[
    str,
    Field(pattern=BYTES_PATTERN, max_length=32),
    BeforeValidator(_text_from_integer),
    _build_quantity_schema(BYTES_PATTERN),
]


def parse_quantity(text: str) -> Decimal:
    """Turn a Kubernetes quantity (`500m`, `16Gi`) into a number of cores or bytes.

    Raises:
        ValueError: the text isn't a quantity.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"quantity ({text}) must be a number with one of the suffixes {', '.join(_SUFFIX_FACTORS)}")
    return Decimal(found["digits"]) * _SUFFIX_FACTORS.get(found["suffix"], Decimal(1))


def build_quantity(num_bytes: int) -> str:
    """Write a number of bytes as the quantity people read: `1.9Gi`, `812.0Mi`."""
    for suffix in ("Gi", "Mi", "Ki"):
        factor = int(_SUFFIX_FACTORS[suffix])
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f}{suffix}"
    return str(num_bytes)
