"""Quantities as Kubernetes writes them, to numbers and back."""

from decimal import Decimal

import pytest

from finetune_api import quantities

QUANTITIES = [
    ("500m", Decimal("0.5")),
    ("2", Decimal(2)),
    ("1.5", Decimal("1.5")),
    ("3k", Decimal(3000)),
    ("8388608Ki", Decimal(2**33)),
    ("1.5Mi", Decimal(3 * 2**19)),
    ("16Gi", Decimal(2**34)),
    ("2T", Decimal(2 * 10**12)),
    ("1Pi", Decimal(2**50)),
]


@pytest.mark.parametrize(("text", "want"), QUANTITIES)
def test_a_quantity_is_a_number(text: str, want: Decimal) -> None:
    assert quantities.parse_quantity(text) == want


@pytest.mark.parametrize("text", ["16Gb", "1 Gi", "Ki", "", "1KiMi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number with one of the suffixes m, k, M"):
        quantities.parse_quantity(text)


@pytest.mark.parametrize("num_bytes", [0, 900, 18_700, 5 * 2**20, 3 * 2**30 + 5, 7 * 2**40])
def test_a_number_of_bytes_is_read_back_within_its_digits(num_bytes: int) -> None:
    text = quantities.build_quantity(num_bytes)

    assert abs(quantities.parse_quantity(text) - num_bytes) <= Decimal(num_bytes) / 20
