"""Uses of limits follow from the events: derived in one transaction, and checked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support.ledger_kit import SYSTEM, decision, make_older, note, tamper
from support.manual_clock import ManualClock

from agentvault_tui.clock import iso
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, accept_rollback, schema, verify_ledger
from agentvault_tui.ledger.uses import is_derived, micros

EVENTS = 12


async def count(
    home: Home, clock: ManualClock, events: int = EVENTS, **used: Any
) -> None:
    """Record events that count towards two limits."""
    ledger = await Ledger.open(home, clock=clock)
    for number in range(events):
        clock.advance(1)
        limits = {"a": {"count": 1}, "b": {"amount": 5, "currency": "USD"}}
        counted = {
            "at": iso(clock.now()),
            "limits": limits,
            "resource": f"x:{number % 3}",
            **used,
        }
        await ledger.commit(decision(f"agt_{number % 2}", counted=counted), note())
    await ledger.close()


def rows(home: Home) -> list[tuple[Any, ...]]:
    """Return all rows, by the windows' names."""
    with closing(sqlite3.connect(home.database)) as db:
        return db.execute(
            "SELECT name, currency, per, key, at, seq, units, total"
            " FROM uses JOIN windows ON id = window ORDER BY 1, 2, 3, 4, 5, 6"
        ).fetchall()


async def test_each_event_counts_in_each_of_its_windows(
    home: Home, clock: ManualClock
) -> None:
    """By agent, by resource and of all; the total runs on within each."""
    await count(home, clock)
    found = rows(home)
    assert len(found) == EVENTS * 2 * 3
    mine = [row[4:] for row in found if row[:4] == ("b", "USD", "agent", "agt_1")]
    assert [one[2:] for one in mine] == [(5, 5 * n) for n in range(1, 7)]
    assert mine[-1][:2] == (micros(clock.now()), EVENTS * 2 - 1)
    everything = [row[7] for row in found if row[:4] == ("a", "", "all", "")]
    assert everything == list(range(1, EVENTS + 1))


async def test_a_use_of_an_earlier_time_counts_from_the_one_before(
    home: Home, clock: ManualClock
) -> None:
    """Commits may end in another order than they were decided."""
    await count(home, clock, 1)
    late = {"count": 1, "agents": ["agt_0", "agt_1"]}
    early = {"at": iso(clock.now() - timedelta(hours=1)), "limits": {"a": late}}
    ledger = await Ledger.open(home, clock=clock)
    await ledger.commit(decision("agt_0", counted=early))
    await ledger.close()
    found = [row[4:] for row in rows(home) if row[:4] == ("a", "", "agent", "agt_0")]
    assert [(at, total) for at, _, _, total in found] == [
        (micros(clock.now()), 1),
        (micros(clock.now()), 2),
    ]
    assert verify_ledger(home).ok


@pytest.mark.parametrize("version", sorted(schema.UPGRADED))
async def test_an_upgrade_derives_what_was_counted_before(
    home: Home, clock: ManualClock, version: int
) -> None:
    """An older home has events alone; its rows are those that it would have."""
    others = [{"limits": {"a": {"count": 1}}, "resource": "x:other"}]
    await count(home, clock, others=others)
    expected = rows(home)
    make_older(home, version)
    await count(home, clock, 0)
    assert rows(home) == expected
    assert verify_ledger(home).ok


LAST = "seq = (SELECT max(seq) FROM uses) AND units = 1"
CHANGES = {
    "all are gone": "DELETE FROM uses",
    "one is gone": f"DELETE FROM uses WHERE {LAST}",
    "its units": f"UPDATE uses SET units = 0 WHERE {LAST}",
    "its total": f"UPDATE uses SET total = total - 1 WHERE {LAST}",
    "its time": f"UPDATE uses SET at = at - 1 WHERE {LAST}",
    "one more": "INSERT INTO uses VALUES (1, 9999999999999999, 5, -9, 0)",
    "a window": "INSERT INTO windows VALUES (999, 'a', '', 'all', 'x')",
    "its key": "UPDATE windows SET key = 'agt_9' WHERE key = 'agt_1'",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_changed_rows_are_found_and_derived_again(
    home: Home, clock: ManualClock, change: str
) -> None:
    """Verify says so; a start takes what the events say, and tells of it."""
    await count(home, clock)
    expected = rows(home)
    tamper(home, change)
    found = verify_ledger(home)
    assert not found.ok
    assert "limits count" in (found.problem or "")
    ledger = await Ledger.open(home, clock=clock)
    told = await ledger.diverged(await ledger.load())
    await ledger.close()
    assert told.limits
    assert told.counts() == {"set of limits' uses": 1}
    assert rows(home) == expected
    assert verify_ledger(home).ok


async def test_rows_of_older_events_are_found_by_verify_and_mended_by_accept(
    home: Home, clock: ManualClock
) -> None:
    """A start derives those of the last events alone."""
    await count(home, clock)
    expected = rows(home)
    tamper(home, "UPDATE uses SET total = total - 1 WHERE window = 1 AND seq = 1")
    with closing(sqlite3.connect(home.database)) as db:
        assert is_derived(db, 2)
        assert not is_derived(db)
    assert not verify_ledger(home).ok
    await accept_rollback(home, clock=clock, actor=SYSTEM, reason="test")
    assert rows(home) == expected
    assert verify_ledger(home).ok
