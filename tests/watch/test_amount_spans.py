"""Spans hold the least and the largest amount, by currency and unit."""

from __future__ import annotations

from typing import Any

import pytest

from agentvault_tui.amounts import render_spans
from agentvault_tui.operator_api.planning import AmountSpanInfo
from agentvault_tui.watch.amount_spans import widen


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ([{}], ""),
        ([{"currency": "USD"}], ""),
        ([{"amount": 7}], "7, unit unknown"),
        (
            [
                {"amount": 900, "amount_major": "9.00", "currency": "USD"},
                {"amount": 1000, "amount_major": "10.00", "currency": "USD"},
            ],
            "9.00 to 10.00 USD",
        ),
        (
            [
                {"amount_major": "10.0", "currency": "JPY"},
                {"amount_major": "7.50", "currency": "USD"},
                {"amount": 7, "currency": "USD"},
            ],
            "10 JPY; 7.50 USD; 7 USD, unit unknown",
        ),
    ],
)
def test_amounts_are_compared_as_numbers(
    facts: list[dict[str, Any]], text: str
) -> None:
    """Not as texts; an amount without a unit is never mixed with one that has it."""
    spans: list[AmountSpanInfo] = []
    for one in facts:
        widen(spans, one)
    assert render_spans(spans) == text


def test_no_agent_fills_the_list_with_currencies() -> None:
    """Eight are listed."""
    spans: list[AmountSpanInfo] = []
    for number in range(26):
        widen(spans, {"amount": 1, "currency": f"AA{chr(65 + number)}"})
    assert len(spans) == 8
