"""An amount is rendered in one way, with its unit or with the remark that none is."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.amounts import (
    bare_units,
    headline_amount,
    render_amount,
    render_spans,
    render_units,
    shown_parameters,
)
from agentvault_tui.model import Money

MINOR, MAJOR = Money("minor", 2), Money("major", 2)


@pytest.mark.parametrize(
    ("amount", "currency", "money", "text"),
    [
        (4200, "USD", MINOR, "42.00 USD (4200 minor units)"),
        (4200, "JPY", Money("minor", 0), "4200 JPY (4200 minor units)"),
        (4200, "KWD", Money("minor", 3), "4.200 KWD (4200 minor units)"),
        (42, "USD", MAJOR, "42.00 USD (4200 minor units)"),
        ("1.50", "USD", MAJOR, "1.50 USD (150 minor units)"),
        (0, "USD", MINOR, "0.00 USD (0 minor units)"),
        (4200, "USD", None, "4200 USD, unit unknown"),
        ("1.50", "USD", None, "1.50 USD, unit unknown"),
        (1.5, "USD", None, "1.5 USD, unit unknown"),
        (4200, None, None, "4200, unit unknown"),
        (4200, None, MINOR, "4200, unit unknown"),
        (4200, "usd (42.00 USD)", None, "4200, unit unknown"),
        (-4200, "USD", MINOR, "-4200 USD, unit unknown"),
        (None, "USD", MINOR, "amount unclear"),
    ],
)
def test_an_amount_has_its_unit_or_says_that_it_is_unknown(
    amount: object, currency: str | None, money: Money | None, text: str
) -> None:
    """Nobody has to know how many minor units a major unit has."""
    stated = {"amount": amount, "currency": currency}
    assert render_amount(stated, money) == text
    assert headline_amount(stated, money) == text.partition(" (")[0]
    assert shown_parameters({"to": "x", **stated}, money) == {
        "to": "x",
        **stated,
        "amount": text,
    }


def test_no_amount_is_no_text() -> None:
    """A request about no money has no amount on any face."""
    assert render_amount({"currency": "USD"}, MINOR) == ""
    assert headline_amount({}, MINOR) == ""
    assert shown_parameters({"to": "x"}, MINOR) == {"to": "x"}


@given(
    st.text()
    | st.booleans()
    | st.lists(st.text())
    | st.sampled_from(["42.00 USD (4200 minor units)", "42.00 USD", "1e3", "٤٢"])
)
def test_no_text_of_an_agent_passes_for_an_amount(amount: Any) -> None:
    """What is no number is shown as JSON, with a remark."""
    for money in (None, MINOR, MAJOR):
        text = render_amount({"amount": amount, "currency": "USD"}, money)
        if text == f"{json.dumps(amount)} (no number that can be read)":
            continue
        assert amount.isascii()
        assert amount.replace(".", "", 1).isdigit()


def test_what_a_limit_allows_has_its_unit() -> None:
    """Requests are a number; an amount in the services' own units says so."""
    assert render_units(20, None, in_major=False) == "20"
    assert render_units(500, "USD", in_major=False) == "500 USD (unit unknown)"
    assert render_units(5_000_000, "USD", in_major=True) == "500.00 USD"
    assert render_units(5_000_000, "JPY", in_major=True) == "500 JPY"
    assert render_units(15, "USD", in_major=True) == "0.0015 USD"
    assert bare_units(1500, "USD", in_major=False) == "1,500"
    assert bare_units(15_000, "KWD", in_major=True) == "1.500 KWD"


class Span(NamedTuple):
    currency: str
    unit_known: bool
    least: str
    most: str


def test_spans_are_rendered_by_currency() -> None:
    """The least and the largest, once where they are equal."""
    found = [
        Span("USD", True, "12.00", "40.00"),
        Span("EUR", True, "7.00", "7.00"),
        Span("", False, "12", "400"),
    ]
    text = "12.00 to 40.00 USD; 7.00 EUR; 12 to 400, unit unknown"
    assert render_spans(found) == text
    assert render_spans([]) == ""
