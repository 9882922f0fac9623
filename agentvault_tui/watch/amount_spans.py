"""The least and the largest amount of decisions, by currency, for plan and advice."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from agentvault_tui.operator_api.planning import AmountSpanInfo

_MOST: Final = 8
"""Spans that are listed; further currencies are left out."""


def widen(spans: list[AmountSpanInfo], facts: Mapping[str, Any]) -> None:
    """Add the amount of one decision to the spans.

    Args:
        spans: by currency; amounts whose unit is unknown have spans of their own.
        facts: ``detail.facts`` of the decision: the amount as policy read it.
    """
    currency, major = facts.get("currency") or "", facts.get("amount_major")
    amount = facts.get("amount") if major is None else major
    if amount is None:
        return
    text = f"{Decimal(amount):f}".removesuffix(".0")  # of yen, in the ledger
    for place, one in enumerate(spans):
        if (one.currency, one.unit_known) == (currency, major is not None):
            least = min(one.least, text, key=Decimal)
            most = max(one.most, text, key=Decimal)
            spans[place] = AmountSpanInfo(
                currency=currency, unit_known=one.unit_known, least=least, most=most
            )
            return
    if len(spans) < _MOST:
        spans.append(
            AmountSpanInfo(
                currency=currency, unit_known=major is not None, least=text, most=text
            )
        )
