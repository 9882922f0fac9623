"""The step-up bar: there while something waits for a person, and hard to miss."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.console.lines import Row, countdown
from agentvault_tui.console.presence import listed
from agentvault_tui.console.records import StepUpRow
from agentvault_tui.console.widgets.pane import Painted, Pane


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
        what = [row.resource, row.gist]
        start: Row = (
            (g.cursor, p.waiting),
            (f" {g.risk(row.risk)} ", p.risk(row.risk)),
            (pen.clip(row.agent_name, 28), p.strong),
            (f"  {pen.clip(row.action, 28)}", p.text),
            ("  " + pen.clip("  ".join(w for w in what if w) or " ", 60), p.muted),
        )
        style = p.waiting if left < 60 else p.text
        return pen.spread(start, ((ends + " ", style),), width)
