"""A thin line between two columns, that nobody should notice."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.console.widgets.pane import Painted, Pane


class Rule(Pane):
    """Draws itself once."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw a vertical line."""
        line = self.pen.glyphs.box.vertical * width
        return [(((line, self.pen.palette.line),), None)] * height
