"""The last 24 hours of an agent: three rows of bars, and the numbers of one quarter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.style import Style
from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.lines import Piece, Row
from agentvault_tui.console.state.activity import Day
from agentvault_tui.console.state.day import QUARTERS, bars, fold_for, folded
from agentvault_tui.console.state.records import OUTCOMES
from agentvault_tui.console.widgets.pane import Painted, Pane

_WORD: Final = 11
"""Cells of the column of words, with the margin."""
_PEAK: Final = 12
"""Cells behind the bars, for the largest number."""
_NARROW: Final = 70
_HOURS: Final = 3
_LAST: Final = QUARTERS - 1


class DayPane(Pane, can_focus=True):
    """A cell a quarter of an hour, or as many as the width asks for.

    Each row has a scale of its own, and says its largest number: one refusal must be
    seen beside a thousand answers. The cursor is a quarter, or now.
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
        """How many quarters before the last one the cursor stands."""

    def take(self, day: Day | None) -> None:
        """Show another day; a cursor that is not at now stays on its quarter."""
        if self._back and self.day and day:
            passed = round((day.start - self.day.start).total_seconds() / 900)
            self._back = min(max(self._back + passed, 1), _LAST)
        self.day = day
        self.paint()

    @property
    def index(self) -> int:
        """The quarter under the cursor."""
        return _LAST - self._back

    def action_move(self, quarters: int) -> None:
        """Move the cursor."""
        self._back = min(max(self._back - quarters, 0), _LAST)
        self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the title with the numbers, the bars, and the hours under them."""
        pen, p, day = self.pen, self.pen.palette, self.day
        if day is None:
            words = "no counts yet" if self.mirror.link.live else "no counts: no link"
            title = (*self.heading("Last 24 hours"), (f"  {words}", p.muted))
            return [(title, None)]
        fold = fold_for(max(width - _WORD - _PEAK, 8))
        rows: list[Row] = [pen.cut(self._title(day, width), width)]
        styles = (p.accent, p.danger, p.escalated)
        for word, numbers, style in zip(OUTCOMES, day.series, styles, strict=True):
            rows.append(self._bars(word, folded(numbers, fold), fold, style))
        rows.append(self._axis(day, fold))
        return [(row, None) for row in rows[:height]]

    def _title(self, day: Day, width: int) -> Row:
        """Write the numbers: of the day, or of the quarter under the cursor."""
        p, numbers, when = self.pen.palette, day.totals, ""
        if self.has_focus:
            begins, ends = day.span(self.index)
            when = f"  {begins:%H:%M}-{ends:%H:%M}Z"
            numbers = day.at(self.index)
        name = "Last 24 hours" if width >= _NARROW else "24 h"
        row: list[Piece] = [*self.heading(name), (when, p.strong)]
        styles = (p.text, p.denied, p.escalated)
        for word, number, style in zip(OUTCOMES, numbers, styles, strict=True):
            row += [
                (f"  {number:,}", style if number else p.muted),
                (f" {word}", p.muted),
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
            begins, _ = day.span(index)
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
    """Return where the word that stands at a place begins and ends, if one does."""
    begins = ends = place
    while begins > 0 and line[begins - 1] != " " and line[place] != " ":
        begins -= 1
    while ends < len(line) and line[ends] != " ":
        ends += 1
    return range(begins, ends)
