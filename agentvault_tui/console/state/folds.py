"""Rows of the audit: a request with its later events, and repeats of it.

`group_of` alone says which requests share a row: never two outcomes, nor two causes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple

from agentvault_tui.presenters.outcomes import ROUTINE, is_housekeeping
from agentvault_tui.presenters.records import EventRow

RETAINED: Final = 200
"""Entries of a row that can be unfolded; older ones are counted."""
_NO_CHANGE: Final = frozenset({"token.used", "stepup.not_approved", "stepup.confirmed"})
_DECISIONS: Final = frozenset({"stepup.approved", "stepup.denied"})
_RESULTS: Final = frozenset({"gateway.result", "gateway.tunnel"})
"""Events whose reason says how large and how long a call was."""
_NAMES: Final = 8
"""Actions and causes of a row that are told apart."""


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
    def turn(self) -> EventRow:
        """The event that gave it its outcome: its row stands at that event's place."""
        turn = self.head
        for row in self.later if self.missing is None else ():
            if row.word != turn.word and row.type not in _NO_CHANGE:
                turn = row
        return turn

    @property
    def decider(self) -> str:
        """Who approved or denied it; empty where no person did."""
        people = [row.actor.name for row in self.events if row.type in _DECISIONS]
        return " and ".join(dict.fromkeys(people))

    @property
    def events(self) -> list[EventRow]:
        return [self.head, *self.later]

    def continues(self, row: EventRow) -> bool:
        """Check whether *row* is part of it: a cut call leaves its step-up waiting."""
        return row.word != "cut" or not row.outcome or self.state.word != "waiting"


def fold(rows: Iterable[EventRow], *, whole: bool = False) -> list[Fold]:
    """Fold the events of one decision into one row, at the place of its outcome.

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
        place = places.get(row.decision_id)
        if place is not None and place.continues(row):
            place.later.append(row)
            continue
        folded = Fold(row, [], missing)
        if row.decision_id and place is None:
            places[row.decision_id] = folded
        folds.append(folded)
    return sorted(folds, key=_place)


class FoldGroup(NamedTuple):
    """The key that repeats share."""

    epoch: int
    who: str
    what: str
    family: str
    """Their resource up to its first slash."""
    cause: str
    word: str
    alone: int | str = 0
    """Not 0 of a row that nothing else joins."""

    @property
    def housekeeping(self) -> bool:
        """Whether its rows are details of another row."""
        return self.word == "changed" and is_housekeeping(self.what)

    @property
    def routine(self) -> bool:
        """Whether its rows do not matter."""
        return self.word in ROUTINE or self.housekeeping


def group_of(entry: Fold, epoch: int = 0) -> FoldGroup:
    """Return the group of a request: one outcome, and one cause of it."""
    head, state = entry.head, entry.state
    who: str = head.agent_id or head.actor.name
    what: str = head.action or head.note or head.type
    cause = entry.decider
    if state.word == "changed":
        what, who = _kind(head), f"{who} {head.actor.name}"
    elif state.word not in ROUTINE and state.type not in _RESULTS:
        cause = f"{cause} {state.reason} {state.rule}"
    # A request that needs a person, and one after a gap, is never one of several.
    alone = head.seq if state.word == "waiting" or entry.missing else 0
    family = head.resource.partition("/")[0]
    return FoldGroup(epoch, who, what, family, cause, state.word, alone)


def _kind(event: EventRow) -> str:
    """Name the kind of a change: the type, and for some of them how it went."""
    match event.type:
        case "tenant.log":
            return f"tenant.log {event.action}"
        case "upstream.revocation" if event.reason == "confirmed":
            return "upstream.revocation confirmed"
    return event.type


class FeedRow:
    """One row of the feed: a request, or many that are alike."""

    __slots__ = (
        *("anchor", "causes", "count", "deeds", "first", "first_seq"),
        *("folds", "key", "kinds", "others", "word"),
    )

    def __init__(self, key: FoldGroup, first: Fold) -> None:
        self.key = key
        self.folds = [first]
        """The latest, oldest first."""
        self.count = 1
        turn = first.turn
        self.first: datetime = turn.time
        self.first_seq = self.anchor = turn.seq
        """Anchor: the number of its latest outcome. Rows are in this order."""
        self.kinds = 1
        """How many rows of a flood are collapsed into this one."""
        self.deeds: frozenset[str] = frozenset()
        """Of such rows the different actions; some at least."""
        self.causes: frozenset[str] = frozenset()
        """Likewise the causes."""
        self.others: tuple[tuple[str, int], ...] = ()
        """Further outcomes of the agent that have no row, and how often each is."""
        self.word = first.state.word
        """Its outcome word: a request that gets another one leaves for another row."""

    @classmethod
    def merged(cls, key: FoldGroup, rows: list[FeedRow]) -> FeedRow:
        """Return one row for several of one outcome."""
        row = cls(key, rows[0].last)
        row.count = row.kinds = 0
        row.folds = []
        for one in rows:
            row.absorb(one)
        return row

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
    def at(self) -> datetime:
        """When its latest entry got its outcome."""
        return self.folds[-1].turn.time

    @property
    def missing(self) -> tuple[int, int] | None:
        return self.folds[0].missing

    def holds(self, seq: int) -> bool:
        return any(row.seq == seq for one in self.folds for row in one.events)

    def add(self, entry: Fold) -> None:
        self.count += 1
        turn = entry.turn
        if turn.seq > self.anchor:
            self.folds.append(entry)
            self.anchor = turn.seq
        else:
            insort(self.folds, entry, key=_place)
        if turn.seq < self.first_seq:
            self.first, self.first_seq = turn.time, turn.seq
        if len(self.folds) > RETAINED:
            del self.folds[0]

    def absorb(self, other: FeedRow) -> None:
        """Take all that another row counts."""
        self.folds = sorted((*self.folds, *other.folds), key=_place)[-RETAINED:]
        self.count, self.kinds = self.count + other.count, self.kinds + other.kinds
        self.anchor = self.folds[-1].turn.seq
        self.deeds = _some(self.deeds, other.deeds or {other.key.what})
        self.causes = _some(self.causes, other.causes or {other.key.cause})
        if other.first_seq < self.first_seq:
            self.first, self.first_seq = other.first, other.first_seq

    def take(self, entry: Fold) -> bool:
        """Take an entry out; return whether any is left."""
        self.folds = [one for one in self.folds if one is not entry]
        self.count -= 1
        if self.folds:
            self.anchor = self.folds[-1].turn.seq
            first = self.folds[0].turn
            if first.seq > self.first_seq and self.count == len(self.folds):
                self.first, self.first_seq = first.time, first.seq
        return bool(self.folds)


def _some(names: frozenset[str], more: Iterable[str]) -> frozenset[str]:
    return frozenset(sorted({*names, *more})[:_NAMES])


def _place(entry: Fold) -> int:
    return entry.turn.seq


by_anchor: Final = attrgetter("anchor")
