"""How long a ledger of many events takes from SQLite to a team's store, and back.

    python bench/store.py [--events 1000000] [--dir DIR]

Each is told in seconds, and as a multiple of copying the database's file in the same
run: to PostgreSQL with its verification, to the home of a broker that joins, back to
SQLite, and the check of the whole store.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from history import fill, timed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.postgres import TEAM, Cluster

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, verify_ledger
from agentvault_tui.ledger.store_copying import copy_to_home, copy_to_store, read_into
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.settings import Settings
from agentvault_tui.store_connection import Connector

OPERATOR = Actor(ActorKind.OPERATOR, "uid:0", "bench")


async def join(home: Home, settings: Settings) -> None:
    """Make up the copy of a broker that is new in the team."""
    clock = SystemClock()
    ledger = await Ledger.open(home, clock=clock, settings=settings)
    await ledger.close()


def main(place: Path, events: int) -> None:
    """Measure in a folder."""
    home, new, back, checked = (Home(place / name, place / name) for name in "hnbc")
    home.prepare()
    uvloop.run(fill(home, events))
    _, base = timed(lambda: shutil.copyfile(home.database, place / "copy"))
    size = home.database.stat().st_size
    print(f"copying the file, {size / 2**20:,.0f} MiB: {base:.1f} s")
    cluster = Cluster(place / "pg", ("shared_buffers=256MB", "max_wal_size=4GB"))
    cluster.create()
    cluster.start()
    try:
        store = cluster.store()
        connector = Connector(store.url, TEAM)

        def measure(what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
            _, took = timed(lambda: asyncio.run(work()))
            print(f"{what}: {took:.1f} s ({took / base:.1f} copies)", flush=True)

        measure(
            "to PostgreSQL, read back and verified",
            lambda: copy_to_store(home, connector, store.url, OPERATOR),
        )
        measure("a new broker's copy", lambda: join(new, store.settings))
        measure("read for a check", lambda: read_into(connector, checked))
        report, took = timed(lambda: verify_ledger(checked))
        print(f"checked, state as well: {took:.1f} s ({report.ok}, {report.events:,})")
        measure(
            "back to SQLite",
            lambda: copy_to_home(connector, back, OPERATOR, SystemClock()),
        )
    finally:
        cluster.stop(signal.SIGQUIT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="store-bench-", dir=asked.dir))
    folder.chmod(0o755)
    try:
        main(folder, asked.events)
    finally:
        shutil.rmtree(folder)
