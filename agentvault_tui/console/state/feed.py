"""The window on the audit: it follows the newest, or holds a place and counts.

For a ledger of any length, only a stretch of it is held: the screen and a margin. Past
either end of that stretch the next page is read from the broker, so the rows are always
one unbroken run of the filter's matches.

If repeats collapse, rows are shown by `Repeats`: while following they outlive their
events, and in pages read back each `RING` events collapse for themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from agentvault_tui.console.state.folds import FeedRow, by_anchor, fold, group_of
from agentvault_tui.console.state.mirror import RING, Mirror
from agentvault_tui.console.state.repeats import Repeats
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.records import RISKS, EventPage, EventRow

MOST_ROWS: Final = RING
"""Rows held while following."""
PAGE: Final = 200
MARGIN: Final = 3 * PAGE
"""Rows held on either side of the cursor, once pages were read."""

_AHEAD: Final = 3
"""Screens read ahead, so that a page key held down finds its rows there."""
_AHEAD_COLLAPSED: Final = 3
"""Rows read ahead where a page of events may add none."""


class PageRequest(Struct, frozen=True):
    """A page to read, and the state of the window it is for."""

    query: AuditQuery
    turn: int


class EventWindow:
    """The events behind the audit pane and the audit screen."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        collapse: bool = False,
        bounded: bool = True,
        news: bool = False,
    ) -> None:
        """Follow.

        Args:
            mirror: the events read from the broker.
            collapse: whether repeats are one row.
            bounded: whether an agent that floods has at most three rows then.
            news: whether it begins after the events that the operator knows
                (`Loosenings.known_to`), until somebody scrolls up to them.
        """
        self._mirror = mirror
        self._collapses, self._bounded, self._news = collapse, bounded, news
        self.every = False
        """Whether each entry has its row: around a place that was gone to."""
        self.filter = Filter()
        self.rows: list[EventRow] = []
        self.follow = True
        self.cursor = 0
        """The number of the event under the cursor, while held."""
        self._sent = False
        """Whether the cursor was sent to that event, of whichever row."""
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
        """While held nothing newer than this is taken: the screen does not move."""
        self._seen = 0
        self._ledger = self._turn = 0
        self._lines: list[FeedRow] = []
        self._drawn: tuple[object, ...] | None = None
        self.notable = False
        """Whether routine is left out."""
        self._repeats = self._new_repeats()
        self._stale = False
        """Whether rows were read back or dropped since they were collapsed."""
        self.began = mirror.clock.now()
        """When it was made."""
        self.earlier = 0
        """Changes before that are not in `lines`: the operator's news are later."""
        self._first_seen: int | None = None
        """The last event before that, once it was read."""
        self._breaks: list[int] = []
        """Numbers over which nothing collapses: a page read back ends somewhere."""

    @property
    def _collapse(self) -> bool:
        return self._collapses and not self.every

    @property
    def lines(self) -> list[FeedRow]:
        """The rows as they are shown, oldest first."""
        if self._stale:
            self._collapse_again()
        rows, repeats = self.rows, self._repeats
        drawn: tuple[object, ...]
        if self._collapse:
            shown = (len(repeats.unfolded), self.notable)
            drawn = (id(repeats), repeats.version, *shown)
        else:
            ends = (rows[0].seq, rows[-1].seq) if rows else ()
            drawn = (self._turn, len(rows), self.notable, *ends)
        if drawn != self._drawn:
            self._drawn = drawn
            self._lines = self._drawn_again()
        return self._lines

    def _drawn_again(self) -> list[FeedRow]:
        if self._collapse:
            rows = self._repeats.rows(notable=self.notable)
            return self._later(rows) if self._news else rows
        entries = fold(self.rows, whole=not self.filter)
        lines = [
            FeedRow(group_of(one)._replace(alone=one.head.seq), one) for one in entries
        ]
        return [one for one in lines if not (self.notable and one.key.routine)]

    def _begin(self) -> None:
        """Note where the first snapshot ends: changes up to there are no news."""
        if self._first_seen is None and self._mirror.loaded:
            self._first_seen = self._mirror.last_seq

    def _later(self, rows: list[FeedRow]) -> list[FeedRow]:
        """Leave out details of other rows, and count and leave out earlier changes."""
        rows = [row for row in rows if not row.key.housekeeping]
        later = [
            row
            for row in rows
            if row.word != "changed" or row.anchor > (self._first_seen or 0)
        ]
        self.earlier = sum(row.count for row in rows) - sum(r.count for r in later)
        return later

    def _new_repeats(self) -> Repeats:
        scope = self._mirror.intake.scope
        named = any(term.key == "agent" for term in self.filter.terms)
        return Repeats(
            lambda action: RISKS.index(scope(action).risk),
            bounded=self._bounded and not named,
            whole=not self.filter,
        )

    def _collapse_again(self, *, carry: bool = True) -> None:
        """Collapse all rows again, with those that outlived their events."""
        self._stale = False
        if not self._collapse:
            return
        before, self._repeats = self._repeats, self._new_repeats()
        breaks = iter(sorted(self._breaks))
        stop = next(breaks, None)
        for row in self.rows:
            while stop is not None and row.seq >= stop:
                self._repeats.part()
                stop = next(breaks, None)
            self._repeats.add(row)
        if carry:
            self._repeats.carry(before, self.rows[0].seq if self.rows else 0)

    def unfold(self) -> bool:
        """Show each entry of the row under the cursor; return if it has several."""
        line = self.lines[self.index] if self.lines else None
        if line is None or line.count == 1:
            return False
        self.hold()
        self.cursor = line.anchor
        self._repeats.unfolded.add(line.key)
        self.version += 1
        return True

    def fold(self) -> bool:
        """Collapse again the unfolded row; return whether there was one."""
        unfolded = bool(self._repeats.unfolded)
        self._repeats.unfolded.clear()
        self.version += unfolded
        return unfolded

    def show_notable(self, notable: bool) -> None:
        """Leave routine out, or show everything; the cursor stays near its place."""
        self.notable = notable
        if not self.follow and self.lines:
            self.cursor = self.lines[self.index].anchor
        self.version += 1

    @property
    def routine(self) -> int:
        """How many entries are left out as routine."""
        if self.notable and not self._collapse:
            entries = fold(self.rows, whole=not self.filter)
            return sum(group_of(one).routine for one in entries)
        return self._repeats.routine if self.notable else 0

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
        """The cursor's place among `lines`; at the newest while following."""
        lines = self.lines
        if self.follow or not lines:
            return max(len(lines) - 1, 0)
        seq = self.cursor
        if not self._collapse and self.rows:
            seq = self.rows[self._place].seq
        place = bisect_left(lines, seq, key=by_anchor)
        if place == len(lines) or lines[place].anchor != seq:
            held = (n for n, line in enumerate(lines) if line.holds(seq))
            place = next(held, min(place, len(lines) - 1))
        return place

    @property
    def _place(self) -> int:
        """The cursor's place among `rows`."""
        place = bisect_left(self.rows, self.cursor, key=_seq)
        return len(self.rows) - 1 if self.follow else min(place, len(self.rows) - 1)

    @property
    def under_cursor(self) -> EventRow | None:
        """The event that the cursor was sent to, or the first of the row it is on."""
        lines = self.lines
        if self.follow or not self.rows:
            return lines[-1].head if lines else None
        row = self.rows[self._place]
        if lines and (not self._sent or (self._collapse and row.seq != self.cursor)):
            return lines[self.index].head
        return row

    # What arrives

    def update(self) -> bool:
        """Take new events; return whether there were any."""
        self._begin()
        events, last = self._mirror.events, self._mirror.last_seq
        replaced = self._ledger != self._mirror.versions.ledger or last < self._seen
        if last == self._seen and not replaced:
            return False
        jumped = bool(events) and events[0].seq > self._seen + 1
        if replaced or jumped:
            self._seen, self._ledger = last, self._mirror.versions.ledger
            # What is held stays readable; no page of another ledger is put to it.
            self.foreign |= replaced
            if replaced and self.follow:
                self._repeats = self._new_repeats()
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
            if self._collapse and not self._stale:
                for row in fresh:
                    self._repeats.add(row)
            if len(self.rows) > MOST_ROWS:
                self._drop_older(len(self.rows) - MOST_ROWS)
        else:
            self.arrived += len(fresh)
        return True

    # What the operator does

    def narrow(self, wanted: Filter, *, stay: bool = False) -> None:
        """Apply a filter, and follow, or *stay* at the cursor."""
        self.filter = wanted
        self._repeats = self._new_repeats()
        if stay and not self.follow:
            self._start_at(self.cursor)
        else:
            self.resume()

    def hold(self) -> None:
        if self.follow:
            self.update()
            self.cursor = self.lines[-1].anchor if self.lines else self._seen
            self.follow = self._sent = False
            self._wait_anew()
            self.version += 1

    def resume(self) -> None:
        self.follow = True
        self.foreign = self.every = False
        self._turn += 1
        self._wait_anew()
        self._take_recent()
        self.version += 1

    def jump(self, seq: int) -> None:
        """Hold at the event with that number, or the next there is, among every one."""
        held = not self.follow
        self.hold()
        self.every = self._sent = True
        seq = min(max(seq, 1), max(self._seen, 1))
        if self.foreign or (held and self.rows and self.floor <= seq <= self.top):
            self.cursor = seq
            self.version += 1
            return
        self._start_at(seq)

    def move(self, rows: int) -> None:
        """Move the cursor by *rows*; any move holds."""
        self.hold()
        if not self.lines:
            return
        wanted = self.index + rows
        if wanted >= len(self.lines):
            self._extend()
            wanted = self.index + rows
        wanted = min(max(wanted, 0), len(self.lines) - 1)
        self.cursor, self._sent = self.lines[wanted].anchor, False
        self.version += 1

    # Pages

    def wants(self, height: int) -> PageRequest | None:
        """Return the page to read next, if one is needed soon."""
        if self.foreign or (self.follow and not self.filter):
            return None
        if self.follow:
            short = len(self.rows) < height and not self.exhausted
            return self._want(before=self.floor) if short else None
        near = _AHEAD_COLLAPSED if self._collapse else height * _AHEAD
        if self.index < near and not self.exhausted:
            return self._want(before=self.floor)
        if len(self.lines) - self.index <= near and self.top < self._limit:
            return self._want(after=self.top)
        return None

    def take(self, page: EventPage, want: PageRequest) -> bool:
        """Take a requested page; False when it is no longer wanted."""
        if want.turn != self._turn:
            return False
        if want.query.before is not UNSET:
            if want.query.before != self.floor:
                return False
            self._break(self.floor, min(self._breaks, default=self.top + 1))
            self.exhausted = page.next is None
            self.floor = page.next or 1
            self.rows[:0] = self._sift(reversed(page.rows))
            if not self.follow:
                self._drop_newer(len(self.rows) - self._place - self._margin)
        else:
            if want.query.after != self.top:
                return False
            self._break(self.top + 1, max(self._breaks, default=self.floor))
            self.top = self._limit if page.next is None else min(page.next, self._limit)
            self.rows += self._sift(row for row in page.rows if row.seq <= self.top)
            self._drop_older(self._place - self._margin)
        self._stale = True
        self.version += 1
        return True

    @property
    def _margin(self) -> int:
        return 3 * RING if self._collapse else MARGIN

    def _break(self, here: int, last: int) -> None:
        """Let nothing collapse over *here* if much has since the *last* break."""
        if abs(last - here) >= RING:
            self._breaks.append(here)

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
            self._breaks.clear()
        self._collapse_again(carry=False)
        self.version += 1

    def _take_recent(self) -> None:
        events = self._mirror.events
        self._seen = self.top = self._limit = self._mirror.last_seq
        self._ledger = self._mirror.versions.ledger
        self.floor = events[0].seq if events else self._seen + 1
        if self._news and self.follow and not self.filter:
            self.floor = max(self.floor, self._mirror.loosenings.known_to + 1)
        self.exhausted = self.floor <= 1
        self.rows = self._sift(row for row in events if row.seq >= self.floor)
        self._breaks.clear()
        self._stale = True

    def _wait_anew(self) -> None:
        self.arrived = 0
        self.uncounted = False
        self._limit = self._mirror.last_seq

    def _extend(self) -> None:
        """Take the events that arrived while holding, from recent ones if possible."""
        if self.foreign or self.top < self._limit:
            return
        self._wait_anew()
        events = self._mirror.events
        if events and events[0].seq <= self.top + 1:
            self.rows += self._sift(self._newer(self.top))
            self.top = self._seen = self._mirror.last_seq
            self._drop_older(self._place - self._margin)
            self._stale = True

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
