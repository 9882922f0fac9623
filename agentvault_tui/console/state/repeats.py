"""Collapses repeats of the audit: one row for an agent's repeated action.

Rows are updated event by event, so that a flood costs the same for each event and
grows no list; a row outlives the events that it counts.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from agentvault_tui.console.state.records import EventRow
from agentvault_tui.presenters.outcomes import ROUTINE

RETAINED: Final = 200
"""Entries of a row that can be unfolded; older ones are counted."""
ROUTINE_ROWS: Final = 400
NOTABLE_ROWS: Final = 400
_SPARE: Final = 200
"""Rows above both limits, so that they are sorted seldom."""
_OPEN: Final = 6_000
"""Decisions whose next events still find them."""
MOST_OF_A_FLOOD: Final = 3
"""Rows of an agent that floods."""
_OF_A_FLOOD: Final = 20
"""Rows of an agent that floods that are held when there are too many rows."""
_FLOOD: Final = 30
_FLOOD_SECONDS: Final = 60.0
"""With so many requests within so many seconds an agent floods."""
_LASTING: Final = ROUTINE | {"waiting"}
"""Outcome words of rows that are dropped apart, or not at all."""
_FIGURE: Final = re.compile(r"\d[\d,]*(?:\.\d+)?", re.ASCII)

Key = tuple[object, ...]


class Fold(NamedTuple):
    """One request, and its later events: a grant and its return, a call and its end."""

    head: EventRow
    later: list[EventRow]
    missing: tuple[int, int] | None = None
    """The first and last number of events that are not there, right before it."""

    @property
    def state(self) -> EventRow:
        """The event with its present state.

        Uses are recorded late, so one counts only while nothing else has happened; an
        approval that came to nothing leaves the request waiting.
        """
        if not self.later:
            return self.head
        changes = [row for row in self.later if row.type not in _NO_CHANGE]
        return (changes or self.later)[-1]

    @property
    def events(self) -> list[EventRow]:
        return [self.head, *self.later]


_NO_CHANGE: Final = frozenset({"token.used", "stepup.not_approved", "stepup.confirmed"})


def fold(rows: Iterable[EventRow], *, whole: bool = False) -> list[Fold]:
    """Fold the events of one decision into one row, at the place of the first.

    Of a *whole* run of events nothing is folded over a number that is not there.
    """
    folds: list[Fold] = []
    places: dict[str, Fold] = {}
    before: int | None = None
    for row in rows:
        missing = None
        if whole and before is not None and row.seq - before > 1:
            missing = before + 1, row.seq - 1
            places.clear()
        before = row.seq
        if (place := places.get(row.decision_id)) is not None:
            place.later.append(row)
            continue
        folded = Fold(row, [], missing)
        if row.decision_id:
            places[row.decision_id] = folded
        folds.append(folded)
    return folds


class FeedRow:
    """One row of the feed: a request, or many that are alike."""

    __slots__ = (
        *("anchor", "count", "first", "first_seq"),
        *("folds", "key", "kinds", "word"),
    )

    def __init__(self, key: Key, first: Fold) -> None:
        self.key = key
        self.folds = [first]
        """The latest, oldest first."""
        self.count = 1
        self.first: datetime = first.head.time
        self.first_seq = first.head.seq
        self.kinds = 1
        """How many rows of a flood are collapsed into this one."""
        self.anchor = first.head.seq
        """The number of its latest request: rows stand in this order."""
        self.word = first.state.word
        """Its outcome word: a request that gets another one leaves for another row."""

    @property
    def last(self) -> Fold:
        return self.folds[-1]

    @property
    def head(self) -> EventRow:
        return self.folds[-1].head

    @property
    def state(self) -> EventRow:
        return self.folds[-1].state

    @property
    def missing(self) -> tuple[int, int] | None:
        return self.folds[0].missing

    def holds(self, seq: int) -> bool:
        return any(row.seq == seq for one in self.folds for row in one.events)

    def add(self, entry: Fold) -> None:
        self.count += 1
        if entry.head.seq > self.anchor:
            self.folds.append(entry)
            self.anchor = entry.head.seq
        else:
            insort(self.folds, entry, key=_seq)
        if entry.head.seq < self.first_seq:
            self.first, self.first_seq = entry.head.time, entry.head.seq
        if len(self.folds) > RETAINED:
            del self.folds[0]

    def absorb(self, other: FeedRow) -> None:
        """Take all that another row counts."""
        self.folds = sorted((*self.folds, *other.folds), key=_seq)[-RETAINED:]
        self.count, self.kinds = self.count + other.count, self.kinds + other.kinds
        self.anchor, self.word = self.folds[-1].head.seq, self.folds[-1].state.word
        if other.first_seq < self.first_seq:
            self.first, self.first_seq = other.first, other.first_seq

    def take(self, entry: Fold) -> bool:
        """Take an entry out; return whether any is left."""
        self.folds = [one for one in self.folds if one is not entry]
        self.count -= 1
        if self.folds:
            self.anchor = self.folds[-1].head.seq
        if self.folds and entry.head.seq == self.first_seq:
            first = self.folds[0].head
            self.first, self.first_seq = first.time, first.seq
        return bool(self.folds)


def _seq(entry: Fold) -> int:
    return entry.head.seq


class Repeats:
    """The rows of a feed, oldest first."""

    def __init__(
        self, risk: Callable[[str], int], *, bounded: bool = True, whole: bool = True
    ) -> None:
        """Collapse nothing yet.

        Args:
            risk: returns the rank of an action's risk, the highest for the riskiest.
            bounded: whether an agent that floods has at most three rows.
            whole: whether every event is added, so that a gap of numbers is a gap.
        """
        self.unfolded: set[Key] = set()
        """Rows that show each of their entries."""
        self.dropped = 0
        """Routine entries of rows that were dropped."""
        self.version = 0
        self._risk = risk
        self._bounds = bounded
        self._whole = whole
        self._rows: dict[Key, FeedRow] = {}
        self._open: dict[str, tuple[Fold, Key]] = {}
        self._riskiest: dict[tuple[str, str], tuple[float, Fold, Key]] = {}
        """The denial of each agent and scope that asked for most."""
        self._lately: dict[str, deque[float]] = {}
        self._floods: set[str] = set()
        self._before: int | None = None
        self._epoch = 0

    # What arrives

    def add(self, row: EventRow) -> None:
        """Add the next event."""
        self.version += 1
        missing = None
        if self._whole and self._before is not None and row.seq - self._before > 1:
            missing = self._before + 1, row.seq - 1
            self._open.clear()
        self._before = row.seq
        fold = self._open.get(row.decision_id)
        if fold is not None:
            self._complete(row, *fold)
            return
        entry = Fold(row, [], missing)
        if row.agent_id not in self._floods and row.agent_id and row.word != "changed":
            self._note_pace(row)
        key = self._add_row(entry)
        if row.decision_id:
            self._open[row.decision_id] = entry, key
            if len(self._open) > _OPEN:
                self._forget()

    def part(self) -> None:
        """Collapse no later event with the rows so far."""
        self._epoch += 1

    def carry(self, before: Repeats, floor: int) -> None:
        """Retain rows of *before* that count events older than *floor*."""
        self.unfolded, self.dropped = before.unfolded, before.dropped
        self._floods |= before._floods
        for key, old in before._rows.items():
            if old.anchor < floor:
                self._rows.setdefault(key, old)
            elif old.first_seq < floor and (new := self._rows.get(key)) is not None:
                since = sum(one.head.seq > old.anchor for one in new.folds)
                new.count = max(new.count, old.count + since)
                new.first, new.first_seq = old.first, old.first_seq

    def _note_pace(self, row: EventRow) -> None:
        lately = self._lately.get(row.agent_id)
        if lately is None:
            lately = self._lately[row.agent_id] = deque(maxlen=_FLOOD)
        at = row.time.timestamp()
        lately.append(at)
        if len(lately) == _FLOOD and at - lately[0] <= _FLOOD_SECONDS:
            self._floods.add(row.agent_id)

    def _complete(self, row: EventRow, entry: Fold, key: Key) -> None:
        """Add an event to the request that it is part of."""
        entry.later.append(row)
        same = self._key(entry)[:-1] == key[:-1] and entry.state.word == key[-1]
        if same or key not in self._rows:
            return
        self._take(entry, key)
        self._open[row.decision_id] = entry, self._add_row(entry)

    def _key(self, entry: Fold) -> Key:
        """Return the key that repeats share."""
        head, word = entry.head, entry.state.word
        who: str = head.agent_id or head.actor
        family = head.resource.partition("/")[0]
        what: str = head.action or head.note or head.type
        if word == "changed":
            what, who = str(head.type), f"{who} {head.actor}"
        # What needs a person, and what follows a gap, is never one of several.
        alone = head.seq if word == "waiting" or entry.missing else 0
        return (self._epoch, who, what, family, alone, word)

    def _add_row(self, entry: Fold) -> Key:
        key = self._key(entry)
        if key[-1] == "denied" and not entry.missing:
            key = self._apart(entry, key)
        fold = self._rows.get(key)
        if fold is None:
            self._rows[key] = FeedRow(key, entry)
            if len(self._rows) > ROUTINE_ROWS + NOTABLE_ROWS + _SPARE:
                self._drop_old()
        else:
            fold.add(entry)
        return key

    def _take(self, entry: Fold, key: Key) -> None:
        row = self._rows.get(key)
        if row is not None and not row.take(entry):
            del self._rows[key]
            self.dropped += row.count if row.key[-1] in ROUTINE else 0

    def _apart(self, entry: Fold, key: Key) -> Key:
        """Return the key of a denial: the riskiest of its scope has one of its own."""
        figure, scope = _figure(entry.head.note), (entry.head.agent_id, str(key[2]))
        own: Key = (*key[:4], "riskiest", "denied")
        highest = self._riskiest.get(scope)
        if highest is None:
            self._riskiest[scope] = figure, entry, key
            return key
        most, riskiest, place = highest
        if figure > most:
            if place[4] == "riskiest":
                self._move(riskiest, place, self._key(riskiest))
            self._riskiest[scope] = figure, entry, own
            return own
        if figure < most and place[4] != "riskiest":
            apart: Key = (*place[:4], "riskiest", "denied")
            self._move(riskiest, place, apart)
            self._riskiest[scope] = most, riskiest, apart
        return key

    def _move(self, entry: Fold, place: Key, key: Key) -> None:
        if (row := self._rows.get(place)) is None:
            return  # it was dropped
        if not row.take(entry):
            del self._rows[place]
        if (moved := self._rows.get(key)) is not None:
            moved.add(entry)
        else:
            self._rows[key] = FeedRow(key, entry)
        if entry.head.decision_id in self._open:
            self._open[entry.head.decision_id] = entry, key

    def _forget(self) -> None:
        """Forget decisions that nothing follows any more; none that waits."""
        for name in list(islice(self._open, _OPEN // 2)):
            if self._open[name][1][-1] != "waiting":
                del self._open[name]

    def _drop_old(self) -> None:
        """Drop the oldest rows, routine and others apart; none that waits.

        First the rows of agents that flood become few, so that theirs displace no
        other agent's.
        """
        for agent in self._floods if self._bounds else ():
            self._merge(agent)
        rows = sorted(self._rows.values(), key=_anchor)
        routine = [row for row in rows if row.key[-1] in ROUTINE]
        others = [row for row in rows if row.key[-1] not in _LASTING]
        for row in routine[:-ROUTINE_ROWS]:
            self.dropped += row.count
            del self._rows[row.key]
        for row in others[:-NOTABLE_ROWS]:
            del self._rows[row.key]

    def _merge(self, agent: str) -> None:
        """Make few rows of an agent's, and count the others in one or two."""
        rows = [row for row in self._rows.values() if row.key[1] == agent]
        rows.sort(key=self._weight, reverse=True)
        for row in rows[_OF_A_FLOOD:]:
            if row.key[-1] in {"waiting", "changed"} or row.key[2] == "rest":
                continue
            del self._rows[row.key]
            kind = "done" if row.key[-1] in ROUTINE else "denied"
            key = (row.key[0], agent, "rest", "", 0, kind)
            rest = self._rows.get(key)
            if rest is None:
                row.key = key
                self._rows[key] = row
            else:
                rest.absorb(row)

    # What is shown

    @property
    def routine(self) -> int:
        """How many entries are routine."""
        rows = self._rows.values()
        return self.dropped + sum(r.count for r in rows if r.key[-1] in ROUTINE)

    def rows(self, *, notable: bool = False) -> list[FeedRow]:
        """Return the rows; only those that matter if *notable*."""
        rows: Iterable[FeedRow] = self._rows.values()
        if notable:
            rows = (row for row in rows if row.key[-1] not in ROUTINE)
        if self._bounds and self._floods:
            rows = self._bounded(rows)
        if self.unfolded:
            rows = (each for row in rows for each in self._unfold(row))
        return sorted(rows, key=_anchor)

    def _bounded(self, rows: Iterable[FeedRow]) -> Iterator[FeedRow]:
        """Yield rows, at most three of each agent that floods.

        Requests that wait for a person come first, then the riskiest denials; all else
        of the agent is one row.
        """
        floods: dict[tuple[object, str], list[FeedRow]] = {}
        for row in rows:
            agent = row.head.agent_id
            if agent in self._floods and row.key[-1] != "changed":
                floods.setdefault((row.key[0], agent), []).append(row)
            else:
                yield row
        for (epoch, flooding), several in floods.items():
            if len(several) <= MOST_OF_A_FLOOD:
                yield from several
                continue
            several.sort(key=self._weight, reverse=True)
            waiting = sum(row.key[-1] == "waiting" for row in several)
            own = max(MOST_OF_A_FLOOD - 1, waiting)
            yield from several[:own]
            yield from self._rest((epoch, flooding, "rest"), several[own:])

    def _weight(self, row: FeedRow) -> tuple[bool, bool, int, float, int]:
        denied = row.key[-1] == "denied"
        risk = self._risk(row.head.action) if denied else 0
        figure = _figure(row.head.note) if denied else 0.0
        return row.key[-1] == "waiting", denied, risk, figure, row.anchor

    def _rest(self, key: Key, rows: list[FeedRow]) -> Iterator[FeedRow]:
        if key in self.unfolded or len(rows) == 1:
            yield from rows
            return
        rest = FeedRow(key, max(rows, key=_anchor).last)
        rest.count = sum(row.count for row in rows)
        rest.kinds = sum(row.kinds for row in rows)
        first = min(rows, key=lambda row: row.first_seq)
        rest.first, rest.first_seq = first.first, first.first_seq
        yield rest

    def _unfold(self, row: FeedRow) -> Iterator[FeedRow]:
        if row.key not in self.unfolded or row.kinds > 1:
            yield row
            return
        older = row.count - len(row.folds)
        entries = row.folds
        if older > 0:  # these are in the log; the first that is held stands for them
            rest = FeedRow(row.key, entries[0])
            rest.count, rest.first, rest.first_seq = older + 1, row.first, row.first_seq
            yield rest
            entries = entries[1:]
        yield from (FeedRow((*row.key, one.head.seq), one) for one in entries)


_anchor: Final = attrgetter("anchor")


def _figure(note: str) -> float:
    """Return the first figure of how much an action moves; 0 where it says none."""
    match = _FIGURE.search(note)
    return float(match[0].replace(",", "")) if match else 0.0
