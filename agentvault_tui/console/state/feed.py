"""The window on the audit: it follows the newest, or holds a place and counts.

However long the ledger is, only a stretch of it is held: what is on the screen and a
margin. Past either end of that stretch the next page is read from the broker, so the
rows are always one unbroken run of what the filter lets through.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.mirror import RING, Mirror
from agentvault_tui.console.state.records import EventPage, EventRow
from agentvault_tui.operator_api.requests import AuditQuery

KEPT: Final = RING
"""Rows held while following."""
PAGE: Final = 200
MARGIN: Final = 3 * PAGE
"""Rows held on either side of the cursor, once pages were read."""

_AHEAD: Final = 3
"""Screens read ahead, so that a page key held down finds its rows there."""


class Fold(NamedTuple):
    """One row of the audit: an event, and what came of the decision it is part of."""

    head: EventRow
    later: list[EventRow]
    missing: tuple[int, int] | None = None
    """The first and last number of events that are not there, right before it."""

    @property
    def state(self) -> EventRow:
        """The event that says how it stands.

        Uses are recorded late, so one counts only while nothing else has happened; an
        approval that came to nothing leaves the request waiting.
        """
        changes = [row for row in self.later if row.type not in _NO_CHANGE]
        return (changes or self.later or [self.head])[-1]

    @property
    def events(self) -> list[EventRow]:
        return [self.head, *self.later]


_NO_CHANGE: Final = frozenset({"token.used", "stepup.not_approved", "stepup.confirmed"})


def fold(rows: Iterable[EventRow], *, whole: bool = False) -> list[Fold]:
    """Fold what shares a decision into one row, at the place of its first event.

    Of a *whole* run of events nothing is folded over a number that is not there.
    """
    folds: list[Fold] = []
    places: dict[str, int] = {}
    before: int | None = None
    for row in rows:
        missing = None
        if whole and before is not None and row.seq - before > 1:
            missing = before + 1, row.seq - 1
            places.clear()
        before = row.seq
        if (place := places.get(row.decision_id)) is not None:
            folds[place].later.append(row)
            continue
        if row.decision_id:
            places[row.decision_id] = len(folds)
        folds.append(Fold(row, [], missing))
    return folds


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to read, and the state of the window it is for."""

    query: AuditQuery
    turn: int


