"""Draws rows of the feed and of the log: the same columns for every row of a width.

The detail is truncated first, then the agent; action and resource last.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from agentvault_tui.console.draw import words
from agentvault_tui.console.draw.lines import Pen, Piece, Row
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.moments import hms
from agentvault_tui.console.state.repeats import FeedRow
from agentvault_tui.presenters.outcomes import ROUTINE
from agentvault_tui.text import cell_width

_WORD: Final = 8
"""Cells of the outcome word; the last one blank."""
_WHO: Final = (15, 22)
_WHAT: Final = (15, 22)
_WHERE: Final = 17
"""Cells that a resource has before a detail has any."""
_DETAIL: Final = 22
"""Cells that a count with its time, or a status with its time and size, needs."""
_EXPLAINED: Final = frozenset({"denied", "failed"})
"""Outcomes whose reason may take a second line."""


class FeedColumns(NamedTuple):
    """Cells of the columns; each with the blank behind it."""

    lead: int
    """Of cursor, time, and where there is room, number."""
    who: int
    what: int
    where: int
    detail: int
    """Of the part after the outcome word."""

    @classmethod
    def of(cls, width: int, lead: int, *, named: bool = True) -> Self:
        """Share *width* cells; *named* is whether rows name their agent."""
        room = max(width - lead - _WORD, 8)
        who = 0
        if named:
            who = min(max(room // 5, _WHO[0]), _WHO[1])
            who = who if room >= 45 else max(room // 4, 6)
        room -= who
        what = min(max((room + who) // 5, _WHAT[0]), _WHAT[1])
        if room < what + 8:
            return cls(lead, who, room, 0, 0)
        room -= what
        most = max(_WHERE + 7, room * 45 // 100)
        where = min(room, most, max(_WHERE, room - _DETAIL))
        return cls(lead, who, what, where, room - where)

    @property
    def width(self) -> int:
        return sum(self) + _WORD

    def tall(self, mirror: Mirror, line: FeedRow) -> int:
        """Return how many rows a row takes: a refusal may need a second to say why."""
        return 1 + bool(_below(mirror, line, self))


def _since(line: FeedRow) -> str:
    if line.count == 1:
        return ""
    return f" since {hms(line.first)}"


def _times(line: FeedRow) -> str:
    """Say how often; of rows of a flood also of how many kinds."""
    kinds = f" of {line.kinds:,} kinds" if line.kinds > 1 else ""
    return f"\u00d7{line.count:,}{kinds}" if line.count > 1 else ""


def _why(mirror: Mirror, line: FeedRow) -> str:
    event, state = line.head, line.state
    if line.word == "waiting":
        return words.why(mirror, event)  # the rule, and no word of the agent's
    why = words.why(mirror, state)
    if not why and state is not event and state.word == event.word:
        why = words.why(mirror, event)
    named = mirror.agent_name(event.agent_id) if event.agent_id else event.actor
    if line.word == "changed" and event.actor not in {"", named}:
        by = f"by {event.actor}"
        why = f"{by}: {why}" if why else by
    return why


def _below(mirror: Mirror, line: FeedRow, columns: FeedColumns) -> str:
    """Return a second line: a reason that the detail has no room for."""
    if line.word not in _EXPLAINED or not (why := _why(mirror, line)):
        return ""
    times, since = _times(line), _since(line)
    beside = "  ".join(part for part in (times + since, why) if part)
    if cell_width(beside) <= columns.detail:
        return ""
    shown = cell_width(times + since) <= columns.detail
    return why if shown or not since else f"{why},{since}"


def draw_feed_row(
    pen: Pen,
    mirror: Mirror,
    line: FeedRow,
    columns: FeedColumns,
    *,
    lead: Row,
    mark: str = "",
) -> list[Row]:
    """Draw a row of the feed.

    Args:
        pen: the pen.
        mirror: names the agents.
        line: the row.
        columns: their widths.
        lead: the part before the agent, of `FeedColumns.lead` cells.
        mark: the fingerprint, of a request that waits.

    Returns:
        one row, or two where a reason needs the second.
    """
    p, event = pen.palette, line.head
    name = mirror.agent_name(event.agent_id) if event.agent_id else event.actor
    row: list[Piece] = [*lead]
    if columns.who:
        row.append((pen.column(name or " ", columns.who), p.text))
    much = words.note(event)
    row += _object(pen, line, columns, much)
    row.append((f"{line.word:<{_WORD}}", words.style(p, line.state)))
    below = _below(mirror, line, columns)
    if columns.detail > 1:
        row.append(
            (_detail(pen, mirror, line, columns, mark, in_detail=bool(below)), p.text)
        )
    rows: list[Row] = [tuple(row)]
    if below:
        room = max(columns.width - columns.lead - 2, 4)
        blank = " " * columns.lead
        rows.append(((blank, p.muted), (pen.clip(pen.own(below), room), p.muted)))
    return rows


def _object(pen: Pen, line: FeedRow, columns: FeedColumns, much: str) -> list[Piece]:
    """Write action and resource, each in its column, or a long action over both."""
    p, event = pen.palette, line.head
    deed, place = words.deed(event), pen.own(words.place(event))
    both = columns.what + columns.where
    if not columns.where:
        return [(pen.column(deed, both), p.text)]
    if _fits_where(columns, place, much):
        place = f"{place}  {much}" if place else much
    if cell_width(deed) < columns.what:
        return [
            (pen.column(deed, columns.what), p.text),
            (pen.column(place or " ", columns.where), p.muted),
        ]
    return [(pen.column(f"{deed}  {place}" if place else deed, both), p.text)]


def _fits_where(columns: FeedColumns, place: str, much: str) -> bool:
    """Check whether an amount fits whole behind its resource."""
    gap = 2 if place else 0
    return bool(much) and cell_width(place) + gap + cell_width(much) < columns.where


def _detail(
    pen: Pen,
    mirror: Mirror,
    line: FeedRow,
    columns: FeedColumns,
    mark: str,
    *,
    in_detail: bool,
) -> str:
    """Write how often and since when, then why: each whole, or not at all."""
    room, much = columns.detail, words.note(line.head)
    if line.word in ROUTINE and line.count == 1 and not (mark or much):
        why = pen.own(_why(mirror, line))
        return why if cell_width(why) <= room else ""
    apart = much if not _fits_where(columns, words.place(line.head), much) else ""
    times, why = _times(line), "" if in_detail or line.kinds > 1 else _why(mirror, line)
    full = times + _since(line)
    shown = pen.own(mark)
    for choices in ((full, times), (apart,), (why,)):
        for part in filter(None, map(pen.own, choices)):
            more = f"{shown}  {part}" if shown else part
            if cell_width(more) <= room:
                shown = more
                break
    if shown or in_detail or line.count > 1 or line.word in ROUTINE:
        return shown
    return pen.clip(pen.own(why or apart), room)
