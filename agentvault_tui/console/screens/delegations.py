"""Delegation trees: which agents hold tokens of which, and what ends with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.delegation import tree_row
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.base import PaneScreen, PolledScreen
from agentvault_tui.console.state.records import AgentRow, TreeRow
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane


class DelegationsPane(ListPane):
    """One row a token, each below the one it was exchanged for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "look", "look: its agent"),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="delegations")
        self.rows: tuple[TreeRow, ...] = ()
        self.problem = ""
        """Why the rows are not the latest; in words that can be shown."""

    @property
    def token(self) -> TreeRow | None:
        """The token under the cursor."""
        return next((row for row in self.rows if row.id == self.cursor), None)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """List the trees, each parent first."""
        pen, p = self.pen, self.pen.palette
        self.keep_cursor([row.id for row in self.rows])
        passed_on = sum(row.tokens for row in self.rows if row.depth)
        counts = f"  {passed_on:,} passed on"
        title = (*self.heading("Delegations"), (counts, p.muted))
        if self.problem:
            title = (*title, (f"  {self.problem}", p.waiting))
        if not self.rows:
            words = "No agent holds a token that another passed on."
            return [(title, None), ((), None), (((f"  {words}", p.muted),), None)]
        seen = self.rows[self.in_view(max(height - 1, 1))]
        now = self.mirror.clock.now()
        return [
            (title, None),
            *(
                (
                    pen.listed(
                        tree_row(pen, row, now, width - 3), here=row.id == self.cursor
                    ),
                    None,
                )
                for row in seen
            ),
        ]

    def action_look(self) -> None:
        """Open the agent that holds the token."""
        if (token := self.token) and isinstance(self.screen, PaneScreen):
            self.screen.show_agent_of(token.agent_id)


class DelegationsScreen(PolledScreen):
    """Show delegation trees; keys act on the holder of the token under the cursor."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.delegations = DelegationsPane(desk)
        self.panes = (self.masthead, self.waiting, self.delegations, self.keybar)
        self.big = self.delegations

    async def read(self) -> None:
        self.delegations.rows = await self.link.tree(None)
        self.delegations.problem = ""

    def read_failed(self, why: str) -> None:
        self.delegations.problem = why

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        boxes, head, room = self.header(width, height)
        return boxes | {"delegations": Box(0, head, width, room)}

    def stops(self) -> Sequence[Pane]:
        return [self.delegations]

    def show_keys(self) -> None:
        found = [("Esc", "back")]
        if self.delegations.token is not None:
            found = [("Enter", "its agent"), *found]
            if self.decides:
                found[1:1] = [("r", "revoke its agent")]
        found += [*self.named("step-ups"), (":", "command"), ("y", "copy id")]
        self.keybar.show((*found, ("j k", "move"), ("?", "keys"), ("^q", "quit")))

    @property
    def chosen(self) -> AgentRow | None:
        token = self.delegations.token
        return self.desk.mirror.agents.get(token.agent_id) if token else None

    def action_delegations(self) -> None:
        """They are shown already: the same key goes back."""
        self.action_out()

    def action_copy(self) -> None:
        if token := self.delegations.token:
            copy(self.app, "token id", token.id)
