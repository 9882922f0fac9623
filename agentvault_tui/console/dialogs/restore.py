"""Serving a revoked agent again."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.actions import Restored
from agentvault_tui.console.dialogs.confirm import Confirm
from agentvault_tui.console.dialogs.desk import Desk
from agentvault_tui.console.dialogs.stepup_factor import stage
from agentvault_tui.console.lines import EMPTY, Pen, Row, clock_time
from agentvault_tui.console.records import AgentRow


class RestoreDialog(Confirm):
    """Says what the agent may do again, and that what was cut stays cut."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "restore")]
    UNDER_WAY: ClassVar[str] = "restoring"

    def __init__(self, desk: Desk, agent: AgentRow) -> None:
        self.agent = agent
        self.restored: Restored | None = None
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        """Name the agent."""
        word = "Restored  " if self.finished else "Restore  "
        return ((word, pen.palette.title), (self.agent.name, pen.palette.strong))

    def obstacle(self) -> str | None:
        """Tell that it is served anyway."""
        agent = self.desk.mirror.agents.get(self.agent.id, self.agent)
        return None if agent.revoked else "It is served: there is nothing to restore."

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Say what it gets back and what it does not."""
        agent, palette = self.agent, pen.palette
        dot = f" {pen.glyphs.separator} "
        rows: list[Row] = [
            pen.fact("Agent", (f"{agent.id}{dot}{agent.owner}", palette.text))
        ]
        if agent.revoked_at:
            since = f"{agent.revoked_at:%Y-%m-%d} {clock_time(agent.revoked_at)}"
            rows.append(pen.fact("Revoked", (since, palette.text)))
        scopes = ", ".join(scope.name for scope in agent.scopes) or "nothing"
        may, _ = pen.facts("May again", scopes, width, max(height - 4, 1))
        stays = ("tokens and step-ups that were cut", palette.text)
        return [*rows, *may, pen.fact("Stays cut", stays)]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Say that it is served, and since when."""
        took = f"{self.restored.round_trip_ms:.1f} ms" if self.restored else ""
        rows = [stage(pen, "done", "served again", took), EMPTY]
        return [*rows, *pen.paragraph("It has to ask for new tokens.", width)]

    def act(self, reason: str) -> Awaitable[Restored]:  # noqa: ARG002 - takes none
        """Restore the agent."""
        return self.desk.actions.restore(self.agent.id)

    def happened(self, answer: object) -> None:
        """Keep the measure."""
        if isinstance(answer, Restored):
            self.restored = answer
