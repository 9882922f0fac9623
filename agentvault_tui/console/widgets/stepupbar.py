"""The step-up bar: there while something waits for a person, and hard to miss."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.console.draw.lines import Row, cells, countdown
from agentvault_tui.console.state.presence import listed
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.text import cell_width


class StepUpBar(Pane):
    """How many wait, how long the oldest has, and what it wants."""

    DEFAULT_CSS = """
    StepUpBar { background: $surface; }
    """

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the count and the one that ends first."""
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
