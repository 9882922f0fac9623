"""The console in a 120x40 pty over a real broker: cost, bytes, latency, memory.

python bench/console.py [--agents 200] [--rate 500] [--events 100000] [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.load import ask_many, connect
from support.screen import Screen
from support.vault import AGENTVAULT, Client, Vault, vault

BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("bare textual")
Bare().run(mouse=False)
"""
_SCOPES = ("read:calendar", "read:email", "read:contacts")
_KEYS = 40
_CURSOR = (range(3, 22), range(13))
"""Where the cursor's mark and the names stand, and nothing that counts."""


class Load(threading.Thread):
    """Asks for tokens at a steady rate, from a thread of its own."""

    def __init__(self, vault: Vault, clients: list[Client], rate: int) -> None:
        super().__init__(daemon=True)
        self.vault, self.clients, self.rate = vault, clients, rate
        self.asked = 0
        self._ended = threading.Event()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        lines = [await connect(self.vault.agents) for _ in range(10)]
        batch = len(lines)
        requests = [
            client.token_request(_SCOPES[number % 3])
            for number, client in enumerate(self.clients)
        ]
        started = time.perf_counter()
        while not self._ended.is_set():
            due = started + self.asked / self.rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            turn = [requests[(self.asked + n) % len(requests)] for n in range(batch)]
            pairs = zip(lines, turn, strict=True)
            await asyncio.gather(*(line.ask(asked) for line, asked in pairs))
            self.asked += batch
        for line in lines:
            line.close()

    def end(self) -> None:
        self._ended.set()
        self.join(10)


@contextmanager
def console(home: str) -> Iterator[Screen]:
    """Open the console and wait until it is live."""
    with Screen([*AGENTVAULT, "--home", home, "console"]) as screen:
        screen.seen("live")
        yield screen


def first_paint(home: str, runs: int) -> tuple[float, float]:
    """Return the medians of ours and of a bare Textual app, in seconds."""
    ours, bare = [], []
    for _ in range(runs):
        with Screen([*AGENTVAULT, "--home", home, "console"]) as screen:
            ours.append(screen.seen("Agents"))
        with Screen([sys.executable, "-c", BARE]) as screen:
            bare.append(screen.seen("bare textual"))
    return statistics.median(ours), statistics.median(bare)


def watch(screen: Screen, seconds: float) -> tuple[float, float]:
    """Return the share of a core and the bytes a second over that time."""
    since, before = time.perf_counter(), screen.cpu
    time.sleep(seconds)
    took = time.perf_counter() - since
    return (screen.cpu - before) / took, screen.painted(since) / took


def keys(screen: Screen) -> list[float]:
    """Press keys under load; return the seconds from each to its paint."""
    pressed = []
    for number in range(_KEYS):
        pressed.append(screen.press("j" if number < _KEYS // 2 else "k"))
        time.sleep(0.17)
    changes = screen.changes(*_CURSOR)
    latencies = []
    for at in pressed:
        after = [change for change in changes if change >= at]
        if after and after[0] - at < 1:
            latencies.append(after[0] - at)
    return sorted(latencies)


class Verdicts:
    """Prints each figure against its target."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, what: str, value: float, unit: str, target: float) -> None:
        met = value <= target
        self.missed += not met
        verdict = "met" if met else "MISSED"
        left = f"{what:34} {value:8.2f} {unit:5}"
        print(f"{left} target {target:g}  x{value / target:.2f}  {verdict}")


async def register(vault: Vault, count: int) -> list[Client]:
    return [await vault.register(f"bench-{n:05d}", *_SCOPES) for n in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    verdicts = Verdicts()
    with vault() as running:
        clients = asyncio.run(register(running, given.agents))
        home = str(running.home)
        ours, bare = first_paint(home, given.runs)
        print(f"first paint: ours {ours:.3f} s, bare Textual {bare:.3f} s")
        verdicts.say("first paint / bare Textual", ours / bare, "", 1.5)
        idle, quiet, busy, wire, waits = [], [], [], [], []
        for _ in range(given.runs):
            with console(home) as screen:
                time.sleep(2)
                core, rate = watch(screen, 10)
                idle.append(core)
                quiet.append(rate)
                load = Load(running, clients, given.rate)
                load.start()
                time.sleep(2)
                core, rate = watch(screen, 10)
                busy.append(core)
                wire.append(rate)
                waits += keys(screen)
                load.end()
        verdicts.say("idle, share of a core", statistics.median(idle) * 100, "%", 1)
        print(f"{'idle, bytes':34} {statistics.median(quiet):8.0f} B/s")
        verdicts.say("busy, share of a core", statistics.median(busy) * 100, "%", 10)
        verdicts.say("busy, written", statistics.median(wire) / 1000, "kB/s", 40)
        waits.sort()
        print(
            f"{'key to paint, median':34} {statistics.median(waits) * 1000:8.1f} ms"
            f"    ({len(waits)} keys)"
        )
        p95 = waits[int(len(waits) * 0.95)]
        verdicts.say("key to paint, p95", p95 * 1000, "ms", 50)
        with console(home) as screen:
            time.sleep(2)
            before = screen.resident
            requests = [client.token_request(_SCOPES[0]) for client in clients]
            asyncio.run(
                ask_many(running.agents, requests, connections=32, count=given.events)
            )
            time.sleep(5)
            after = screen.resident
        print(f"{'growth over the events':34} {after - before:8.1f} MB")
        verdicts.say(f"resident after {given.events:,} events", after, "MB", 80)
    return 1 if verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
