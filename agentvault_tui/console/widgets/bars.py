"""The bar of step-ups that wait, and the line of keys that work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentvault_tui.console.desk import UNDO_KEY, offered_undo, undo_bar
from agentvault_tui.console.draw.lines import Row, cells, countdown
from agentvault_tui.console.state.presence import listed
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.text import cell_width

_COVERED: Final = (("Esc", "back"), ("^q", "quit"))


class KeyBar(Pane):
    """Shows the keys it is given, as many as fit; or that a restore can be undone."""

    keys: tuple[tuple[str, str], ...] = ()

    def show(self, keys: tuple[tuple[str, str], ...]) -> None:
        """Show these keys, the user's own in their place.

        Behind a dialog none of them works, and those that do are named instead.
        """
        if self.is_attached and self.screen not in self.app.screen_stack[-1:]:
            keys = _COVERED
        keys = tuple((self.key(label), words) for label, words in keys)
        if keys != self.keys:
            self.keys = keys
            self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw whole keys only."""
        del height
        pen, undo = self.pen, offered_undo(self.desk)
        if undo is not None:
            now = self.mirror.clock.boot()
            row = (
                (" ", pen.palette.text),
                *undo_bar(pen, undo, now, self.desk.key("undo", UNDO_KEY)),
            )
            return [(pen.cut(row, width), None)]
        keys = list(self.keys)
        while keys and cells(self.pen.keys(keys)) > width - 2:
            # The last two lead to all the others, and out.
            del keys[-3 if len(keys) > 2 else -1]
        return [(((" ", self.pen.palette.text), *self.pen.keys(keys)), None)]


class StepUpBar(Pane):
    """How many wait, how long the oldest has, and what it wants."""

    DEFAULT_CSS = """
    StepUpBar { background: $surface; }
    """

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        waiting = self.mirror.open_stepups()
        if not waiting:
            return []
        head, first = self._head(waiting, width), self._first(waiting[0], width)
        if height == 1:
            return [(head, None)]
        return [(head, None), (first, None)]

    def _head(self, waiting: list[StepUpRow], width: int) -> Row:
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        age = countdown(waiting[0].age(self.mirror.clock.now()))
        left: Row = (
            (g.cursor, p.waiting),
            (" STEP-UP", p.waiting),
            (f"  {len(waiting)} waiting", p.strong),
            (f" {g.separator} oldest {age}", p.text),
        )
        key = (self.desk.key("step-ups", "s"), p.key)
        return pen.spread(left, (key, (" open ", p.text)), width)

    def _first(self, row: StepUpRow, width: int) -> Row:
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        left = row.remaining(self.mirror.clock.now())
        ends = f"ends {countdown(left)}" + (" SOON" if left < 60 else "")
        if row.status == "authorizing":
            ends = f"being proven {g.separator} {ends}"
        if eyes := self.mirror.presence.looking(row.id):
            ends = f"{pen.clip(listed(eyes, 1), 24)} looks {g.separator} {ends}"
        start: Row = (
            (g.cursor, p.waiting),
            (f" {g.risk(row.risk)} ", p.risk(row.risk)),
            ("NO LIMITS " if row.unlimited else "", p.danger),
            (pen.clip(row.agent_name, max(width - 52, 28)), p.strong),
            (f"  {pen.clip(row.action, 28)}", p.text),
        )
        end: Row = ((ends + " ", p.waiting if left < 60 else p.text),)
        # A figure cut short is another figure: where it goes gives way to how much.
        much = f"  {pen.clip(row.gist, 40)}" if row.gist else ""
        room = min(width - cells(start) - cells(end) - cell_width(much) - 3, 60)
        where = f"  {pen.clip(row.resource, room)}" if row.resource and room > 3 else ""
        return pen.spread((*start, (where + much, p.muted)), end, width)
