"""Delegation trees: token holders, and the tokens that end with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.delegation import tree_row
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.base import Hint, PolledScreen
from agentvault_tui.console.widgets.pane import ListPane
from agentvault_tui.presenters.lines import Row
from agentvault_tui.presenters.records import AgentRow, TreeRow


class DelegationsPane(ListPane[TreeRow]):
    """One row a token, each below the one it was exchanged for."""

    NONE = "No agent holds a token that another delegated."

    def title(self) -> Row:
        p = self.pen.palette
        delegated = sum(row.tokens for row in self.rows.values() if row.depth)
        counts = f"  {delegated:,} delegated"
        title = (*self.heading("Delegations"), (counts, p.muted))
        if not (text := self.status_text):
            return title
        return (*title, (f"  {text}", p.waiting))

    def row(self, row: TreeRow, width: int) -> Row:
        return tree_row(self.pen, row, self.mirror.clock.now(), width - 3)


class DelegationsScreen(PolledScreen):
    """Show delegation trees; keys act on the holder of the token under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "look", "look: its agent"),
    ]
    PANES = (DelegationsPane,)
    SHOWS = "delegations"
    COPIES = "token id"

    def __init__(self, desk: Desk) -> None:
        self.delegations = DelegationsPane(desk, id="delegations")
        super().__init__(desk, self.delegations)

    async def read(self) -> None:
        rows = await self.link.tree(None)
        self.delegations.rows = {row.id: row for row in rows}
        self.delegations.status_text = ""

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        boxes, head, room = self.header(width, height)
        return boxes | {"delegations": Box(0, head, width, room)}

    def row_keys(self) -> list[Hint]:
        if self.delegations.under_cursor is None:
            return []
        keys = [("r", "revoke its agent")] if self.decides else []
        return [("Enter", "its agent"), *keys]

    @property
    def chosen(self) -> AgentRow | None:
        token = self.delegations.under_cursor
        return self.desk.mirror.agents.get(token.agent.id) if token else None

    def action_look(self) -> None:
        """Open the agent that holds the token."""
        if token := self.delegations.under_cursor:
            self.show_agent(token.agent.id)
