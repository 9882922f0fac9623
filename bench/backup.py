"""How long a home of many events takes to back up, to restore and to upgrade.

    python bench/backup.py [--events 1000000] [--dir DIR]

Each is told in seconds, and as a multiple of copying the database's file in the same
run. Then the home's database is taken back to schema 4: the start that brings it up to
date is killed in the middle, and timed.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import uvloop
from history import fill, timed

from agentvault_tui.broker.backup import make_backup
from agentvault_tui.broker.restore import restore_backup
from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, schema, verify_ledger
from agentvault_tui.model import Actor, ActorKind

OPERATOR = Actor(ActorKind.OPERATOR, "uid:0", "bench")


def downgrade(home: Home) -> None:
    """Take from the database what version 5 added."""
    with closing(sqlite3.connect(home.database)) as db:
        for kind, name in schema.expected().keys() - schema.expected(schema._TABLES):  # noqa: SLF001
            db.execute(f"DROP {kind} IF EXISTS {name}")
        db.execute("PRAGMA user_version = 4")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def start(home: Home) -> None:
    """Open the ledger as `serve` does, and close it."""

    async def opened() -> None:
        await (await Ledger.open(home, clock=SystemClock())).close()

    asyncio.run(opened())


def version(home: Home) -> int:
    """Return the database's schema."""
    with closing(sqlite3.connect(home.database)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def upgrade(home: Home, base: float) -> None:
    """Kill the start that upgrades half a second in; time the next one."""
    downgrade(home)
    child = multiprocessing.get_context("fork").Process(target=start, args=(home,))
    child.start()
    child.join(0.5)
    child.kill()
    child.join()
    print(f"an upgrade killed in the middle leaves schema {version(home)}")
    _, took = timed(lambda: start(home))
    print(f"upgrade: {took:.1f} s ({took / base:.1f} copies), schema {version(home)}")


def main(place: Path, events: int) -> None:
    """Measure in a folder."""
    home, there = Home(place / "home", place / "home"), Home(place / "r", place / "r")
    home.prepare()
    _, took = timed(lambda: uvloop.run(fill(home, events)))
    size = home.database.stat().st_size
    print(f"{events:,} decisions in {took:.0f} s: {size / 2**20:,.0f} MiB")
    _, base = timed(lambda: shutil.copyfile(home.database, place / "copy"))
    print(f"copying the file: {base:.1f} s")
    clock = SystemClock()
    made, took = timed(lambda: make_backup(home, place / "backup", clock))
    size = (place / "backup").stat().st_size
    print(
        f"backup: {took:.1f} s ({took / base:.1f} copies), {size / 2**20:,.0f} MiB, "
        f"{made.seq:,} events"
    )
    _, took = timed(lambda: restore_backup(there, place / "backup", clock, OPERATOR))
    print(f"restore: {took:.1f} s ({took / base:.1f} copies)")
    checked, took = timed(lambda: verify_ledger(there))
    print(f"of which verifying: {took:.1f} s ({checked.events:,} events)")
    upgrade(home, base)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="backup-bench-", dir=asked.dir))
    try:
        main(folder, asked.events)
    finally:
        shutil.rmtree(folder)
