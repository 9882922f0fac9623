"""The window on the audit: it follows the newest, or holds still and counts.

Rows are oldest first, as in any log; at most `KEPT` of them, whatever the ledger holds.
Scrolling back reads older pages from the broker, and End returns to the newest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

from agentvault_tui.console.filters import Filter
from agentvault_tui.console.known import event_facts
from agentvault_tui.console.mirror import RING, Mirror
from agentvault_tui.console.records import EventRow

KEPT: Final = RING
PAGE: Final = 200


class Feed:
    """The events behind the audit pane."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._facts = event_facts(mirror)
        self.filter = Filter()
        self.rows: list[EventRow] = []
        self.follow = True
        self.cursor = 0
        """The number of the event under the cursor, while held."""
        self.arrived = 0
        """How many have come since it holds."""
        self.exhausted = False
        """Whether nothing older is left to read."""
        self.version = 0
        """Grows whenever rows or cursor change."""
        self._seen = 0
        self._top = 0
        """The newest event looked at."""
        self._floor = 1
        """The oldest event looked at: everything asked for after it is in `rows`."""

    @property
    def looked_at(self) -> int:
        """How many events the filter was held against, by the broker or here.

        Numbers have no gaps, so it is the stretch from the oldest to the newest.
        """
        return max(self._top - self._floor + 1, len(self.rows))

    @property
    def hidden(self) -> int:
        """How many of them it hides."""
        return self.looked_at - len(self.rows) if self.filter else 0

    @property
    def index(self) -> int:
        """Where the cursor stands; the newest while following."""
        if self.follow or not self.rows:
            return max(len(self.rows) - 1, 0)
        found = bisect_left(self.rows, self.cursor, key=_seq)
        return min(found, len(self.rows) - 1)

    @property
    def under_cursor(self) -> EventRow | None:
        """The event that keys act on."""
        return self.rows[self.index] if self.rows else None

    def update(self) -> bool:
        """Take what has arrived; tell whether there was anything."""
        events, last = self._mirror.events, self._mirror.last_seq
        if last == self._seen:
            return False
        if last < self._seen or (events and events[0].seq > self._seen + 1):
            # Another ledger, or more than the ring holds: what is held stays readable.
            self._seen = last
            if self.follow:
                self.resume()
            return True
        fresh = self._sift(self._newer(self._seen))
        self._seen = last
        if fresh:
            self.version += 1
        if self.follow:
            self._top = last
            self.rows += fresh
            if len(self.rows) > KEPT:
                del self.rows[:-KEPT]
                self._floor = self.rows[0].seq
                self.exhausted = False
        else:
            self.arrived += len(fresh)
        return True

    def narrow(self, wanted: Filter) -> None:
        """Apply the operator's filter, and follow."""
        self.filter = wanted
        self.resume()

    def hold(self) -> None:
        """Stand still at the newest."""
        if self.follow:
            self.update()
            self.cursor = self.rows[-1].seq if self.rows else 0
            self.follow = False
            self.arrived = 0
            self.version += 1

    def resume(self) -> None:
        """Follow the newest again."""
        self.follow = True
        self.arrived = 0
        self.exhausted = False
        events = self._mirror.events
        self._seen = self._top = self._mirror.last_seq
        self._floor = events[0].seq if events else self._seen + 1
        self.rows = self._sift(events)
        self.version += 1

    def move(self, rows: int) -> None:
        """Move the cursor, negative for older; any move holds."""
        self.hold()
        if not self.rows:
            return
        wanted = self.index + rows
        if wanted >= len(self.rows) and self.arrived:
            self._extend()
        self.cursor = self.rows[min(max(wanted, 0), len(self.rows) - 1)].seq
        self.version += 1

    def wants_older(self, height: int) -> dict[str, Any] | None:
        """Return the query for the page before, when the screen is about to need it."""
        near = self.index < height if not self.follow else len(self.rows) < height
        if not near or self.exhausted or not (self.filter or not self.follow):
            return None
        query = self.filter.query(self._mirror.agents, self._mirror.clock.now())
        return {"before": self._floor, "limit": PAGE, **query}

    def prepend(self, page: list[EventRow], query: dict[str, Any]) -> bool:
        """Take a page of older events, newest first; tell whether to ask for more."""
        if query.get("before") != self._floor:
            return False
        self.exhausted = len(page) < PAGE
        self._floor = 1 if self.exhausted else page[-1].seq
        found = self._sift(reversed(page))
        self.rows[:0] = found
        self.version += 1
        if not self.follow:
            kept = max(KEPT, self.index + PAGE)
            if len(self.rows) > kept:
                del self.rows[kept:]
                self._top = self.rows[-1].seq
        return not found and not self.exhausted

    def _extend(self) -> None:
        """Take what arrived while holding, or start anew if there is a gap."""
        events = self._mirror.events
        newest = self.rows[-1].seq
        if events and events[0].seq <= newest + 1:
            self.rows += self._sift(self._newer(newest))
            self._top = self._seen = self._mirror.last_seq
            self.arrived = 0
        else:
            self.resume()
            self.hold()

    def _newer(self, seq: int) -> list[EventRow]:
        """Return the recent events after *seq*, oldest first."""
        recent = reversed(self._mirror.events)
        return list(takewhile(lambda row: row.seq > seq, recent))[::-1]

    def _sift(self, rows: Iterable[EventRow]) -> list[EventRow]:
        if not self.filter:
            return list(rows)
        now, name = self._mirror.clock.now(), self._mirror.agent_name
        asked, facts = self.filter.event, self._facts
        return [r for r in rows if asked(r, name(r.agent_id), now, facts)]


def _seq(row: EventRow) -> int:
    return row.seq
