"""The console in a 120x40 pty over a real broker: cost, bytes, latency, memory.

python bench/console.py [--agents 2000] [--rate 500] [--events 150000] [--runs 5]
                        [--many 10000] [--only paint idle busy ansi memory filter]

The processor time is the console's own, of all its threads, from /proc: a machine that
is shared makes it wait, but does not charge it for waiting.
Still, what caches and clocks do to a process that wakes a few times a second can double
that time; so each share of a core also stands as a ratio to a bare Textual app beside
it, one that paints as often and does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.bare import STARTED, painting, starting
from support.load import ask_many, connect
from support.screen import Screen
from support.vault import AGENTVAULT, Client, Vault, vault

_SCOPES = ("read:calendar", "read:email", "read:contacts")
_KEYS = 40
_PULSE = 0.25
"""Seconds between two paintings of a stream."""
_SPAN = 10.0
_SETTLE = 4.0
"""Seconds after the first frame until nothing is loaded any more."""
_CURSOR = (range(3, 22), range(13))
"""Where the cursor's mark and the names stand, and nothing that counts."""
_FILTERS = ("0", "1", "00", "11", "7")
_HIDDEN = r"Agents .*? hidden"
"""The agents' title, which counts: each letter hides more of them."""
_AT_ONCE = 16


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


class Verdicts:
    """Prints each figure against its target."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, what: str, values: list[float], unit: str, target: float) -> None:
        """Judge the median; show how far the runs lie apart."""
        value = statistics.median(values)
        met = value <= target
        self.missed += not met
        apart = f"{min(values):.2f} to {max(values):.2f}"
        print(
            f"{what:34} {value:8.2f} {unit:5} target {target:<5g}"
            f" {'met' if met else 'MISSED':6} ({apart}, n={len(values)})",
            flush=True,
        )


@dataclass
class Bench:
    """What every stage needs."""

    vault: Vault
    clients: list[Client]
    rate: int
    events: int
    runs: int
    verdicts: Verdicts

    @contextmanager
    def console(self, **env: str) -> Iterator[Screen]:
        """Open the console and wait until it is live and has come to rest."""
        line = [*AGENTVAULT, "--home", str(self.vault.home), "console"]
        with Screen(line, **env) as screen:
            screen.seen("live")
            time.sleep(_SETTLE)
            yield screen

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Keep the broker busy, from two seconds before."""
        load = Load(self.vault, self.clients, self.rate)
        load.start()
        time.sleep(2)
        try:
            yield load
        finally:
            load.end()


def paint(bench: Bench) -> None:
    """Time from the start to the first frame, of ours and of a bare Textual app."""
    ours, bare = [], []
    line = [*AGENTVAULT, "--home", str(bench.vault.home), "console"]
    for _ in range(bench.runs):
        with Screen(line) as screen:
            ours.append(screen.seen("Agents") - screen.started)
        with Screen(starting()) as screen:
            bare.append(screen.seen(STARTED) - screen.started)
    print(f"first paint of a bare Textual app: {statistics.median(bare):.3f} s")
    ratios = [mine / its for mine, its in zip(ours, bare, strict=True)]
    if statistics.median(ours) > 0.45:
        bench.verdicts.say("first paint / bare Textual", ratios, "", 1.3)
    else:
        print(f"first paint / bare Textual: {statistics.median(ratios):.2f}")
        bench.verdicts.say("first paint", ours, "s", 0.45)


def idle(bench: Bench) -> None:
    """Measure a console that nothing happens to."""
    core, wire, ratios = [], [], []
    for _ in range(bench.runs):
        with Screen(painting(1)) as bare, bench.console() as screen:
            (used, painted, _), (its, *_) = _watch(screen, bare)
            core.append(used * 100)
            wire.append(painted / 1000)
            ratios.append(used / its)
    bench.verdicts.say("idle, share of a core", core, "%", 0.5)
    _against("idle", ratios)
    bench.verdicts.say("idle, written", wire, "kB/s", 1)


