"""The console's model alone: what an event costs it, and what it keeps of very many.

python bench/mirror.py [--agents 2000] [--events 150000]

Frames as the broker writes them for a token that was issued, ``audit`` and ``token``,
in batches as they are read from a busy stream; no terminal and no broker.
Memory is what Python itself counts, so it is the same on every machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import secrets
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agentvault_tui.clock import iso
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.mirror import AgentRoster, Mirror
from agentvault_tui.operator_api.answers import read_events
from agentvault_tui.operator_api.sse import Decoder

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.manual_clock import ManualClock
from support.wire_shapes import agents_of, status_of

_START: Final = datetime(2026, 11, 24, 10, tzinfo=UTC)
_RATE: Final = 500
_BATCH: Final = 50
"""Events of a tenth of a second."""
_PART: Final = 5_000
_LISTED: Final = 5
_TARGET: Final = 5
"""Megabytes."""
_SCOPES: Final = ("read:calendar", "read:email", "read:contacts")


def frame(kind: str, data: dict[str, object], seq: int | None = None) -> str:
    """Write one event of the stream."""
    number = f"id: {seq}\n" if seq else ""
    return f"{number}event: {kind}\ndata: {json.dumps(data)}\n\n"


def issued(agents: int, first: int, count: int) -> Iterator[str]:
    """Write what the broker says of so many tokens."""
    for seq in range(first, first + count):
        now = _START + timedelta(seconds=seq / _RATE)
        number = seq % agents
        agent_id, scope = f"agt_{number:022d}", _SCOPES[number % 3]
        event = {
            "seq": seq,
            "time": iso(now),
            "type": "token.decision",
            "actor": {"kind": "agent", "id": agent_id, "name": f"bench-{number:05d}"},
            "agent_id": agent_id,
            "action": scope,
            "resource": None,
            "outcome": "allowed",
            "reason": "ok",
            "rule": "low-risk",
            "decision_id": f"dec_{secrets.token_hex(11)}",
            "detail": {"risk": "low", "token_id": f"tok_{seq:022d}"},
            "hash": secrets.token_hex(32),
        }
        token = {
            "id": f"tok_{seq:022d}",
            "agent_id": agent_id,
            "scope": scope,
            "kind": "standard",
            "issued_at": iso(now),
            "expires_at": iso(now + timedelta(hours=1)),
        }
        yield frame("audit", event, seq) + frame("token", token)


class Console:
    """The model and the window on its audit, fed with a stream's bytes."""

    def __init__(self, agents: int) -> None:
        self.clock = ManualClock(_START)
        self.mirror = Mirror(self.clock)
        self.feed = EventWindow(self.mirror)
        self.decoder = Decoder()
        rows = [
            {
                "id": f"agt_{number:022d}",
                "name": f"bench-{number:05d}",
                "owner": "bench",
                "scopes": list(_SCOPES),
                "created_at": iso(_START),
                "tokens": [],
            }
            for number in range(agents)
        ]
        roster = AgentRoster(self.mirror.intake, agents_of(rows))
        self.mirror.load(status_of({}), roster, [])

    def take(self, chunks: list[bytes]) -> float:
        """Read them; return the seconds of processor time that took."""
        started = time.process_time()
        for chunk in chunks:
            for told in read_events(self.decoder.feed(chunk)):
                self.mirror.apply(told)
            self.feed.update()
        return time.process_time() - started


def batches(agents: int, first: int, count: int) -> list[bytes]:
    """Return what comes of them in one read each."""
    frames = list(issued(agents, first, count))
    parts = [frames[at : at + _BATCH] for at in range(0, count, _BATCH)]
    return ["".join(part).encode() for part in parts]


def run(agents: int, events: int) -> float:
    """Measure, and print it: the time, or the memory where that is traced.

    Returns the megabytes kept, 0 when they are not traced.
    """
    console = Console(agents)
    warm = 2 * agents
    console.take(batches(agents, 1, warm))
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    spent = 0.0
    for first in range(warm + 1, warm + events + 1, _PART):
        count = min(_PART, warm + events + 1 - first)
        spent += console.take(batches(agents, first, count))
    if not tracemalloc.is_tracing():
        print(f"{spent / events * 1e6:.1f} us an event", flush=True)
        return 0.0
    gc.collect()
    grown = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    met = "met" if grown <= _TARGET else "MISSED"
    print(f"kept of {events:,} events: {grown:.2f} MB, target {_TARGET} {met}")
    for stat in tracemalloc.take_snapshot().statistics("lineno")[:_LISTED]:
        print(f"    {stat}")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=150_000)
    given = parser.parse_args()
    run(given.agents, min(given.events, 30_000))
    tracemalloc.start()
    return 1 if run(given.agents, given.events) > _TARGET else 0


if __name__ == "__main__":
    sys.exit(main())
