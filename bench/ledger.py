"""How fast the ledger is: commits against a bare flush, verification, first pages.

    python bench/ledger.py [--events 1000000] [--dir DIR]

Prints medians and, where there is a baseline, the ratio to it.
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
from datetime import timedelta
from pathlib import Path

import uvloop
from support.disk import BLOCK, flushes

from agentvault_tui.clock import Deadline, SystemClock
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, export_ledger, verify_ledger
from agentvault_tui.ledger.activity import read_activity
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    Token,
    TokenId,
    TokenKind,
    new_id,
)

AGENTS = [
    (AgentId(new_id("agt")), f"{name}-agent-{number}")
    for number in range(33)
    for name in ("calendar", "email", "finance", "payments", "records", "research")
]
ACTIONS = {
    "calendar": "write:calendar",
    "email": "send:email",
    "finance": "read:finance",
    "payments": "send:payment",
    "records": "delete:records",
    "research": "read:web",
}


def draft(chance: random.Random) -> Draft:
    """Make a believable decision."""
    agent_id, name = chance.choice(AGENTS)
    kind = name.split("-")[0]
    outcome = chance.choices(list(Outcome), (90, 7, 3))[0]
    detail = {
        "scope": ACTIONS[kind],
        "parameters": {
            "amount": chance.randrange(10_000),
            "currency": "EUR",
            "note": f"Invoice {chance.randrange(100_000)}",
        },
        "policy": "3f9c2a",
    }
    return Draft(
        EventType.TOKEN_DECISION,
        Actor(ActorKind.AGENT, agent_id, name),
        agent_id,
        ACTIONS[kind],
        f"{kind}:acct_{chance.randrange(500)}",
        outcome,
        "granted" if outcome is Outcome.ALLOWED else "policy_forbids",
        "low-and-medium-risk",
        DecisionId(new_id("dec")),
        detail,
    )


async def commits(ledger: Ledger, waiters: int, seconds: float, flush: float) -> None:
    """Let *waiters* commit a decision and a token each, over and over."""
    clock = SystemClock()
    chance = random.Random(waiters)  # noqa: S311 - a repeatable load, no secret
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def wait() -> None:
        """Be one of those who wait, until time is up."""
        while time.perf_counter() < end:
            made = draft(chance)
            agent_id = made.agent_id or AgentId("")
            token = Token(
                TokenId(new_id("tok")),
                "ab" * 32,
                agent_id,
                made.action or "",
                TokenKind.STANDARD,
                clock.now(),
                Deadline.after(clock, 3600),
            )
            started = time.perf_counter()
            await ledger.commit(made, changes=[token])
            times.append(time.perf_counter() - started)

    began, before = time.perf_counter(), written()
    await asyncio.gather(*(wait() for _ in range(waiters)))
    rate = len(times) / (time.perf_counter() - began)
    size = (written() - before) / len(times) / 1000
    p50, p99 = quantiles(times)
    print(
        f"commit, {waiters:>3} waiting: p50 {p50:6.2f} ms  p99 {p99:6.2f} ms "
        f"{rate:8,.0f}/s   p50 is {p50 / flush:4.2f} flushes, "
        f"the rate {rate * flush / 1000:5.2f} a flush, {size:.1f} kB written each"
    )


def written() -> int:
    """Return the bytes this process has sent to the disk so far (proc(5), io)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    told = dict(line.split(": ") for line in lines)
    return int(told["write_bytes"])


