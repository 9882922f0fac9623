"""Collapses repeats of the audit: one row for an agent's repeated action.

Rows are updated event by event, so that a flood costs the same for each event and
grows no list; a row outlives the events that it counts.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from agentvault_tui.console.state.folds import (
    FeedRow,
    Fold,
    FoldGroup,
    by_anchor,
    group_of,
)
from agentvault_tui.presenters.records import EventRow

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
_FIGURE: Final = re.compile(r"\d[\d,]*(?:\.\d+)?", re.ASCII)
_RISKIEST: Final = "riskiest"
_REST: Final = "rest"
"""For `FoldGroup.alone`: the riskiest denial, and several rows of a flood."""
_WORDS: Final = ("denied", "failed", "unknown", "cut", "done", "allowed")
"""Outcomes of a flood that have a row before others."""


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
        self.unfolded: set[FoldGroup] = set()
        """Rows that show each of their entries."""
        self.dropped = 0
        """Routine entries of rows that were dropped."""
        self.version = 0
        self._risk = risk
        self._bounds = bounded
        self._whole = whole
        self._rows: dict[FoldGroup, FeedRow] = {}
        self._open: dict[str, tuple[Fold, FoldGroup]] = {}
        self._riskiest: dict[tuple[str, str], tuple[float, Fold, FoldGroup]] = {}
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
        if fold is not None and fold[0].continues(row):
            self._complete(row, *fold)
            return
        entry = Fold(row, [], missing)
        if row.agent_id not in self._floods and row.agent_id and row.word != "changed":
            self._note_pace(row)
        key = self._add_row(entry)
        if row.decision_id and fold is None:
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
                since = sum(one.turn.seq > old.anchor for one in new.folds)
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

    def _complete(self, row: EventRow, entry: Fold, key: FoldGroup) -> None:
        """Add an event to the request that it is part of."""
        turn = entry.turn
        entry.later.append(row)
        group = group_of(entry, self._epoch)
        same = group._replace(alone=0) == key._replace(alone=0)
        if (same and entry.turn is turn) or key not in self._rows:
            return
        self._take(entry, key)
        self._open[row.decision_id] = entry, self._add_row(entry)

    def _add_row(self, entry: Fold) -> FoldGroup:
        key = group_of(entry, self._epoch)
        if key.word == "denied" and not entry.missing:
            key = self._apart(entry, key)
        fold = self._rows.get(key)
        if fold is None:
            self._rows[key] = FeedRow(key, entry)
            if len(self._rows) > ROUTINE_ROWS + NOTABLE_ROWS + _SPARE:
                self._drop_old()
        else:
            fold.add(entry)
        return key

    def _take(self, entry: Fold, key: FoldGroup) -> None:
        row = self._rows.get(key)
        if row is not None and not row.take(entry):
            del self._rows[key]
            self.dropped += row.count if row.key.routine else 0

    def _apart(self, entry: Fold, key: FoldGroup) -> FoldGroup:
        """Return the key of a denial: the riskiest of its scope has one of its own."""
        figure, scope = _figure(entry.head.note), (entry.head.agent_id, key.what)
        highest = self._riskiest.get(scope)
        if highest is None:
            self._riskiest[scope] = figure, entry, key
            return key
        most, riskiest, place = highest
        if figure > most:
            own = key._replace(alone=_RISKIEST)
            if place.alone == _RISKIEST:
                self._move(riskiest, place, group_of(riskiest, place.epoch))
            self._riskiest[scope] = figure, entry, own
            return own
        if figure < most and place.alone != _RISKIEST:
            apart = place._replace(alone=_RISKIEST)
            self._move(riskiest, place, apart)
            self._riskiest[scope] = most, riskiest, apart
        return key

    def _move(self, entry: Fold, place: FoldGroup, key: FoldGroup) -> None:
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
            if self._open[name][1].word != "waiting":
                del self._open[name]

    def _drop_old(self) -> None:
        """Drop the oldest rows, routine and others apart; none that waits.

        First the rows of agents that flood become few, so that theirs displace no
        other agent's.
        """
        for agent in self._floods if self._bounds else ():
            self._merge(agent)
        rows = sorted(self._rows.values(), key=by_anchor)
        routine = [row for row in rows if row.key.routine]
        others = [row for row in rows if not (row.key.routine or row.word == "waiting")]
        for row in routine[:-ROUTINE_ROWS]:
            self.dropped += row.count
            del self._rows[row.key]
        for row in others[:-NOTABLE_ROWS]:
            del self._rows[row.key]

    def _merge(self, agent: str) -> None:
        """Make few rows of an agent's, and one for the rest of each cause."""
        rows = [row for row in self._rows.values() if row.key.who == agent]
        rows.sort(key=self._weight, reverse=True)
        for row in rows[_OF_A_FLOOD:]:
            if row.word == "waiting" or row.key.alone == _REST:
                continue
            del self._rows[row.key]
            key = row.key._replace(what="", family="", alone=_REST)
            both = [rest] if (rest := self._rows.get(key)) else []
            self._rows[key] = FeedRow.merged(key, [*both, row])

    # What is shown

    @property
    def routine(self) -> int:
        """How many entries are routine."""
        rows = self._rows.values()
        return self.dropped + sum(row.count for row in rows if row.key.routine)

    def rows(self, *, notable: bool = False) -> list[FeedRow]:
        """Return the rows; only those that matter if *notable*."""
        rows: Iterable[FeedRow] = self._rows.values()
        if notable:
            rows = (row for row in rows if not row.key.routine)
        if self._bounds and self._floods:
            rows = self._bounded(rows)
        if self.unfolded:
            rows = (each for row in rows for each in self._unfold(row))
        return sorted(rows, key=by_anchor)

    def _bounded(self, rows: Iterable[FeedRow]) -> Iterator[FeedRow]:
        """Yield rows, at most three of each agent that floods.

        Each request that waits for a person has a row.
        """
        floods: dict[tuple[int, str], list[FeedRow]] = {}
        for row in rows:
            agent = row.head.agent_id
            if agent in self._floods and row.word not in {"changed", "waiting"}:
                floods.setdefault((row.key.epoch, agent), []).append(row)
            else:
                yield row
        waits: Counter[tuple[int, str]] = Counter(
            (row.key.epoch, row.head.agent_id)
            for row in self._rows.values()
            if row.word == "waiting"
        )
        for flood, several in floods.items():
            yield from self._few(several, max(MOST_OF_A_FLOOD - waits[flood], 1))

    def _few(self, rows: list[FeedRow], room: int) -> Iterator[FeedRow]:
        """Yield at most *room* rows for *rows* of a flood, each of one outcome.

        They share an action and a cause as far as there is room for that, and the
        riskiest denials have a row of their own as far as there is.
        """
        rows.sort(key=self._weight, reverse=True)
        groups: dict[FoldGroup, list[FeedRow]] = {}
        for number, level in enumerate(_LEVELS if len(rows) > room else ()):
            groups.clear()
            for row in rows:
                groups.setdefault(level(row.key), []).append(row)
            matter = sum(not key.routine for key in groups)
            # Routine gives way before causes are mixed.
            least = matter + (matter < len(groups)) if number else len(groups)
            if least <= room:
                break
        if not groups or any(key in self.unfolded for key in groups):
            yield from rows
            return
        spare = room - len(groups)
        for row in rows[: max(spare, 0)]:
            group = next(several for several in groups.values() if row in several)
            if row.word == "denied" and len(group) > 1:
                group.remove(row)
                yield row
        ranked = sorted(groups, key=lambda key: _WORDS.index(key.word))
        shown = [FeedRow.merged(key, groups[key]) for key in ranked[:room]]
        shown[-1].others = tuple(
            (key.word, sum(row.count for row in groups[key])) for key in ranked[room:]
        )
        yield from shown

    def _weight(self, row: FeedRow) -> tuple[bool, int, float, int]:
        denied = row.word == "denied"
        risk = self._risk(row.head.action) if denied else 0
        figure = _figure(row.head.note) if denied else 0.0
        return denied, risk, figure, row.anchor

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
        for one in entries:
            yield FeedRow(row.key._replace(alone=one.head.seq), one)


_LEVELS: Final[tuple[Callable[[FoldGroup], FoldGroup], ...]] = (
    lambda key: key._replace(family="", alone=_REST),
    lambda key: key._replace(what="", family="", alone=_REST),
    lambda key: key._replace(what="", family="", cause="", alone=_REST),
)
"""The groups of a flood's rows, each coarser than the one before."""


def _figure(note: str) -> float:
    """Return the first figure of how much an action moves; 0 where it says none."""
    match = _FIGURE.search(note)
    return float(match[0].replace(",", "")) if match else 0.0
