"""Amounts are exact decimals in the major unit of their currency, or nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.model import Money
from agentvault_tui.model.money import EXPONENTS

UNITS: tuple[Literal["minor", "major"], ...] = ("minor", "major")


@pytest.mark.parametrize(
    ("unit", "exponent", "amount", "major"),
    [
        ("minor", 2, 4200, "42.00"),
        ("minor", 0, 4200, "4200"),
        ("minor", 3, 1, "0.001"),
        ("minor", 2, 0, "0.00"),
        ("minor", 2, 2**53 - 1, "90071992547409.91"),
        ("major", 2, 42, "42.00"),
        ("major", 2, "42.5", "42.50"),
        ("major", 2, "1.50", "1.50"),
        ("major", 3, "0.001", "0.001"),
        ("major", 0, "42", "42"),
    ],
)
def test_an_amount_is_exact_in_major_units(
    unit: Literal["minor", "major"], exponent: int, amount: object, major: str
) -> None:
    """All digits of the minor unit are there, and no others."""
    found = Money(unit, exponent).in_major_units(amount)
    assert found == Decimal(major)
    assert str(found) == major


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "amount",
    [
        *(None, True, -1, 2**53, 10**400, 42.5, float("nan"), float("inf")),
        *("-1", "+1", "1e3", "1E3", "NaN", "Infinity", "0x10", "1_000", "1,000.00"),
        *("", " 1", "1 ", "1\n", ".5", "5.", "01", "٤٢", "４２", "42.505", "9" * 17),
        *([42], {"value": 42}, b"42", Decimal(42)),
    ],
)
def test_nothing_else_is_an_amount(
    unit: Literal["minor", "major"], amount: object
) -> None:
    """No sign, exponent, float, other digit or further text; no guess at digits."""
    assert Money(unit, 2).in_major_units(amount) is None


def test_a_text_is_no_amount_in_minor_units() -> None:
    """A service that counts cents is sent a whole number."""
    assert Money("minor", 2).in_major_units("4200") is None


@given(st.integers(0, 2**53 - 1), st.integers(0, 4))
def test_both_units_of_one_amount_are_equal(minor: int, exponent: int) -> None:
    """An amount in minor units, written in major units, is the same amount."""
    major = Money("minor", exponent).in_major_units(minor)
    assert major is not None
    assert major.scaleb(exponent) == minor
    if major < 10**16:
        assert Money("major", exponent).in_major_units(str(major)) == major


def test_the_table_of_currencies_has_the_digits_of_iso_4217() -> None:
    """Yen have none, dinars three; metals and test codes have no minor unit."""
    known = {"USD": 2, "JPY": 0, "KWD": 3, "CLF": 4, "MGA": 2, "ISK": 0, "HUF": 2}
    assert {code: EXPONENTS[code] for code in known} == known
    assert len(EXPONENTS) == 17 + 139 + 7 + 2
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)
    assert {"XAU", "XXX", "XTS"}.isdisjoint(EXPONENTS)


@pytest.mark.parametrize(
    ("unit", "parameters", "expected"),
    [
        ("minor", {"amount": 1, "currency": "JPY"}, Money("minor", 0)),
        ("major", {"amount": 1, "currency": "KWD"}, Money("major", 3)),
        (None, {"amount": 1, "currency": "USD"}, None),
        ("minor", {"amount": 1}, None),
        ("minor", {"currency": "USD"}, None),
        ("minor", {"amount": 1, "currency": "XAU"}, None),
        ("minor", {"amount": 1, "currency": "usd"}, None),
        ("minor", {"amount": 1, "currency": ["USD"]}, None),
    ],
)
def test_the_unit_is_known_with_the_currency(
    unit: Literal["minor", "major"] | None,
    parameters: dict[str, Any],
    expected: Money | None,
) -> None:
    """Without a unit, or for a currency that is not in the table, it is unknown."""
    assert Money.of(unit, parameters) == expected


@pytest.mark.parametrize(
    "written",
    [
        *(None, "minor", [], {}, {"unit": "minor"}, {"unit": "cents", "exponent": 2}),
        *({"unit": [], "exponent": 2}, {"unit": "minor", "exponent": "2"}),
        *({"unit": "minor", "exponent": n} for n in (-1, 5, 2_000_000, True, 2.0)),
    ],
)
def test_only_a_written_unit_is_read(written: object) -> None:
    """What a record or the wire has in its place is no unit."""
    money = Money("major", 3)
    assert Money.read(money.written) == money
    assert Money.read(money) == money
    assert Money.read(written) is None
