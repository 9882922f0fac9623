"""The panes of one agent's screen: who it is, its day, its facts and its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.style import Style
from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.agent import context
from agentvault_tui.console.draw.feedrow import FeedColumns
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.term.keyed import moves
from agentvault_tui.console.widgets.audit import AuditPane
from agentvault_tui.console.widgets.pane import Painted, Pane, ScrollPane
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.operator_api.shapes import OUTCOMES
from agentvault_tui.presenters.activity import ActivityRow, Day, quarter
from agentvault_tui.presenters.agent import ends, facts, state_word
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.glyphs import bars, fold_for, folded
from agentvault_tui.presenters.lines import Piece, Row, cells
from agentvault_tui.presenters.moments import ago, plural
from agentvault_tui.presenters.outcomes import answer_word
from agentvault_tui.presenters.records import (
    QUARTERS,
    AgentRow,
    EventRow,
    LiveToken,
)
from agentvault_tui.text import cell_width


class WhoPane(Pane):
    """The head of an agent's screen."""

    def __init__(self, desk: Desk, agent_id: str) -> None:
        super().__init__(desk, id="who")
        self._agent_id = agent_id

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        agent = self.mirror.agents.get(self._agent_id)
        if agent is None:
            gone = f" {self._agent_id}: the broker knows no such agent"
            return [(((self.pen.clip(gone, width), self.pen.palette.danger),), None)]
        rows = [self._headline(agent, width), self._facts(agent, width)]
        if agent.purpose:
            purpose = f" {self.pen.clip(agent.purpose, width - 2)}"
            rows.append(((purpose, self.pen.palette.muted),))
        return [(row, None) for row in rows[:height]]

    def _headline(self, agent: AgentRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        state = self._state(agent)
        right: Row = ((f"{agent.id} ", p.muted),)
        room = width - cells(state) - cells(right) - 5
        if room < 12:
            right, room = (), width - cells(state) - 4
        name = pen.clip(agent.name, max(room, 4))
        return pen.spread(((f" {name}  ", p.title), *state), right, width)

    def _state(self, agent: AgentRow) -> tuple[Piece, ...]:
        p, waiting = self.pen.palette, self.mirror.open_stepups(agent.id)
        stopped = self.mirror.status.panic.on
        word = state_word(agent, waiting=bool(waiting), stopped=stopped)
        styles = {"active": p.accent, "waiting": p.waiting}
        styles |= dict.fromkeys(("revoked", "stopped"), p.danger)
        row: tuple[Piece, ...] = ((word.upper(), styles.get(word, p.muted)),)
        if word == "revoked" and agent.revoked_at:
            row = (*row, (f" {agent.revoked_at:%Y-%m-%d %H:%M}Z", p.muted))
        elif word == "waiting":
            row = (*row, (f" {plural(len(waiting), 'step-up')}", p.text))
        return row

    def _facts(self, agent: AgentRow, width: int) -> Row:
        """Write owner, the cut a revoke would be, and counts, the last first to go."""
        pen, p = self.pen, self.pen.palette
        now, last = self.mirror.clock.now(), self.mirror.last_seen(agent.id)
        counts = self.mirror.counts(agent.id)
        seen = f"seen {ago(last, now)}" if last else "never seen"
        effect = ends(context(self.mirror, agent))
        words = [
            "resource server" if agent.resource_server else seen,
            *([] if agent.revoked else [f"revoking ends {effect}"]),
            f"{counts.allowed:,} allowed",
            f"{counts.denied:,} denied",
            f"registered {agent.created_at:%Y-%m-%d}",
        ]
        dot = f" {pen.glyphs.separator} "
        row: Row = (
            (" Owner ", p.muted),
            (pen.clip(agent.owner, max(width // 3, 8)), p.text),
        )
        for word in words:
            if cells(row) + len(dot) + len(word) >= width:
                break
            row = (*row, (f"{dot}{word}", p.muted))
        return row


_GONE = 60.0
"""Seconds a token stays listed after its end: as EXPIRED, not just away."""


class FactsPane(ScrollPane):
    """Scrolls; its counts are the broker's, its countdowns run by the second."""

    BINDINGS: ClassVar[list[BindingType]] = moves("turn", pages="pagedown,ctrl+d,space")

    def __init__(self, desk: Desk, agent_id: str) -> None:
        super().__init__(desk, id="facts")
        self._agent_id = agent_id
        self.activity: ActivityRow | None = None
        self.problem = ""
        """Why the counts are not the latest; in words that can be shown."""
        self._tokens: dict[int, LiveToken] = {}

    def take(self, activity: ActivityRow) -> None:
        self.activity, self.problem = activity, ""
        self.paint()

    def complain(self, problem: str) -> None:
        self.problem = problem
        self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        agent = self.mirror.agents.get(self._agent_id)
        if agent is None:
            return []
        restores, expired = self.desk.restores, self._expired()
        seen = context(
            self.mirror, agent, self.activity, expired=expired, restores=restores
        )
        rows = facts(self.pen, seen, width - 2)
        return self.scrolled(rows, height, lambda rows: self._title(rows, width))

    def _title(self, below: int, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        row: Row = self.heading("Scopes, tokens, denials")
        if self.problem:
            row = (*row, (f"  counts are old: {self.problem}", p.stale))
        elif self.activity is not None and not self.activity.whole:
            row = (*row, ("  of the latest requests", p.waiting))
        return pen.spread(row, self.below(below), width)

    def _expired(self) -> list[LiveToken]:
        """Return tokens that ended by themselves a moment ago, the latest first."""
        now = self.mirror.clock.now().timestamp()
        tokens = self.mirror.tokens(self._agent_id)
        live: dict[int, LiveToken] = {token.key: token for token in tokens}
        ended = [
            token
            for token in self._tokens.values()
            if token.key not in live and 0 <= now - token.ends < _GONE
        ]
        self._tokens = live | {token.key: token for token in ended}
        return sorted(ended, key=lambda token: token.ends, reverse=True)


_WORD: Final = 11
"""Cells of the column of words, with the margin."""
_PEAK: Final = 12
"""Cells behind the bars, for the largest number."""
_NARROW: Final = 70
_HOURS: Final = 3
_HOUR: Final = 4
"""Quarters of an hour."""
_LAST: Final = QUARTERS - 1


class DayPane(Pane, can_focus=True):
    """Decisions of the last 24 hours, a cell a quarter of an hour or more.

    Each row has a scale of its own, and says its largest number: one refusal must be
    seen next to a thousand answers. The cursor is a quarter, or now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "quarter before", show=False),
        Binding("right,l", "move(1)", "quarter after", show=False),
        Binding("pageup,ctrl+u", "move(-4)", "page up", show=False),
        Binding("pagedown,ctrl+d", "move(4)", "page down", show=False),
        Binding("home,g", "move(-96)", "first", show=False),
        Binding("end,G", "move(96)", "last", show=False),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="day")
        self.day: Day | None = None
        self._back = 0
        """How many quarters before the last one the cursor is."""

    def take(self, day: Day | None) -> None:
        """Show another day; a cursor that is not at now stays on its quarter."""
        if self._back and self.day and day:
            passed = round((day.start - self.day.start).total_seconds() / 900)
            self._back = min(max(self._back + passed, 1), _LAST)
        self.day = day
        self.paint()

    @property
    def index(self) -> int:
        return _LAST - self._back

    def action_move(self, quarters: int) -> None:
        self._back = min(max(self._back - quarters, 0), _LAST)
        self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the title with the numbers, the bars, and the hours under them."""
        pen, p, day = self.pen, self.pen.palette, self.day
        if day is None:
            words = "no counts yet" if self.mirror.link.live else "no counts: no link"
            title = (*self.heading("Last 24 hours"), (f"  {words}", p.muted))
            return [(title, None)]
        if height == 1:
            return [(self._line(day, width), None)]
        fold = fold_for(max(width - _WORD - _PEAK, 8))
        rows: list[Row] = [pen.cut(self._title(day, width), width)]
        styles = (p.accent, p.danger, p.escalated)
        for word, numbers, style in zip(OUTCOMES, day.series, styles, strict=True):
            rows.append(
                self._bars(answer_word(word), folded(numbers, fold), fold, style)
            )
        rows.append(self._axis(day, fold))
        return [(row, None) for row in rows[:height]]

    def _line(self, day: Day, width: int) -> Row:
        """Draw the whole day on one line: an hour a cell, then the numbers."""
        pen, p = self.pen, self.pen.palette
        sums = [sum(numbers) for numbers in zip(*day.series, strict=True)]
        hours = bars(folded(sums, _HOUR), pen.glyphs.levels)
        mark, name, *numbers = self._title(day, 0)
        return pen.cut((mark, name, (f"  {hours}", p.accent), *numbers), width)

    def _title(self, day: Day, width: int) -> Row:
        """Write the numbers: of the day, or of the quarter under the cursor."""
        p, numbers, when = self.pen.palette, day.totals, ""
        if self.has_focus:
            begins, ends = quarter(day, self.index)
            when = f"  {begins:%H:%M}-{ends:%H:%M}Z"
            numbers = day.at(self.index)
        name = "Last 24 hours" if width >= _NARROW else "24 h"
        row: list[Piece] = [*self.heading(name), (when, p.strong)]
        styles = (p.text, p.denied, p.escalated)
        for word, number, style in zip(OUTCOMES, numbers, styles, strict=True):
            row += [
                (f"  {number:,}", style if number else p.muted),
                (f" {answer_word(word)}", p.muted),
            ]
        return tuple(row)

    def _bars(self, word: str, numbers: list[int], fold: int, style: Style) -> Row:
        p, levels = self.pen.palette, self.pen.glyphs.levels
        peak = f" at most {max(numbers):,}" if any(numbers) else ""
        here = self.index // fold if self.has_focus else -1
        # A full block in reverse would be a hole: there the arrow below is the mark.
        under = Style(bold=True) if p.cursor.reverse else p.cursor
        # What is nothing stays quiet; `_strip` joins what is of one style.
        pieces = (
            (
                mark,
                (p.muted if mark == levels[0] else style)
                + (under if n == here else Style.null()),
            )
            for n, mark in enumerate(bars(numbers, levels))
        )
        return ((f" {word}".ljust(_WORD), p.muted), *pieces, (peak, p.muted))

    def _axis(self, day: Day, fold: int) -> Row:
        """Write hours under the cells they begin in, and a mark under the cursor."""
        pen, p = self.pen, self.pen.palette
        size = QUARTERS // fold
        line = [" "] * size
        now = "then" if self.desk.past else "now"
        every = _HOURS if fold <= 2 else _HOURS * 2
        for index in range(QUARTERS):
            begins, _ = quarter(day, index)
            place = index // fold
            free = place + 2 < size - len(now)
            if begins.minute == 0 and begins.hour % every == 0 and free:
                line[place : place + 2] = f"{begins:%H}"
        line[-len(now) :] = now
        if self.has_focus:
            here = self.index // fold
            for place in _word_at(line, here):
                line[place] = " "
            line[here] = pen.glyphs.up
        axis = "".join(line)
        size_of_one = f"{fold * 15} min" if fold < 4 else f"{fold // 4} h"
        return (
            (" UTC".ljust(_WORD), p.muted),
            (axis, p.muted),
            (f" {size_of_one} each", p.muted),
        )


def _word_at(line: list[str], place: int) -> range:
    """Return where the word that is at a place begins and ends, if one does."""
    begins = ends = place
    while begins > 0 and line[begins - 1] != " " and line[place] != " ":
        begins -= 1
    while ends < len(line) and line[ends] != " ":
        ends += 1
    return range(begins, ends)


_WHEN: Final = {True: 9, False: 13}
"""Cells of a time, by whether all of them are today's."""


@dataclass(frozen=True, slots=True)
class AgentFilter(Filter):
    """Match one agent's events by id, so that no other agent's name matches."""

    agent_id: str = ""

    def __bool__(self) -> bool:
        return True

    def event(self, row: EventRow, *_: object, **__: object) -> bool:
        return row.agent_id == self.agent_id

    def query(self, *_: object, **__: object) -> AuditQuery:
        """Let the broker find them: it has an index for that."""
        return AuditQuery(agent=self.agent_id)


class EventsPane(AuditPane):
    """The audit pane, of one agent: without its name, with more of the rest."""

    def __init__(self, desk: Desk, agent_id: str) -> None:
        feed = EventWindow(desk.mirror, collapse=True, bounded=False)
        feed.narrow(AgentFilter(agent_id=agent_id))
        super().__init__(desk, feed, id="events")

    @property
    def _none(self) -> str:
        return "Nothing has happened."  # it is narrowed to the agent, by no filter

    def _columns(self, width: int) -> FeedColumns:
        today = self._today(self.feed.lines[0].head)
        return FeedColumns.of(width, 1 + _WHEN[today], named=False)

    def _when(self, event: EventRow) -> str:
        """Write the time; the day too, once it is not today's."""
        if self._today(self.feed.lines[0].head):
            return f"{event.time:%H:%M:%S} "
        form = "%H:%M:%S" if self._today(event) else "%d %b %H:%M"
        return f"{event.time:{form}}".ljust(_WHEN[False])

    def _today(self, event: EventRow) -> bool:
        return event.time.date() == self.mirror.clock.now().date()

    def _title(self, width: int) -> Row:
        pen, p, feed = self.pen, self.pen.palette, self.feed
        row: Row = (*self.heading("Events"), *self._standing())
        whole = feed.exhausted or not feed.rows
        count = f"{len(feed.rows):,}" + (" " if whole else " read ")
        if cell_width(count) > width // 3:
            count = ""
        return pen.spread(row, ((count, p.muted),), width)
