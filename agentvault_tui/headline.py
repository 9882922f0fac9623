"""Word a request that waits for a person, in one sentence that every face shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agentvault_tui.amounts import UNIT_UNKNOWN, headline_amount
from agentvault_tui.model import Money
from agentvault_tui.text import Shown, clip, visible

_LONGEST: Final = 200
_ASKER: Final = 48
_PART: Final = 60
"""Cells that one value of an agent's may have."""
_PLAIN: Final = re.compile(r"[\w@&'+/#:.-]+(?: [\w@&'+/#:.-]+){0,2}")
"""Up to three words. Other text is quoted, or its words would read as ours."""
_INNER: Final = {ord("“"): '"', ord("”"): '"'}
"""Quotation marks within a quoted text: they end nothing."""
_PAYEES: Final = ("to", "recipient", "payee", "beneficiary", "destination")
_VERBS: Final = {
    "send:payment": "pay",
    "refund:payment": "refund",
    "send:chat": "post in a chat",
    "write:code": "push code",
    "merge:code": "merge code",
    "deploy:code": "deploy code",
}
"""Where verb and noun of a scope are no English; any other is read as it is."""


def headline(asker: object, wanted: Shown) -> Shown:
    """Word a request as one sentence without a full stop.

    Args:
        asker: the agent's name, or the operator's who asks for a change.
        wanted: the request, as `wish` words it.

    Returns:
        displayable text of at most 200 cells, such as ``payments-agent wants to pay
        42.00 USD to Northwind GmbH``.
    """
    return clip(f"{_quoted(asker, _ASKER)} wants to {wanted}", _LONGEST)


def wish(
    action: str,
    resource: str | None,
    parameters: object,
    money: Money | None = None,
    *,
    unlimited: bool = False,
    connection: str | None = None,
    change: str | None = None,
) -> Shown:
    """Word a request, as it follows "wants to" in a headline.

    Args:
        action: the scope of the action.
        resource: its resource, if that is named.
        parameters: its parameters, as the agent sent them.
        money: how its service writes amounts, if that is known.
        unlimited: whether nothing but the scope limits the token.
        connection: of the provider that issues the requested token, if one does.
        change: an operator's change, if no agent asks.
    """
    named = parameters if isinstance(parameters, dict) else {}
    if change is not None:
        return clip(f"change: {visible(change, 120)}", _LONGEST)
    if connection:
        return Shown(f"have a token of the account at {_quoted(connection)}")
    if unlimited:
        return Shown(f"use {visible(action, _PART)} with no limits")
    verb, _, noun = action.partition(":")
    words = _VERBS.get(action) or f"{verb} {noun.replace('-', ' ').replace('_', ' ')}"
    words = str(visible(words, _PART))
    much, payee = gist(named, money), _payee(named)
    much = much.replace(f", {UNIT_UNKNOWN}", f" ({UNIT_UNKNOWN})")
    if command := named.get("command"):
        return Shown(f"{words} “{visible(command, _PART)}”")
    if much:
        words = f"{words} {much}" if action in _VERBS else f"{words}, {much},"
    if payee:
        words = f"{words} to {payee}"
    elif resource:
        words = f"{words} on {_quoted(resource)}"
    return clip(words.rstrip(","), _LONGEST)


def gist(parameters: object, money: Money | None) -> str:
    """Summarise how much an action moves: amount, recipients, items."""
    named = parameters if isinstance(parameters, dict) else {}
    recipients = named.get("recipients")
    words = [amount] if (amount := headline_amount(named, money)) else []
    if isinstance(recipients, list):
        recipients = len(recipients)
    if isinstance(recipients, int):
        words.append(f"{recipients:,} recipient{'s' * (recipients != 1)}")
    if isinstance(count := named.get("count"), int):
        words.append(f"{count:,} item{'s' * (count != 1)}")
    return ", ".join(words)


def _payee(parameters: Mapping[str, object]) -> str:
    """Return whom money or a message goes to, where it is one name."""
    named = (parameters.get(name) for name in _PAYEES)
    return next((_quoted(one) for one in named if isinstance(one, str) and one), "")


def _quoted(text: object, limit: int = _PART) -> str:
    """Return an agent's text, in quotation marks unless it is a plain name."""
    shown = visible(text, limit)
    if _PLAIN.fullmatch(shown):
        return shown
    return f"“{shown.translate(_INNER)}”"
