"""How quickly the past is rebuilt: a ledger of many events, looked into anywhere.

    python bench/past.py [--events 1000000] [--rate 100] [--careful 0.9] [--dir DIR]

Each answer is compared with reading one page of the audit in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from ledger import AGENTS, draft

from agentvault_tui.clock import SystemClock, iso
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, schema
from agentvault_tui.ledger.past import History
from agentvault_tui.ledger.query import read_page
from agentvault_tui.model import Actor, ActorKind, Draft, EventType, Outcome, new_id

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.manual_clock import ManualClock

OPERATOR = Actor(ActorKind.OPERATOR, "uid:1000", "olga")
START = datetime(2026, 11, 24, tzinfo=UTC)


def register() -> list[Draft]:
    """Register every agent of the load."""
    return [
        Draft(
            EventType.AGENT_REGISTERED,
            OPERATOR,
            agent_id=agent,
            detail={
                "agent": name,
                "owner": "alice@acme.test",
                "purpose": "",
                "scopes": ["read:web"],
                "resource_server": False,
                "credential": "secret",
            },
        )
        for agent, name in AGENTS
    ]


def decision(chance: random.Random, clock: ManualClock) -> Draft:
    """Decide as the broker does: an allowed one names its token and when it ends."""
    made = draft(chance)
    if made.outcome is not Outcome.ALLOWED:
        return made
    ends = iso(clock.now() + timedelta(hours=1))
    return replace(
        made, detail={**made.detail, "token_id": new_id("tok"), "expires_at": ends}
    )


def handed_back(decided: Draft) -> Draft:
    """Hand the token of a decision back, as a careful agent does."""
    told = {name: decided.detail[name] for name in ("token_id", "expires_at")}
    return replace(
        decided, type=EventType.TOKEN_REVOKED, outcome=None, rule=None, detail=told
    )


async def grow(
    ledger: Ledger, clock: ManualClock, events: int, rate: float, careful: float = 0.0
) -> None:
    """Fill the ledger, at *rate* events a second by its own clock.

    Of the tokens issued the share *careful* is handed back at once.
    """
    chance = random.Random(1)  # noqa: S311 - a repeatable load, no secret
    await ledger.commit(*register())
    while ledger.head.seq < events:
        clock.advance(500 / rate)
        drafts: list[Draft] = []
        while len(drafts) < 500:
            drafts.append(made := decision(chance, clock))
            if "token_id" in made.detail and chance.random() < careful:
                drafts.append(handed_back(made))
        await ledger.commit(*drafts)
        await asyncio.sleep(0)


def look(
    db: sqlite3.Connection, history: History, name: str, places: list[int]
) -> float:
    """Look at each of *places*, and print how long that took."""
    times, worked = [], time.thread_time()
    now = SystemClock().now()
    for seq in places:
        started = time.perf_counter()
        found = history._at(db, now=now, seq=seq)  # noqa: SLF001 - in this thread
        times.append((time.perf_counter() - started) * 1e3)
    worked = (time.thread_time() - worked) * 1e3 / len(places)
    live = sum(held.live for held in found.holdings.values())
    print(
        f"past, {name:<30} median {statistics.median(times):7.2f} ms  worst"
        f" {max(times):7.2f} ms  processor {worked:6.2f} ms each"
        f"  ({live:,} live tokens in the last)"
    )
    return statistics.median(times)


async def fill(home: Home, events: int, rate: float, careful: float) -> None:
    """Make the ledger, and close it, which empties the log."""
    ledger = await Ledger.open(home, clock=(clock := ManualClock(START)))
    started = time.perf_counter()
    await grow(ledger, clock, events, rate, careful)
    print(
        f"{ledger.head.seq:,} events of {len(AGENTS)} agents at {rate:.0f}/s,"
        f" filled in {time.perf_counter() - started:.0f} s"
    )
    await ledger.close()


def measure(home: Home, rate: float) -> None:
    """Look back, near and far, and at a page for comparison."""
    db, clock = schema.open_reader(home.database), SystemClock()
    history = History(home.database, clock)
    page = []
    for _ in range(9):
        started = time.perf_counter()
        read_page(db, EventQuery(limit=200), clock)
        page.append((time.perf_counter() - started) * 1e3)
    base = statistics.median(page)
    print(f"page of 200 events: median {base:.2f} ms")
    (head,) = db.execute("SELECT max(seq) FROM events").fetchone()
    chance = random.Random(2)  # noqa: S311 - a repeatable load, no secret
    step, third = int(rate * 60), head // 3
    look(db, history, "the first look, in the middle", [head // 2])
    look(db, history, "anywhere", [chance.randrange(1, head) for _ in range(15)])
    near = look(db, history, "event by event", list(range(third, third + 25)))
    minutes = [head - n * step for n in range(1, 15) if head > n * step]
    look(db, history, "minute by minute from the end", minutes or [head])
    print(f"event by event is {near / base:.1f} pages")
    db.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--careful", type=float, default=0.0)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="past-bench-", dir=asked.dir))
    try:
        vault = Home(place / "home", place / "home")
        uvloop.run(fill(vault, asked.events, asked.rate, asked.careful))
        measure(vault, asked.rate)
    finally:
        shutil.rmtree(place)
    sys.exit(0)
