"""A start brings the previous schema up to date, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.forked import Forked
from support.ledger_kit import decision, make_older, manual_clock
from support.vault import serving

from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, schema, verify_ledger

EVENTS = 6_000


@pytest.fixture(scope="module")
def previous(module_folder: Path) -> Home:
    """A home of the previous schema, with many events that count towards limits."""
    home, clock = Home(module_folder, module_folder), manual_clock()

    async def fill() -> None:
        ledger = await Ledger.open(home, clock=clock)
        for start in range(0, EVENTS, 1_000):
            drafts = (
                decision(counted={"limits": {"a": {"count": 1}}, "resource": f"x:{n}"})
                for n in range(start, start + 1_000)
            )
            await asyncio.gather(*map(ledger.commit, drafts))
        await ledger.close()

    asyncio.run(fill())
    make_older(home, 4)
    return home


@pytest.fixture
def old(previous: Home, short: Path) -> Home:
    copy = shutil.copytree(previous.data, short / "home")
    return Home(copy, copy)


def version(home: Home) -> int:
    with closing(sqlite3.connect(home.database)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def started(home: Home, room: int | None = None) -> Forked:
    argv = ("--home", str(home.data), "serve", "--listen", "127.0.0.1:0")
    return Forked(argv, plain_environment(), room)


def check_served(home: Home) -> None:
    """See that a start serves it, up to date, with every event."""
    with serving(home.data) as vault:
        status = vault.operator.get("/api/status").json()
        assert status["ledger"]["writable"] is True
        assert status["ledger"]["head"] > EVENTS
    assert version(home) == schema.VERSION
    assert verify_ledger(home).ok


def test_an_upgrade_that_is_killed_is_done_by_the_next_start(old: Home) -> None:
    """As soon as it has written anything: it is of one version or the other."""
    log = Path(f"{old.database}-wal")
    with started(old) as process:
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            os.sched_yield()
        process.kill()
        process.wait()
    assert version(old) in {4, schema.VERSION}
    check_served(old)


def test_an_upgrade_without_room_leaves_the_home_as_it_was(old: Home) -> None:
    """The start says so and ends; with room the next one does it.

    The room is enough for the log's index, and not for the uses of limits.
    """
    with started(old, room=65_536) as process:
        assert process.wait() == 1
    assert version(old) == 4
    check_served(old)
