"""The event under the cursor in full; scrolls when it has the focus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.lines import Row
from agentvault_tui.console.state.checked import Checked
from agentvault_tui.console.state.evidence import Evidence, evidence
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.console.widgets.pane import Painted, Pane


class EvidencePane(Pane, can_focus=True):
    """Follows the cursor of the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "turn(1)", "down", show=False),
        Binding("up,k", "turn(-1)", "up", show=False),
        Binding("pagedown,ctrl+d,space", "turn(10)", "page down", show=False),
        Binding("pageup,ctrl+u", "turn(-10)", "page up", show=False),
        Binding("home", "turn(-100000)", "first", show=False),
        Binding("end,G", "turn(100000)", "last", show=False),
    ]

    def __init__(
        self, desk: Desk, checked: Checked, row: Callable[[], EventRow | None]
    ) -> None:
        super().__init__(desk, id="evidence")
        self.raw = False
        """Whether the body is shown as it was hashed, nothing masked."""
        self.known: dict[int, Evidence] = {}
        self._checked = checked
        self._row = row
        self._top = 0
        self._shown = 0

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw what fits, from the row scrolled to."""
        row, pen = self._row(), self.pen
        if row is None:
            return []
        if row.seq != self._shown:
            self._shown, self._top, self.raw = row.seq, 0, False
        problem = self._checked.problem(row.seq)
        rows = evidence(
            pen,
            self.mirror,
            row,
            self.known.get(row.seq),
            problem,
            width=width - 2,
            raw=self.raw,
            raw_key=self.desk.key("raw", "v"),
        )
        room = height - 1
        self._top = max(min(self._top, len(rows) - room), 0)
        below = len(rows) - self._top - room
        seen = rows[self._top : self._top + room]
        title = self._title(row, problem, below, width)
        return [(title, None), *((((" ", pen.palette.text), *r), None) for r in seen)]

    def _title(self, row: EventRow, problem: str | None, below: int, width: int) -> Row:
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        left: Row = (*self.heading(f"Event {row.seq:,}"),)
        if problem:
            left = (*left, (f"  {g.failed} does not match", p.danger))
        elif problem is not None:
            left = (*left, (f"  {g.done} verified here", p.accent))
        else:
            left = (*left, ("  not checked", p.muted))
        more = f"{below} more {g.down} " if below > 0 else ""
        return pen.spread(left, ((more, p.muted),), width)

    def action_turn(self, rows: int) -> None:
        """Move by *rows*."""
        self._top = max(self._top + rows, 0)
        self.paint()

    def toggle_raw(self) -> None:
        """Show the body as it was hashed, or hide it again."""
        self.raw = not self.raw
        self.paint()
        if self.raw:
            self.action_turn(100_000)
