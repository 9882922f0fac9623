"""Draws rows of the feed and of the log: the same columns for every row of a width.

The detail is truncated first, then the agent; action and resource last.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from agentvault_tui.console.state.folds import FeedRow
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.presenters import event_words
from agentvault_tui.presenters.lines import Pen, Piece, Row
from agentvault_tui.presenters.moments import hms
from agentvault_tui.presenters.records import RISKS
from agentvault_tui.text import cell_width

_WORD: Final = 8
"""Cells of the outcome word; the last one blank."""
_WHO: Final = (15, 25)
"""Cells of a name, the last one blank: the longest name has so many at most."""
_WHAT: Final = (15, 22)
_WHERE: Final = 17
"""Cells that a resource has before a detail has any."""
_DETAIL: Final = 22
"""Cells that a count with its time, or a status with its time and size, needs."""
_COUNT: Final = 8
"""Cells of a detail that a long name leaves."""


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
    def of(cls, width: int, lead: int, *, named: bool = True, longest: int = 0) -> Self:
        """Share *width* cells.

        Args:
            width: cells of a row.
            lead: cells before the agent.
            named: whether rows name their agent.
            longest: cells of the longest name.
        """
        room = max(width - lead - _WORD, 8)
        who = 0
        if named:
            most = max(room - _WHAT[0] - _WHERE - _COUNT, _WHO[0])
            who = min(max(longest + 1, _WHO[0]), _WHO[1], most)
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
        return 1 + bool(self.detail > 1 and _share(mirror, line, self, "")[1])


class _Part(NamedTuple):
    """A part of the detail: how often, how much, which, why."""

    text: str
    needed: bool
    """Whether it has a second line if the first has no room for it."""


def _parts(
    mirror: Mirror, line: FeedRow, columns: FeedColumns, mark: str
) -> list[_Part]:
    """Return the parts of the detail in the order that they have at all widths."""
    matters = not line.key.routine
    parts = []
    if line.count > 1:
        often, since = f"\u00d7{line.count:,}", f"since {hms(line.first)}"
        whole = f"{often} {since}"
        if cell_width(whole) <= columns.detail:
            parts.append(_Part(whole, needed=True))
        else:
            parts += [_Part(often, needed=True), _Part(since, needed=False)]
    parts += [_Part(f"{count:,} {word}", needed=False) for word, count in line.others]
    if line.kinds == 1:
        much = event_words.note(line.head)
        if not _fits_where(columns, event_words.place(line.head), much):
            parts.append(_Part(much, needed=matters))
        parts.append(_Part(mark, needed=False))
    quiet = line.word in {"waiting", "changed"} and not event_words.loud(line.head)
    explained = (matters and not quiet) or bool(line.last.decider)
    parts.append(_Part(_why(mirror, line), needed=explained))
    return [part for part in parts if part.text]


def _why(mirror: Mirror, line: FeedRow) -> str:
    """Say who decided, and why."""
    event, state, decider = line.head, line.state, line.last.decider
    if len(line.causes) > 1:
        return f"for {len(line.causes)} reasons"
    if line.word == "waiting":
        return event_words.why(mirror, event)  # the rule, and no word of the agent's
    why = event_words.why(mirror, state)
    if not why and state is not event and state.word == event.word:
        why = event_words.why(mirror, event)
    if decider and state.word != "denied":
        by = f"approved by {decider}"
    elif decider or (line.word == "cut" and state.type == "token.revoked"):
        by = f"by {decider or state.actor.name}"
    else:
        return why
    return f"{by}: {why}" if why else by


def _share(
    mirror: Mirror, line: FeedRow, columns: FeedColumns, mark: str
) -> tuple[str, str]:
    """Share the detail between the first line and one below: each part whole."""
    inline, below, spare = "", "", ""
    for text, needed in _parts(mirror, line, columns, mark):
        more = f"{inline}  {text}" if inline else text
        if cell_width(more) <= columns.detail:
            inline = more
        elif needed or below:
            below = f"{below}  {text}" if below else f"{spare}{text}"
        elif text.startswith("since ") and not below:
            spare = f"{text}  "
    return inline, below


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
    name = mirror.agent_name(event.agent_id) if event.agent_id else event.actor.name
    row: list[Piece] = [*lead]
    if columns.who:
        shown = pen.middle(name or " ", columns.who - 1)
        row.append((shown + " " * (columns.who - cell_width(shown)), p.text))
    row += _object(pen, mirror, line, columns)
    row.append((f"{line.word:<{_WORD}}", event_words.style(p, line.state)))
    if columns.detail <= 1:
        return [tuple(row)]
    inline, below = _share(mirror, line, columns, mark)
    row.append((pen.own(inline), p.text))
    rows: list[Row] = [tuple(row)]
    if below:
        room = max(columns.width - columns.lead - 2, 4)
        blank = " " * columns.lead
        rows.append(((blank, p.muted), (pen.clip(pen.own(below), room), p.muted)))
    return rows


def _object(
    pen: Pen, mirror: Mirror, line: FeedRow, columns: FeedColumns
) -> list[Piece]:
    """Write action and resource, each in its column, or a long action over both."""
    p, event = pen.palette, line.head
    deed, place = _deed(mirror, line), pen.own(event_words.place(event))
    both = columns.what + columns.where
    if not columns.where:
        return [(pen.column(deed, both), p.text)]
    much = event_words.note(event)
    if line.kinds > 1:
        place = f"{line.kinds:,} resources" if len(line.deeds) == 1 else ""
    elif _fits_where(columns, place, much):
        place = f"{place}  {much}" if place else much
    if cell_width(deed) < columns.what:
        return [
            (pen.column(deed, columns.what), p.text),
            (pen.column(place or " ", columns.where), p.muted),
        ]
    if len(line.deeds) > 1:
        deed = _names(deed, both - 1)
    return [(pen.column(f"{deed}  {place}" if place else deed, both), p.text)]


def _deed(mirror: Mirror, line: FeedRow) -> str:
    """Name the action: of several each, of a change its author too."""
    event = line.head
    if len(line.deeds) > 1:
        risk = mirror.intake.scope
        return ", ".join(
            sorted(line.deeds, key=lambda one: (-RISKS.index(risk(one).risk), one))
        )
    deed = event_words.deed(event)
    named = mirror.agent_name(event.agent_id) if event.agent_id else event.actor.name
    if line.word == "changed" and event.actor.name not in {"", named}:
        deed = f"{deed} by {event.actor.name}"
    return deed


def _names(names: str, room: int) -> str:
    """Shorten a list of names to those that fit, and how many more there are."""
    several = names.split(", ")
    for many in range(len(several), 0, -1):
        rest = f" +{len(several) - many}" if many < len(several) else ""
        text = ", ".join(several[:many]) + rest
        if cell_width(text) <= room:
            return text
    return names


def _fits_where(columns: FeedColumns, place: str, much: str) -> bool:
    """Check whether an amount fits whole behind its resource."""
    gap = 2 if place else 0
    return bool(much) and cell_width(place) + gap + cell_width(much) < columns.where
