"""Limits: what is used of each, what is left, and when some of it frees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.draw.lines import Row
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.screens.base import PolledScreen
from agentvault_tui.console.state.moments import ago
from agentvault_tui.console.state.records import AgentRow, LimitRow
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane

_ID, _LEFT, _FREES = 20, 22, 10
_WIDE = 100
"""Columns from which on sums of money are shown whole."""


class LimitsPane(ListPane):
    """One row for each window that holds something; those with least left first."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="limits")
        self.rows: dict[str, LimitRow] = {}
        self.problem = ""
        """Why the rows are not the latest, or the file not in force."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """List them; a limit that nothing is used of has a row too."""
        self.keep_cursor(list(self.rows))
        p, room = self.pen.palette, max(height - 1, 1)
        title = self.heading("Limits")
        if self.problem:
            title = (*title, (f"  {self.problem}", p.waiting))
        elif self.rows:
            title = (*title, ("  what is left of each, and when some frees", p.muted))
        if not self.rows:
            words = "None: write limits.toml, then agentvault policy check limits.toml"
            return [(title, None), ((), None), (((f"  {words}", p.muted),), None)]
        seen = list(self.rows.values())[self.in_view(room)]
        return [(title, None), *((self._row(row, width), None) for row in seen)]

    def _row(self, row: LimitRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        near = p.danger if not row.left else p.waiting if row.near else p.text
        wide = _LEFT + (14 if width >= _WIDE else 0)
        room = max(width - 2 - _ID - wide - _FREES - 10, 8)
        frees = ""
        if row.frees_at is not None:
            until = ago(self.mirror.clock.now(), row.frees_at).removesuffix(" ago")
            frees = f"in {until}"
        left = f"{row.left:,} of {row.allows}"
        line: Row = (
            (pen.column(row.limit, _ID), p.strong),
            (pen.column(row.whose, room), p.text),
            (pen.column(left, wide), near),
            (pen.column(frees, _FREES), p.muted),
            (pen.clip(row.beyond, 9), p.muted),
        )
        return pen.listed(line, here=row.id == self.cursor)


class LimitsScreen(PolledScreen):
    """Show what is used of limits, read anew every few seconds."""

    def __init__(self, desk: Desk, link: BrokerLink, *, pulse: float) -> None:
        super().__init__(desk, link, pulse=pulse)
        self.list = LimitsPane(desk)
        self.panes = (self.masthead, self.waiting, self.list, self.keybar)
        self.big = self.list

    async def read(self) -> None:
        rows, self.list.problem = await self.link.limits()
        self.list.rows = {one.id: one for one in rows}

    def read_failed(self, why: str) -> None:
        self.list.problem = why

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give all below the header to the list."""
        boxes, head, room = self.header(width, height)
        return boxes | {"limits": Box(0, head, width, room)}

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

    def action_copy(self) -> None:
        if row := self.list.rows.get(self.list.cursor):
            copy(self.app, "limit id", row.limit)
