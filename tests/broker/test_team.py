"""What a broker of a team makes of what the others say of themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.manual_clock import ManualClock

from agentvault_tui import __version__
from agentvault_tui.broker.team import Member, Said, Team


@pytest.mark.parametrize(
    ("age", "other", "reason"),
    [
        (1.9, {}, None),
        (2.0, {}, "it says nothing any more"),
        (0.1, {"version": "0.1"}, "it is of version 0.1"),
        (0.1, {"lag_ms": 251.0}, "it is behind the store"),
        (0.1, {"lag_ms": None}, "it is behind the store"),
        (0.1, {"policy": "p2"}, "another policy is in force there"),
        (
            0.1,
            {"key": "k1"},
            "it has not the team's key: agentvault team key import there",
        ),
        (0.1, {"clock": -600.0}, "its clock differs by -600 s"),
        (0.1, {"clock": 30.0, "lag_ms": 250.0}, None),
    ],
)
def test_a_broker_out_of_step_is_told_of_with_the_reason(
    clock: ManualClock, age: float, other: dict[str, Any], reason: str | None
) -> None:
    """In step is who was seen within 2 s, knows the head, and decides as we do."""
    ledger: Any = SimpleNamespace(head=SimpleNamespace(seq=7))
    shared: Any = SimpleNamespace(broker_id="brk_a")
    keys = lambda: ("k2", "k2")  # noqa: E731
    team = Team(ledger, shared, clock, lambda: "p1", tenant="", key=keys)
    said: dict[str, Any] = {
        "version": __version__,
        "policy": "p1",
        "lag_ms": 1.0,
        "key": "k2",
    } | other
    b = Said(run="r", host="b", since="", seq=7, **said)
    team.members = (Member("brk_b", b, clock.now(), age),)
    assert [why for _, why in team.standing()] == [reason]
    assert len(team.others()) == (age < 2.0)
