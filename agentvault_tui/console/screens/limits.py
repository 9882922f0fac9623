"""Limits: what is used of each, what is left, and when some of it frees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from textual.binding import BindingType

from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.layout import Box, frame
from agentvault_tui.console.draw.lines import Row
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.screens.base import PaneScreen
from agentvault_tui.console.state.moments import ago
from agentvault_tui.console.state.records import AgentRow, LimitRow
from agentvault_tui.console.term.keyed import ListCursor, moves
from agentvault_tui.console.widgets.bars import KeyBar, StepUpBar
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.errors import AgentVaultError

_ID, _LEFT, _FREES = 20, 24, 10
_EVERY = 2.0
"""Seconds between two looks."""


class LimitsPane(ListCursor, Pane, can_focus=True):
    """One row for each window that holds something; those with least left first."""

    BINDINGS: ClassVar[list[BindingType]] = [*moves("move")]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="limits")
        self.rows: dict[str, LimitRow] = {}
        self.problem = ""
        """Why the rows are not the latest, or the file not in force."""
        self._top = 0

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """List them; a limit that nothing is used of has a row too."""
        self.keep_cursor(list(self.rows))
        p, room = self.pen.palette, max(height - 1, 1)
        title = self.heading("Limits")
        if self.problem:
            title = (*title, (f"  {self.problem}", p.waiting))
        if not self.rows:
            words = "None: write limits.toml, then agentvault policy check limits.toml"
            return [(title, None), ((), None), (((f"  {words}", p.muted),), None)]
        at = self.order.index(self.cursor)
        self._top = min(max(self._top, at - room + 1), at)
        seen = list(self.rows.values())[self._top : self._top + room]
        return [(title, None), *((self._row(row, width), None) for row in seen)]

    def _row(self, row: LimitRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        near = p.danger if not row.left else p.waiting if row.near else p.text
        room = max(width - 2 - _ID - _LEFT - _FREES - 10, 8)
        frees = ""
        if row.frees_at is not None:
            frees = f"in {ago(self.mirror.clock.now(), row.frees_at)}"
        left = f"{row.left:,} of {row.allows}"
        line: Row = (
            (pen.clip(row.limit, _ID - 1).ljust(_ID), p.strong),
            (pen.clip(row.whose, room - 1).ljust(room), p.text),
            (pen.clip(left, _LEFT - 1).ljust(_LEFT), near),
            (pen.clip(frees, _FREES - 1).ljust(_FREES), p.muted),
            (pen.clip(row.beyond, 9), p.muted),
        )
        return pen.listed(line, here=row.id == self.cursor)

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_move(self, rows: int) -> None:
        if self.move_cursor(rows):
            self.paint()


class LimitsScreen(PaneScreen):
    """Show what is used of limits, read anew every few seconds."""

    def __init__(self, desk: Desk, link: BrokerLink, *, pulse: float) -> None:
        super().__init__(desk, link, pulse=pulse)
        self.waiting = StepUpBar(desk, id="waiting")
        self.list = LimitsPane(desk)
        self.keybar = KeyBar(desk, id="keys")
        self.panes = (self.masthead, self.waiting, self.list, self.keybar)
        self.big = self.list
        self._read_at = float("-inf")

    def on_mount(self) -> None:
        self.list.focus()
        self.begin()

    def take(self) -> None:
        mirror, now = self.desk.mirror, self.desk.mirror.clock.boot()
        if mirror.link.live and now - self._read_at >= _EVERY:
            self._read_at = now
            read: Callable[[], Awaitable[None]] = self._read
            self.run_worker(read, group="limits", exclusive=True)
        if not self.covered:
            self.repaint()

    async def _read(self) -> None:
        try:
            rows, self.list.problem = await self.link.limits()
            self.list.rows = {one.id: one for one in rows}
        except AgentVaultError as error:
            why = self.desk.mirror.intake.shown(error.what, 80)
            self.list.problem = f"not read: {why}"
        self.paint_all()
        self.show_keys()

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give all below the header to the list."""
        waiting = bool(self.desk.mirror.open_stepups())
        boxes, head = frame(width, height, self.masthead.wanted(width), waiting)
        head += height > 16
        return boxes | {"limits": Box(0, head, width, max(height - 1 - head, 1))}

    def stops(self) -> Sequence[Pane]:
        return [self.list]

    def show_keys(self) -> None:
        found = [("Esc", "back"), *self.named("step-ups"), (":", "command")]
        more = (("y", "copy id"), ("j k", "move"), ("?", "keys"), ("^q", "quit"))
        self.keybar.show((*found, *more))

    @property
    def chosen(self) -> AgentRow | None:
        return None

    def action_limits(self) -> None:
        """They are shown already: the same key goes back."""
        self.action_out()

    def action_out(self) -> None:
        self.dismiss()

    def action_follow(self) -> None:
        """Nothing is held here: the rows are always those of now."""

    def action_copy(self) -> None:
        if row := self.list.rows.get(self.list.cursor):
            copy(self.app, "limit id", row.limit)
