"""Renders the amount of a request: ``42.00 USD (4200 minor units)``.

Console, command line, approval pages, alerts and exports show an amount by these
functions alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol

from agentvault_tui.model import Money
from agentvault_tui.model.money import EXPONENTS, MOST_DIGITS

_CURRENCY: Final = re.compile("[A-Z]{3}")
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
UNIT_UNKNOWN: Final = "unit unknown"


def render_amount(parameters: Mapping[str, Any], money: Money | None) -> str:
    """Render the amount that a request states.

    Args:
        parameters: of its action.
        money: how its service writes amounts, if that is known.

    Returns:
        text that is safe to show but for its length; a value that is no number is
        JSON with a remark, so that no text of an agent passes for an amount. Empty
        if the request states no amount.
    """
    if "amount" not in parameters:
        return ""
    amount, short = parameters["amount"], headline_amount(parameters, money)
    major = None if money is None else _exact(parameters, money)
    if money is not None and major is not None:
        return f"{short} ({major.scaleb(money.exponent):f} minor units)"
    if amount is None or _is_number(amount):
        return short
    return f"{json.dumps(amount)} (no number that can be read)"


def headline_amount(parameters: Mapping[str, Any], money: Money | None) -> str:
    """Render the amount as `render_amount` does, without the minor units.

    Returns:
        ``42.00 USD``; ``amount unclear`` for a value that is no number.
    """
    if "amount" not in parameters:
        return ""
    amount, currency = parameters["amount"], _currency(parameters)
    major = None if money is None else _exact(parameters, money)
    if major is not None:
        return f"{major} {currency}"
    if not _is_number(amount):
        return "amount unclear"
    return f"{amount}{currency and f' {currency}'}, {UNIT_UNKNOWN}"


def shown_parameters(
    parameters: Mapping[str, Any], money: Money | None
) -> dict[str, Any]:
    """Return parameters as every face lists them: with the amount in words."""
    if "amount" not in parameters:
        return dict(parameters)
    return {**parameters, "amount": render_amount(parameters, money)}


def render_units(units: int, currency: str | None, *, in_major: bool) -> str:
    """Render the amount of a limit, or its use or rest.

    Args:
        units: requests, or an amount.
        currency: of an amount; None where requests are counted.
        in_major: whether an amount is in ten-thousandths of the major unit, and not in
            the unit of each service.

    Returns:
        ``20``, ``500.00 USD``, or ``500000 USD (unit unknown)``.
    """
    if currency is None:
        return f"{units:,}"
    if not in_major:
        return f"{units} {currency} ({UNIT_UNKNOWN})"
    whole, _, fraction = f"{Decimal(units).scaleb(-MOST_DIGITS):f}".partition(".")
    digits = fraction.rstrip("0").ljust(EXPONENTS.get(currency, 0), "0")
    return f"{whole}{digits and f'.{digits}'} {currency}"


class AmountSpan(Protocol):
    """The least and the largest of several amounts in one currency."""

    currency: str
    unit_known: bool
    least: str
    most: str


def render_spans(amounts: Iterable[AmountSpan]) -> str:
    """Render the least and the largest amounts, by currency.

    Returns:
        ``12.00 to 40.00 USD``, ``40.00 USD``, or ``1200 to 4000 USD, unit unknown``.
    """
    spans = []
    for one in amounts:
        both = one.least if one.least == one.most else f"{one.least} to {one.most}"
        unit = "" if one.unit_known else f", {UNIT_UNKNOWN}"
        spans.append(f"{both}{one.currency and f' {one.currency}'}{unit}")
    return "; ".join(spans)


def bare_units(units: int, currency: str | None, *, in_major: bool) -> str:
    """Render the use or rest of a limit, next to its amount."""
    return render_units(units, currency if in_major else None, in_major=in_major)


def _exact(parameters: Mapping[str, Any], money: Money) -> Decimal | None:
    return money.in_major_units(parameters["amount"]) if _currency(parameters) else None


def _currency(parameters: Mapping[str, Any]) -> str:
    """Return the code of the currency; empty if the request states none clearly."""
    currency = parameters.get("currency")
    if isinstance(currency, str) and _CURRENCY.fullmatch(currency):
        return currency
    return ""


def _is_number(amount: object) -> bool:
    if isinstance(amount, str):
        return _NUMBER.fullmatch(amount) is not None
    return isinstance(amount, int | float) and not isinstance(amount, bool)