class EventWindow:
    """The events behind the audit pane and the audit screen."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.filter = Filter()
        self.rows: list[EventRow] = []
        self.follow = True
        self.cursor = 0
        """The number of the event under the cursor, while held."""
        self.arrived = 0
        """How many have come since it holds."""
        self.uncounted = False
        """Whether more came than could be counted."""
        self.exhausted = False
        """Whether nothing older is left to read."""
        self.foreign = False
        """Whether the ledger these rows are from was replaced by another."""
        self.version = 0
        """Grows whenever rows or cursor change."""
        self.floor = 1
        """The oldest event looked at: everything asked for after it is in `rows`."""
        self.top = 0
        """The newest event looked at."""
        self._limit = 0
        """While held nothing newer than this is taken: the screen stands still."""
        self._seen = 0
        self._ledger = 0
        self._turn = 0
        self._folds: list[Fold] = []
        self._folded: tuple[int, ...] = ()

    @property
    def folds(self) -> list[Fold]:
        """The rows as they are shown; folded again when others are held."""
        rows = self.rows
        held = (self._turn, len(rows), rows[0].seq, rows[-1].seq) if rows else ()
        if held != self._folded:
            self._folded, self._folds = held, fold(rows, whole=not self.filter)
        return self._folds

    @property
    def looked_at(self) -> int:
        """How many events the filter was held against, by the broker or here.

        Numbers have no gaps, so it is the stretch from the oldest to the newest.
        """
        return max(self.top - self.floor + 1, len(self.rows))

    @property
    def hidden(self) -> int:
        return self.looked_at - len(self.rows) if self.filter else 0

    @property
    def index(self) -> int:
        """Where the cursor stands among `folds`; at the newest while following."""
        if self.follow or not self.rows:
            return max(len(self.folds) - 1, 0)
        row = self.rows[self._place]
        place = bisect_left(self.folds, row.seq, key=lambda one: one.head.seq)
        if place == len(self.folds) or self.folds[place].head is not row:
            place = next(n for n, one in enumerate(self.folds) if row in one.later)
        return place

    @property
    def _place(self) -> int:
        """Where the cursor stands among `rows`."""
        found = bisect_left(self.rows, self.cursor, key=_seq)
        return len(self.rows) - 1 if self.follow else min(found, len(self.rows) - 1)

    @property
    def under_cursor(self) -> EventRow | None:
        """The event under the cursor, be it the first of its row or not."""
        if self.follow:
            return self.folds[-1].head if self.folds else None
        return self.rows[self._place] if self.rows else None

    # What arrives

    def update(self) -> bool:
        """Take new events; tell whether there were any."""
        events, last = self._mirror.events, self._mirror.last_seq
        replaced = self._ledger != self._mirror.versions.ledger or last < self._seen
        if last == self._seen and not replaced:
            return False
        jumped = bool(events) and events[0].seq > self._seen + 1
        if replaced or jumped:
            self._seen, self._ledger = last, self._mirror.versions.ledger
            # What is held stays readable; no page of another ledger is put to it.
            self.foreign |= replaced
            self.uncounted = True
            self.version += 1
            if self.follow:
                self.resume()
            return True
        fresh = self._sift(self._newer(self._seen))
        self._seen = last
        if fresh:
            self.version += 1
        if self.follow:
            self.top = last
            self.rows += fresh
            if len(self.rows) > KEPT:
                self._drop_older(len(self.rows) - KEPT)
        else:
            self.arrived += len(fresh)
        return True

    # What the operator does

    def narrow(self, wanted: Filter, *, stay: bool = False) -> None:
        """Apply a filter, and follow, or *stay* at the cursor."""
        self.filter = wanted
        if stay and not self.follow:
            self._start_at(self.cursor)
        else:
            self.resume()

    def hold(self) -> None:
        if self.follow:
            self.update()
            self.cursor = self.folds[-1].head.seq if self.rows else self._seen
            self.follow = False
            self._wait_anew()
            self.version += 1

    def resume(self) -> None:
        self.follow = True
        self.foreign = False
        self._turn += 1
        self._wait_anew()
        self._take_recent()
        self.version += 1

    def jump(self, seq: int) -> None:
        """Hold at the event with that number, or the next there is."""
        held = not self.follow
        self.hold()
        seq = min(max(seq, 1), max(self._seen, 1))
        if self.foreign or (held and self.rows and self.floor <= seq <= self.top):
            self.cursor = seq
            self.version += 1
            return
        self._start_at(seq)

    def move(self, rows: int) -> None:
        """Move the cursor by *rows*; any move holds."""
        self.hold()
        if not self.rows:
            return
        wanted = self.index + rows
        if wanted >= len(self.folds):
            self._extend()
            wanted = self.index + rows
        wanted = min(max(wanted, 0), len(self.folds) - 1)
        self.cursor = self.folds[wanted].head.seq
        self.version += 1

    # Pages

    def wants(self, height: int) -> PageRequest | None:
        """Return the page to read next, if one is needed soon."""
        if self.foreign or (self.follow and not self.filter):
            return None
        if self.follow:
            short = len(self.folds) < height and not self.exhausted
            return self._want(before=self.floor) if short else None
        near = height * _AHEAD
        if self.index < near and not self.exhausted:
            return self._want(before=self.floor)
        if len(self.folds) - self.index <= near and self.top < self._limit:
            return self._want(after=self.top)
        return None

    def take(self, page: EventPage, want: PageRequest) -> bool:
        """Take a requested page; False when it is no longer wanted."""
        if want.turn != self._turn:
            return False
        if want.query.before is not UNSET:
            if want.query.before != self.floor:
                return False
            self.exhausted = page.next is None
            self.floor = page.next or 1
            self.rows[:0] = self._sift(reversed(page.rows))
            if not self.follow:
                self._drop_newer(len(self.rows) - self._place - MARGIN)
        else:
            if want.query.after != self.top:
                return False
            self.top = self._limit if page.next is None else min(page.next, self._limit)
            self.rows += self._sift(row for row in page.rows if row.seq <= self.top)
            self._drop_older(self._place - MARGIN)
        self.version += 1
        return True

    def _want(self, **place: int) -> PageRequest:
        now = self._mirror.clock.now()
        query = self.filter.query(self._mirror.agents, now, text=True)
        return PageRequest(replace(query, limit=PAGE, **place), self._turn)

    def _start_at(self, seq: int) -> None:
        """Start at an event, from recent events if they hold it."""
        self._turn += 1
        self._wait_anew()
        self.cursor = seq
        events = self._mirror.events
        if events and events[0].seq <= seq:
            self._take_recent()
        else:
            self.rows, self.exhausted = [], seq < 1
            self.floor, self.top = seq + 1, seq
        self.version += 1

    def _take_recent(self) -> None:
        events = self._mirror.events
        self._seen = self.top = self._limit = self._mirror.last_seq
        self._ledger = self._mirror.versions.ledger
        self.floor = events[0].seq if events else self._seen + 1
        self.exhausted = self.floor <= 1
        self.rows = self._sift(events)

    def _wait_anew(self) -> None:
        self.arrived = 0
        self.uncounted = False
        self._limit = self._mirror.last_seq

    def _extend(self) -> None:
        """Take what arrived while holding, from recent events if possible."""
        if self.foreign or self.top < self._limit:
            return
        self._wait_anew()
        events = self._mirror.events
        if events and events[0].seq <= self.top + 1:
            self.rows += self._sift(self._newer(self.top))
            self.top = self._seen = self._mirror.last_seq
            self._drop_older(self._place - MARGIN)

    def _drop_older(self, count: int) -> None:
        if count > 0:
            del self.rows[:count]
            self.floor = self.rows[0].seq
            self.exhausted = self.floor <= 1

    def _drop_newer(self, count: int) -> None:
        if count > 0:
            del self.rows[-count:]
            self.top = self.rows[-1].seq

    def _newer(self, seq: int) -> list[EventRow]:
        recent = reversed(self._mirror.events)
        return list(takewhile(lambda row: row.seq > seq, recent))[::-1]

    def _sift(self, rows: Iterable[EventRow]) -> list[EventRow]:
        if not self.filter:
            return list(rows)
        mirror, now = self._mirror, self._mirror.clock.now()
        return [row for row in rows if self.filter.event(row, mirror, now)]


def _seq(row: EventRow) -> int:
    return row.seq
