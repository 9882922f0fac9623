"""A home that an older version wrote is brought up to date at its first start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock

from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Head, verify_home
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.ledger.schema import APPLICATION_ID, PAGE
from agentvault_tui.model import Agent

NOON = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
_UNREVOKE = """UPDATE agents SET doc = replace(doc, '"revoked"', '"active"')"""


def older(path: Path, *changes: str) -> Home:
    """Write the file as that version left it, and its head; then change rows."""
    home = Home.locate(path)
    home.prepare()
    script = Path(__file__).with_name("version_3.sql").read_text()
    with closing(sqlite3.connect(home.database)) as db:
        db.executescript(script)
        db.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 3;"
        )
        for sql in changes:
            assert db.execute(sql).rowcount
        db.commit()
        (ledger,) = db.execute("SELECT value FROM meta WHERE key = 'ledger'").fetchone()
        seq, hashed = db.execute("SELECT max(seq), hash FROM events").fetchone()
    write_witness(home.head_file, Witness(ledger, Head(seq, f"sha256:{hashed.hex()}")))
    return home


def named(bench: Bench) -> Callable[[str], Agent]:
    agents = {agent.name: agent for agent in bench.broker.registry.agents()}
    return agents.__getitem__


async def test_what_was_live_is_served_and_the_rest_stays_ended(short: Path) -> None:
    """One token lives of three; what waits for a person is to be asked for again."""
    bench = await Bench.open(older(short / "home"), ManualClock(NOON))
    try:
        registry, agent = bench.broker.registry, named(bench)
        (live,) = registry.tokens_of(agent("live").id)
        assert live.scope == "write:calendar"
        assert not registry.serves(agent("cut").id)
        assert registry.tokens_of(agent("approved").id) == []
        assert registry.stepups.open() == []
        told = {(s.agent_name, s.status.value) for s in registry.stepups.decided()}
        assert {("waits", "cancelled"), ("denied", "denied")} <= told
        assert registry.stepups.cooldowns.remaining(agent("denied").id) == 30.0
        assert await bench.events("audit.ambiguous") == []
        found = verify_home(bench.home, now=NOON)
        assert (found.ok, found.problem) == (True, None)
    finally:
        await bench.close()
    with closing(sqlite3.connect(bench.home.database)) as db:
        assert db.execute("PRAGMA page_size").fetchone() == (PAGE,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_rows_that_older_events_contradict_are_not_taken_over(
    short: Path,
) -> None:
    """A revoked agent made active, and drops that were deleted, give nothing."""
    home = older(short / "home", _UNREVOKE, "DELETE FROM dropped", "DELETE FROM voided")
    bench = await Bench.open(home, ManualClock(NOON))
    try:
        registry, agent = bench.broker.registry, named(bench)
        assert not registry.serves(agent("cut").id)
        assert len(registry.tokens_of(agent("live").id)) == 1
        (event,) = await bench.events("audit.ambiguous")
        assert event.reason == "state_changed"
        assert event.detail["agents"] == [agent("cut").id]
        assert len(event.detail["tokens"]) == 2
        assert verify_home(home, now=NOON).ok
    finally:
        await bench.close()


@pytest.mark.parametrize("version", [2, 3])
async def test_a_file_is_not_brought_up_to_date_twice(
    short: Path, version: int
) -> None:
    """Who sets the version back to have changed rows bound anew is refused."""
    bench = await Bench.open(older(short / "home"), ManualClock(NOON))
    home = bench.home
    await bench.close()
    with closing(sqlite3.connect(home.database)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(LedgerDamagedError):
        await Bench.open(home, ManualClock(NOON))
