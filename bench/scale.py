"""Ten thousand agents with 240,000 live tokens: what reading and stopping them costs.

python bench/scale.py [--agents 10000] [--tokens 240000] [--runs 5] [--home DIR]
                      [--only start page turns console]

Agents are registered one at a time over the operators' socket, and each asks for tokens
of its own scopes over HTTP. Then the broker is restarted on all of it. With --home,
what was filled stays in DIR: the next run works on a copy of it.
A start is measured on an empty home, and beside it a Python that only loads what the
broker is made of.
The first page is timed on a connection that nobody else disturbs.
While something large is read, and during a panic, the turns of the broker's event loop
are measured inside it (see `support/turns.py`): of several reads the median of their
longest turns is judged, on the clock, and the processor time stands beside it. What
another connection waits at the longest is printed besides: that is up to two turns, the
answer's own time, and the wait of two processes for a processor.
The console is open when the first agents are shown, and complete when it is live and
shows all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from support.load import Connection, ask_many, connect, request
from support.screen import Screen
from support.turns import Turns
from support.vault import AGENTVAULT, Client, Vault, disk, vault

_DOES: Final = ("payroll", "invoice", "calendar", "support", "triage", "research")
_TEAMS: Final = ("emea", "apac", "north", "south", "core", "labs", "field")
_SCOPES: Final = ("read:calendar", "read:email", "read:contacts", "write:calendar")
_CONNECTIONS: Final = 64
_LIVES: Final = 86_400
_SMALL: Final = request("GET", "/api/agents/stepup?limit=1")
_SETTLE: Final = 3.0
_CHUNK: Final = 65_536
_LOADING: Final = "import asyncio, httpx, starlette.applications, uvloop, cedarpy"


class Figures:
    """Prints each figure against its aim."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, what: str, value: float, unit: str, aim: float) -> None:
        """Judge one figure."""
        met = value <= aim
        self.missed += not met
        verdict = "met" if met else "MISSED"
        print(f"{what:46} {value:9.2f} {unit:3} aim {aim:<6g} {verdict}", flush=True)


async def register(running: Vault, count: int) -> list[Client]:
    """Register agents one at a time, with names, owners and scopes that differ."""
    clients = []
    for number in range(count):
        name = f"{_DOES[number % 6]}-{_TEAMS[number % 7]}-{number:05d}"
        first = number % 4
        scopes = sorted({_SCOPES[first], _SCOPES[(first + 1) % 4]})
        owner = f"owner-{number % 701}@acme.test"
        purpose = f"Does {_DOES[number % 6]} for team {number % 97}"
        clients.append(
            await running.register(name, *scopes, owner=owner, purpose=purpose)
        )
    return clients


async def issue(running: Vault, clients: list[Client], count: int) -> float:
    """Let every agent ask for tokens in turn; return the tokens a second."""
    asked = [
        client.token_request(_SCOPES[(number + turn) % 4])
        for turn in range(2)
        for number, client in enumerate(clients)
    ]
    done = await ask_many(running.agents, asked, connections=_CONNECTIONS, count=count)
    if set(done.statuses) != {200}:
        raise SystemExit(f"not every token was issued: {dict(done.statuses)}")
    return done.rate


async def read(running: Vault, path: str) -> None:
    """Read all of an answer on a connection of its own, and keep none of it.

    Joining megabytes would hold up whoever waits for another answer here.
    """
    reader, writer = await asyncio.open_unix_connection(running.operators)
    writer.write(request("GET", path, Connection="close"))
    answer = await reader.read(_CHUNK)
    while await reader.read(_CHUNK):
        pass
    writer.close()
    if b" 200 " not in answer[:16]:
        raise SystemExit(f"{path}: {answer[:200]!r}")


async def waits(line: Connection, work: Awaitable[Any]) -> tuple[float, float]:
    """Return the milliseconds *work* took, and the longest another request waited."""
    doing, longest = asyncio.ensure_future(work), 0.0
    started = time.perf_counter()
    while not doing.done():
        asked = time.perf_counter()
        await line.ask(_SMALL)
        longest = max(longest, time.perf_counter() - asked)
    await doing
    return (time.perf_counter() - started) * 1000, longest * 1000


async def pages(running: Vault, figures: Figures, runs: int) -> None:
    """Measure the first page of agents."""
    took = []
    for _ in range(4 * runs):
        started = time.perf_counter()
        await read(running, "/api/agents?limit=500")
        took.append((time.perf_counter() - started) * 1000)
    figures.say("first page of 500 agents, median", statistics.median(took), "ms", 20)