def busy(bench: Bench) -> None:
    """Measure a console that is told of everything, and its keys meanwhile."""
    core, wire, frames, asked, ratios = [], [], [], [], []
    middle, late = [], []
    for _ in range(bench.runs):
        with bench.console() as screen, bench.load() as load:
            with Screen(painting(_PULSE)) as bare:
                time.sleep(_SETTLE)
                before, since = load.asked, time.perf_counter()
                (used, painted, shown), (its, *_) = _watch(screen, bare)
                asked.append((load.asked - before) / (time.perf_counter() - since))
            core.append(used * 100)
            wire.append(painted / 1000)
            frames.append(shown)
            ratios.append(used / its)
            waits = sorted(wait * 1000 for wait in _press(screen))
            middle.append(statistics.median(waits))
            late.append(waits[int(len(waits) * 0.95)])
    print(f"events a second, as they came: {statistics.median(asked):.0f}")
    print(f"writes a second to the terminal: {statistics.median(frames):.1f}")
    bench.verdicts.say("busy, share of a core", core, "%", 2.7)
    _against("busy", ratios)
    bench.verdicts.say("busy, written", wire, "kB/s", 30)
    print(f"key to paint, median: {statistics.median(middle):.1f} ms")
    bench.verdicts.say("key to paint, p95", late, "ms", 45)


def ansi(bench: Bench) -> None:
    """Measure the bytes of a theme that leaves colours to the terminal."""
    wire = []
    for _ in range(bench.runs):
        console = bench.console(AGENTVAULT_CONSOLE_THEME="ansi-dark")
        with console as screen, bench.load():
            ((_, painted, _),) = _watch(screen)
            wire.append(painted / 1000)
    bench.verdicts.say("busy, written, ANSI theme", wire, "kB/s", 18)


def memory(bench: Bench) -> None:
    """Measure how much a console grows over very many events."""
    grown = []
    requests = [client.token_request(_SCOPES[0]) for client in bench.clients]
    for _ in range(bench.runs):
        with bench.console() as screen:
            _ask(bench, requests, len(requests) * 2)
            before = screen.resident
            used = screen.cpu
            _ask(bench, requests, bench.events)
            grown.append(screen.resident - before)
            each = (screen.cpu - used) / bench.events * 1e6
            print(f"resident {screen.resident:.1f} MB; {each:.0f} us an event")
    bench.verdicts.say(f"growth over {bench.events:,} events", grown, "MB", 5)


def _ask(bench: Bench, requests: list[bytes], count: int) -> None:
    asyncio.run(ask_many(bench.vault.agents, requests, connections=32, count=count))
    time.sleep(4)


def filtered(bench: Bench) -> None:
    """Time from a letter typed into the filter to what it leaves, on very many."""
    waits = []
    for _ in range(bench.runs):
        with bench.console() as screen:
            screen.press("/bench-0")
            time.sleep(2)
            for letters in _FILTERS:
                for letter in letters:
                    was = screen.found(_HIDDEN)
                    at = screen.press(letter)
                    waits.append((screen.turned(_HIDDEN, was) - at) * 1000)
                    time.sleep(0.5)
                for _ in letters:
                    screen.press("\x7f")
                    time.sleep(0.5)
    name = f"filter to paint, {len(bench.clients):,} agents"
    bench.verdicts.say(name, waits, "ms", 100)


def _watch(*screens: Screen) -> list[tuple[float, float, float]]:
    """Return the share of a core, the bytes and the writes a second of each."""
    since, before = time.perf_counter(), [screen.cpu for screen in screens]
    time.sleep(_SPAN)
    took = time.perf_counter() - since
    seen = []
    for screen, spent in zip(screens, before, strict=True):
        used = (screen.cpu - spent) / took
        writes = sum(at >= since for at, _ in screen.chunks)
        seen.append((used, screen.painted(since) / took, writes / took))
    return seen


def _against(what: str, ratios: list[float]) -> None:
    """Say how much more it takes than bare Textual; no target, for it is no wish."""
    print(f"{what}, / bare Textual painting as often: {statistics.median(ratios):.2f}")


def _press(screen: Screen) -> list[float]:
    """Press keys; return the seconds from each to its paint."""
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
    return latencies


async def register(vault: Vault, numbers: range) -> list[Client]:
    """Register agents, many at once."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Client:
        async with gate:
            return await vault.register(f"bench-{number:05d}", *_SCOPES)

    return list(await asyncio.gather(*map(one, numbers)))


_STAGES: dict[str, Callable[[Bench], None]] = {
    "paint": paint,
    "idle": idle,
    "busy": busy,
    "ansi": ansi,
    "memory": memory,
}


def main() -> int:
    """Measure what is asked for; 1 if a target was missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*_STAGES, "filter"])
    given = parser.parse_args()
    verdicts = Verdicts()
    with vault() as running:
        clients = asyncio.run(register(running, range(given.agents)))
        bench = Bench(running, clients, given.rate, given.events, given.runs, verdicts)
        for name, stage in _STAGES.items():
            if name in given.only:
                stage(bench)
        if "filter" in given.only:
            clients += asyncio.run(register(running, range(given.agents, given.many)))
            filtered(bench)
    return 1 if verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
