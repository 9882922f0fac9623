"""How quickly the past is rebuilt: a ledger of many events, looked into anywhere.

    python bench/past.py [--events 1000000] [--dir DIR]

Each answer is compared with reading one page of the audit in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from ledger import AGENTS, draft

from agentvault_tui.clock import ManualClock, iso
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, Past
from agentvault_tui.model import Actor, ActorKind, Draft, EventType, Outcome, new_id

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


async def grow(ledger: Ledger, clock: ManualClock, events: int, rate: float) -> None:
    """Fill the ledger, at *rate* events a second by its own clock."""
    chance = random.Random(1)  # noqa: S311 - a repeatable load, no secret
    await ledger.commit(*register())
    while ledger.head.seq < events:
        clock.advance(500 / rate)
        await ledger.commit(*(decision(chance, clock) for _ in range(500)))
        await asyncio.sleep(0)


async def timed(times: list[float], work: Callable[[], object]) -> object:
    started = time.perf_counter()
    result = await work()  # type: ignore[misc]
    times.append((time.perf_counter() - started) * 1e3)
    return result


async def look(ledger: Ledger, name: str, places: list[int]) -> float:
    """Look at each of *places*, and print how long that took."""
    times: list[float] = []
    found: Past | None = None
    worked = time.process_time()
    for seq in places:
        result = await timed(times, lambda seq=seq: ledger.past(seq=seq))
        assert isinstance(result, Past)
        found = result
    assert found is not None
    worked = (time.process_time() - worked) * 1e3 / len(places)
    live = sum(held.live for held in found.holdings.values())
    print(
        f"past, {name:<34} median {statistics.median(times):7.2f} ms  "
        f"worst {max(times):7.2f} ms  processor {worked:6.2f} ms a look"
        f"  ({live:,} live tokens in the last)"
    )
    return statistics.median(times)


async def main(folder: Path, events: int, rate: float) -> None:
    """Measure."""
    clock, home = ManualClock(START), Home(folder / "home", folder / "home")
    ledger = await Ledger.open(home, clock=clock)
    started = time.perf_counter()
    await grow(ledger, clock, events, rate)
    print(
        f"{ledger.head.seq:,} events of {len(AGENTS)} agents at {rate:.0f}/s,"
        f" filled in {time.perf_counter() - started:.0f} s"
    )
    page: list[float] = []
    for _ in range(9):
        await timed(page, lambda: ledger.events(EventQuery(limit=200)))
    base = statistics.median(page)
    print(f"page of 200 events: median {base:.2f} ms")
    head = ledger.head.seq
    chance = random.Random(2)  # noqa: S311 - a repeatable load, no secret
    await look(ledger, "the first look, in the middle", [head // 2])
    await look(ledger, "anywhere", [chance.randrange(1, head) for _ in range(15)])
    near = await look(ledger, "event by event", list(range(head // 3, head // 3 + 25)))
    step = int(rate * 60)
    minutes = [head - n * step for n in range(1, 15) if head > n * step]
    await look(ledger, "minute by minute from the end", minutes or [head])
    print(f"event by event is {near / base:.1f} pages")
    await ledger.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="past-bench-", dir=asked.dir))
    try:
        uvloop.run(main(place, asked.events, asked.rate))
    finally:
        shutil.rmtree(place)
    sys.exit(0)