async def turning(
    running: Vault, turns: Turns, figures: Figures, agents: int, runs: int
) -> None:
    """Measure the longest turns of the loop, while something large is read."""
    line = await connect(running.operators)
    await asyncio.sleep(_SETTLE)
    past = itertools.count(agents)
    stepping: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("nothing", lambda: asyncio.sleep(0.3)),
        ("a page of agents", lambda: read(running, "/api/agents?limit=500")),
        (
            "a page with tokens",
            lambda: read(running, "/api/agents?limit=500&tokens=true"),
        ),
        ("status", lambda: read(running, "/api/status")),
        ("the past", lambda: read(running, f"/api/past?seq={next(past)}")),
    ]
    for what, work in stepping:
        walls, cpus, waited = [], [], []
        for _ in range(runs):
            turns.clear()
            _, longest = await waits(line, work())
            wall, cpu = turns.longest
            walls.append(wall)
            cpus.append(cpu)
            waited.append(longest)
        print(
            f"read {what}: processor {statistics.median(cpus):.1f} ms a turn at most, "
            f"another request waits {statistics.median(waited):.1f} ms"
        )
        figures.say("  longest turn of the loop", statistics.median(walls), "ms", 20)
    answer: dict[str, Any] = {}

    async def stop() -> None:
        body = {"all": True, "reason": "bench"}
        answer.update(await running.operate("POST", "/api/agents/revoke", body))

    turns.clear()
    _, longest = await waits(line, stop())
    wall, cpu = turns.longest
    print(
        f"panic: {answer['tokens_revoked']:,} tokens of {answer['agents']:,} agents; "
        f"processor {cpu:.1f} ms a turn at most, another request waits {longest:.1f} ms"
    )
    figures.say("  in force after", answer["effective_ms"], "ms", 20)
    figures.say("  longest turn of the loop", wall, "ms", 20)
    line.close()


def opens(running: Vault, figures: Figures, runs: int, agents: int) -> None:
    """Measure how long the console takes to show agents, and its megabytes."""
    first, whole, held = [], [], []
    line = [*AGENTVAULT, "--home", str(running.home), "console"]
    for _ in range(runs):
        with Screen(line) as screen:
            first.append(screen.seen("owner-", 60.0) - screen.started)
            shown = screen.seen(f"{agents:,}", 60.0)
            whole.append(max(shown, screen.seen("live", 60.0)) - screen.started)
            time.sleep(1)
            held.append(screen.resident)
    figures.say("console open, median", statistics.median(first), "s", 1)
    figures.say("console complete, median", statistics.median(whole), "s", 1)
    print(f"console resident: {max(held):.0f} MB")


def starts(runs: int) -> tuple[float, float]:
    """Return the seconds until a broker on an empty home is ready, and the loading."""
    ready, bare = [], []
    for _ in range(runs):
        started = time.perf_counter()
        with vault():
            ready.append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", _LOADING], check=True)
        bare.append(time.perf_counter() - started)
    return statistics.median(ready), statistics.median(bare)


def fill(home: Path, figures: Figures, agents: int, tokens: int) -> None:
    """Register all agents and issue all tokens."""
    with vault(home) as running:
        started = time.perf_counter()
        clients = asyncio.run(register(running, agents))
        took = time.perf_counter() - started
        figures.say(f"registering {agents:,} agents", took, "s", 30)
        rate = asyncio.run(issue(running, clients, tokens))
        print(f"tokens issued a second: {rate:.0f}")
        figures.say("resident", running.resident, "MB", 400)


def main() -> int:
    """Measure all of it; 1 if an aim was missed."""
    stages = ("start", "page", "turns", "console")
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=240_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--only", nargs="*", choices=stages, default=stages)
    given = parser.parse_args()
    os.environ["AGENTVAULT_TOKENS_STANDARD_TTL"] = str(_LIVES)
    # What is installed is compiled: once here too, and not at every start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    figures = Figures()
    if "start" in given.only:
        ready, bare = starts(given.runs)
        ratio = ready / bare
        print(f"ready on an empty home: {ready:.2f} s, {ratio:.2f} of loading alone")
    work = Path(tempfile.mkdtemp(prefix="av-bench-", dir=disk()))
    home = work / "home"
    try:
        if given.home is None or not given.home.exists():
            filled = given.home or home
            filled.mkdir(mode=0o700)
            fill(filled, figures, given.agents, given.tokens)
        if given.home is not None:
            shutil.copytree(given.home, home, ignore=shutil.ignore_patterns("run"))
        if {"page", "console"} & set(given.only):
            started = time.perf_counter()
            with vault(home) as running:
                print(f"ready on all of it: {time.perf_counter() - started:.1f} s")
                if "page" in given.only:
                    asyncio.run(pages(running, figures, given.runs))
                if "console" in given.only:
                    opens(running, figures, given.runs, given.agents)
                figures.say("resident after a restart", running.resident, "MB", 400)
        if "turns" in given.only:
            file = work / "turns"
            turns = Turns(file)
            with vault(home, file) as running:
                measuring = turning(running, turns, figures, given.agents, given.runs)
                asyncio.run(measuring)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(main())
