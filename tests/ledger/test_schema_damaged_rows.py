"""Rows whose values are of another type than written: damage by name, no traceback."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.ledger_kit import START, decision
from support.manual_clock import ManualClock

from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger
from agentvault_tui.ledger.activity import count_new, read_activity
from agentvault_tui.model import AgentId

_UNCHANGED = "DROP TRIGGER events_are_not_changed;"
_HASH = f"{_UNCHANGED} UPDATE events SET hash = 'text' WHERE seq = 2"
_AGENT = AgentId("agt_1")

Read = Callable[[Ledger], Awaitable[Any]]


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        (
            "UPDATE activity SET facet = 'other' WHERE facet = 'scope'",
            lambda ledger: ledger.read(read_activity, _AGENT, START),
        ),
        (
            "UPDATE activity SET last = x'00'",
            lambda ledger: ledger.read(read_activity, _AGENT, START),
        ),
        (_HASH, lambda ledger: ledger.events(EventQuery(after=0))),
        (_HASH, lambda ledger: ledger.event(2)),
        (_HASH, lambda ledger: ledger.links([2])),
        (_HASH, lambda ledger: ledger.links([3])),
        (_HASH, lambda ledger: ledger.past.at(seq=2)),
    ],
)
async def test_a_value_of_another_type_is_damage(
    ledger: Ledger, home: Home, sql: str, read: Read
) -> None:
    """Whatever reads it says that the file is damaged, and what to do."""
    for number in range(4):
        await ledger.commit(decision(_AGENT, n=number))
    db = sqlite3.connect(home.database)
    count_new(db)
    db.executescript(sql)
    db.close()
    with pytest.raises(LedgerDamagedError) as caught:
        await read(ledger)
    assert caught.value.remedy


async def test_what_is_no_damage_is_still_told_apart(
    ledger: Ledger, clock: ManualClock
) -> None:
    """A limit out of range is the caller's mistake, not the file's."""
    await ledger.commit(decision(_AGENT))
    with pytest.raises(ValueError, match="limit"):
        await ledger.events(EventQuery(after=0, limit=0))