def quantiles(times: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile in milliseconds."""
    ordered = sorted(times)
    return ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


async def grow(ledger: Ledger, events: int) -> None:
    """Fill the ledger up to *events*, then wait for its index."""
    chance = random.Random(1)  # noqa: S311 - a repeatable load, no secret
    started = time.perf_counter()
    while ledger.head.seq < events:
        count = min(500, events - ledger.head.seq)
        await ledger.commit(*(draft(chance) for _ in range(count)))
        await asyncio.sleep(0)
    print(f"filled to {events:,} events in {time.perf_counter() - started:.0f} s")
    started, lag = time.perf_counter(), ledger.index_lag
    while ledger.index_lag:  # noqa: ASYNC110 - nobody but a bench waits for it
        await asyncio.sleep(0.1)
    spent = time.perf_counter() - started
    print(
        f"index: {lag:,} events behind, caught up in {spent:.0f} s "
        f"({lag / max(spent, 0.001):,.0f}/s)"
    )


async def activity(ledger: Ledger) -> None:
    """Time what an agent's screen asks for, for agents chosen at random."""
    chance = random.Random(3)  # noqa: S311 - a repeatable load, no secret
    since = SystemClock().now() - timedelta(days=1)
    times = []
    for _ in range(200):
        agent_id, _ = chance.choice(AGENTS)
        started = time.perf_counter()
        found = await ledger.read(read_activity, agent_id, since)
        times.append(time.perf_counter() - started)
        assert found.scopes
    print(
        f"activity of an agent:        median {statistics.median(times) * 1e3:6.2f} ms "
        f"worst {max(times) * 1e3:6.2f} ms  ({ledger.head.seq:,} events)"
    )


async def first_pages(ledger: Ledger) -> None:
    """Time the first page of every filter."""
    newest = (await ledger.events(EventQuery(limit=1))).events[0]
    agent_id, _ = AGENTS[3]
    middle = newest.time - timedelta(seconds=5)
    queries = {
        "none": EventQuery(),
        "oldest first": EventQuery(after=0),
        "agent": EventQuery(agent=agent_id),
        "agent that is not there": EventQuery(agent=AgentId("agt_none")),
        "outcome": EventQuery(outcome=Outcome.ESCALATED),
        "type": EventQuery(type=EventType.TOKEN_DECISION),
        "type that is not there": EventQuery(type=EventType.PANIC_ON),
        "agent and outcome": EventQuery(agent=agent_id, outcome=Outcome.ESCALATED),
        "since, until": EventQuery(since=middle, until=newest.time),
        "until before all": EventQuery(until=newest.time - timedelta(days=1)),
        "text, many hits": EventQuery(q="payments"),
        "text, few hits": EventQuery(q="invoice 31337"),
        "text, a decision's id": EventQuery(q=newest.decision_id),
        "text, no hit": EventQuery(q="zeppelin"),
        "text, no hit, usual parts": EventQuery(q="calendar:acct_9999"),
        "text, two letters, hits": EventQuery(q="pa"),
        "text, two letters, no hit": EventQuery(q="q#"),
        "text and agent": EventQuery(q="invoice 3", agent=agent_id),
        "text, agent, outcome, no hit": EventQuery(
            q="zeppelin", agent=agent_id, outcome=Outcome.DENIED
        ),
        "text and outcome, no hit": EventQuery(q="zeppelin", outcome=Outcome.ALLOWED),
    }
    for name, query in queries.items():
        times = []
        for _ in range(9):
            started = time.perf_counter()
            page = await ledger.events(query)
            times.append(time.perf_counter() - started)
        rest = "" if page.next is None else f", next {page.next:,}"
        print(
            f"first page, {name:<29} median {statistics.median(times) * 1e3:6.2f} ms "
            f"worst {max(times) * 1e3:6.2f} ms  ({len(page.events)} events{rest})"
        )


def rate(what: str, count: int, work: Callable[[], object]) -> None:
    """Run *work* on *count* events and print how many a second."""
    started = time.perf_counter()
    result = work()
    spent = time.perf_counter() - started
    assert getattr(result, "ok", True), result
    print(f"{what}: {spent:.2f} s, {count / spent:,.0f} events/s")


async def main(folder: Path, events: int, seconds: float) -> None:
    """Measure everything."""
    flush = statistics.median(flushes(folder, 400, 4 * BLOCK))
    print(f"flush: append 16 kB and fdatasync, median {flush:.2f} ms")
    clock, home = SystemClock(), Home(folder / "home", folder / "home")
    ledger = await Ledger.open(home, clock=clock)
    for waiters in (1, 8, 64):
        await commits(ledger, waiters, seconds, flush)
    await grow(ledger, events)
    await first_pages(ledger)
    await activity(ledger)
    await ledger.close()
    started = time.perf_counter()
    ledger = await Ledger.open(home, clock=clock)
    opened = time.perf_counter()
    loaded = await ledger.load()
    read = time.perf_counter()
    assert not await ledger.diverged(loaded)
    print(
        f"open {1e3 * (opened - started):.0f} ms, load {1e3 * (read - opened):.0f} ms, "
        f"compare with the chain {1e3 * (time.perf_counter() - read):.0f} ms "
        f"({len(loaded.tokens):,} tokens)"
    )
    count = ledger.head.seq
    await ledger.close()
    rate("verify", count, lambda: verify_ledger(home))
    target = folder / "out.jsonl"
    rate("export", count, lambda: export_ledger(home, target, now=clock.now()))
    size = home.database.stat().st_size
    index = home.database.with_name("index.db").stat().st_size
    print(
        f"size: {size / count:.0f} B an event with state, {index / count:.0f} B index"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="ledger-bench-", dir=asked.dir))
    try:
        uvloop.run(main(place, asked.events, asked.seconds))
    finally:
        shutil.rmtree(place)
    sys.exit(0)
