"""Windows of limits in words: the same on the screen, for an agent, and in the CLI."""

from __future__ import annotations

from typing import Any

import pytest
from support.wire_shapes import filled

from agentvault_tui.operator_api.displayer import Displayer
from agentvault_tui.operator_api.limits import LimitList
from agentvault_tui.presenters.limits import LimitRows, LimitWindow, windows

_LIMIT = {"id": "pay", "per": "agent", "within": "1d", "most": 100, "over": "step_up"}
_USE = {"limit": "pay", "agent_id": "agt_1", "agent_name": "payer", "used": 80}


def read(limit: dict[str, Any], *uses: dict[str, Any]) -> list[LimitWindow]:
    listing = filled(LimitList, {"limits": [_LIMIT | limit], "uses": [*uses]})
    return [*windows(Displayer().read(listing, LimitRows))]


def test_a_window_says_what_is_left() -> None:
    """Use, rest and limit are in the same unit, and near begins at a fifth."""
    (window,) = read({}, _USE | {"left": 20})
    assert (window.subject, window.agent_id) == ("payer", "agt_1")
    assert (window.used, window.rest, window.allows) == ("80", "20", "100 in 1d")
    assert (window.is_near, window.beyond) == (True, "a person")
    (window,) = read({"over": "deny"}, _USE | {"left": 21})
    assert (window.is_near, window.beyond) == (False, "denied")


def test_an_amount_is_in_its_currency() -> None:
    """Ten-thousandths of the major unit are written with the currency."""
    money = {"currency": "USD", "in_major": True, "most": 5_000_000}
    (window,) = read(money, _USE | {"used": 420_000, "left": 4_580_000})
    assert window.allows == "500.00 USD in 1d"
    assert (window.used, window.rest) == ("42.00 USD", "458.00 USD")


@pytest.mark.parametrize(
    ("per", "use", "subject"),
    [
        ("all", _USE, "everyone"),
        ("all", None, "everyone"),
        ("agent", None, "nothing used"),
        ("resource", {"limit": "pay", "resource": "acct_42"}, "acct_42"),
        ("resource", {"limit": "pay"}, "no resource"),
        ("agent", _USE | {"agent_name": "\x1b[2J"}, "⟦U+001B⟧[2J"),
    ],
)
def test_each_window_names_its_subject(
    per: str, use: dict[str, Any] | None, subject: str
) -> None:
    """A limit of which nothing is used has a row too."""
    (window,) = read({"per": per}, *([use] if use else []))
    assert window.subject == subject
    assert window.id == f"pay {subject}"
    assert use or window.left == 100
