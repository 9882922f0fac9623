"""Reads the chain for all destinations, and paces them while agents ask."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.ledger import EventQuery, Page
from agentvault_tui.model import Event, Outcome
from agentvault_tui.watch.signals import BURST_SPAN

PAGE: Final = 100
"""Events that are read at once."""
_RECENT: Final = 500
"""The newest events stay in memory, at least so many: an event takes up to 30 KB."""
_RESTS: Final = 24.0
"""Times as long as it worked a destination rests, while agents ask."""
_BUSY_S: Final = 0.5
"""For so long after the ledger grew agents count as asking: commits come in groups."""
_LATE_S: Final = 0.5
"""A destination whose next event is older does not rest: it stays less than a second
behind, at any rate of events."""
_SAMPLE_S: Final = 0.1


class Chain:
    """Reads events for all destinations, and throttles them while agents ask."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._recent: list[Event] = []
        """The newest events, without a gap."""
        self._last: tuple[int, int, Page] | None = None
        self._head = broker.ledger.head.seq
        self._moved_at = float("-inf")
        self._heads: deque[tuple[float, int]] = deque()
        """The heads of the last moments, each with its loop time."""

    def take(self, events: Sequence[Event]) -> None:
        """Take events that have just become durable, in the order of the chain."""
        recent = self._recent
        for event in events:
            if recent and event.seq != recent[-1].seq + 1:
                recent.clear()
            recent.append(event)
        if len(recent) > 2 * _RECENT:
            del recent[:_RECENT]
        self._sample()

    async def after(self, seq: int) -> Sequence[Event]:
        """Return the next events after *seq*; destinations in step share one reading.

        Raises:
            LedgerError: they cannot be read now.
        """
        head, recent = self.broker.ledger.head.seq, self._recent
        if seq >= head:
            return ()
        if recent and recent[0].seq <= seq + 1 <= recent[-1].seq:
            at = seq + 1 - recent[0].seq
            return recent[at : at + PAGE]
        if self._last is None or self._last[:2] != (seq, head):
            query = EventQuery(after=seq, limit=PAGE)
            self._last = seq, head, await self.broker.ledger.events(query)
        return self._last[2].events

    async def denied_before(self, seq: int) -> list[Event]:
        """Return the refusals of the last minute up to *seq*, oldest first."""
        query = EventQuery(before=seq + 1, outcome=Outcome.DENIED, limit=1000)
        events = (await self.broker.ledger.events(query)).events
        if not events:
            return []
        since = events[0].time - BURST_SPAN
        return [event for event in reversed(events) if event.time >= since]

    async def pace(self, seconds: float, seq: int | None = None) -> None:
        """Leave the event loop to agents, who ask while the ledger grows.

        Args:
            seconds: the time of the event loop that the work before this took.
            seq: the last event that is done; if the next one is old, there is no rest.
        """
        head, now = self.broker.ledger.head.seq, asyncio.get_running_loop().time()
        if head != self._head:
            self._head, self._moved_at = head, now
        busy = now - self._moved_at < _BUSY_S
        rests = busy and (seq is None or not self._is_late(seq))
        await asyncio.sleep(seconds * _RESTS if rests else 0)

    def _sample(self) -> float:
        """Note the head of now, by a clock that cannot be set; return the time."""
        now = asyncio.get_running_loop().time()
        if not self._heads or now - self._heads[-1][0] >= _SAMPLE_S:
            self._heads.append((now, self.broker.ledger.head.seq))
        while len(self._heads) > 1 and self._heads[1][0] <= now - _LATE_S:
            self._heads.popleft()
        return now

    def _is_late(self, seq: int) -> bool:
        """Check whether there was an event after *seq* already some time ago."""
        now = self._sample()
        at, head = self._heads[0]
        return at <= now - _LATE_S and head > seq
