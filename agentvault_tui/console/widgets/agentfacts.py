"""What an agent may do, holds, was refused, and what revoking it would cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.agentwords import Seen, facts
from agentvault_tui.console.draw.lines import Row
from agentvault_tui.console.state.activity import ActivityRow
from agentvault_tui.console.state.records import TokenRow
from agentvault_tui.console.widgets.pane import Painted, Pane

_GONE = 60.0
"""Seconds a token stays listed after its end: as EXPIRED, not just away."""


class FactsPane(Pane, can_focus=True):
    """Scrolls; its counts are the broker's, its countdowns run by the second."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "turn(1)", "down", show=False),
        Binding("up,k", "turn(-1)", "up", show=False),
        Binding("pagedown,ctrl+d,space", "turn(10)", "page down", show=False),
        Binding("pageup,ctrl+u", "turn(-10)", "page up", show=False),
        Binding("home,g", "turn(-100000)", "first", show=False),
        Binding("end,G", "turn(100000)", "last", show=False),
    ]

    def __init__(self, desk: Desk, agent_id: str) -> None:
        super().__init__(desk, id="facts")
        self._agent_id = agent_id
        self.activity: ActivityRow | None = None
        self.problem = ""
        """Why the counts are not the latest; in words that can be shown."""
        self._top = 0
        self._known: dict[int, TokenRow] = {}

    def take(self, activity: ActivityRow) -> None:
        """Show other counts."""
        self.activity, self.problem = activity, ""
        self.paint()

    def complain(self, problem: str) -> None:
        """Say why the counts are not the latest."""
        self.problem = problem
        self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw what fits, from the row scrolled to."""
        agent = self.mirror.agents.get(self._agent_id)
        if agent is None:
            return []
        expired = tuple(self._expired())
        seen = Seen(self.mirror, agent, self.activity, expired, self.desk.restores)
        rows = facts(self.pen, seen, width - 2)
        room = height - 1
        self._top = min(self._top, max(len(rows) - room, 0))
        below = len(rows) - self._top - room
        blank = (" ", self.pen.palette.text)
        shown = rows[self._top : self._top + room]
        title: Painted = (self._title(below, width), None)
        return [title, *(((blank, *row), None) for row in shown)]

    def _title(self, below: int, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        row: Row = self.heading("Scopes, tokens, refusals")
        if self.problem:
            row = (*row, (f"  counts are old: {self.problem}", p.stale))
        elif self.activity is not None and not self.activity.whole:
            row = (*row, ("  of the latest requests", p.waiting))
        more = f"{below} more {pen.glyphs.down} " if below > 0 else ""
        return pen.spread(row, ((more, p.muted),), width)

    def _expired(self) -> list[TokenRow]:
        """Return tokens that ended by themselves a moment ago, the latest first."""
        now = self.mirror.clock.now().timestamp()
        tokens = self.mirror.tokens(self._agent_id)
        live: dict[int, TokenRow] = {token.key: token for token in tokens}
        ended = [
            token
            for token in self._known.values()
            if token.key not in live and 0 <= now - token.ends < _GONE
        ]
        self._known = live | {token.key: token for token in ended}
        return sorted(ended, key=lambda token: token.ends, reverse=True)

    def action_turn(self, rows: int) -> None:
        """Move by *rows*."""
        self._top = max(self._top + rows, 0)
        self.paint()
