"""Ending the panic: agents are served again."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.dialogs.confirm import Confirm
from agentvault_tui.console.dialogs.stepup_factor import stage
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row, clock_time, plural
from agentvault_tui.console.state.actions import Restored


class LiftDialog(Confirm):
    """Says who is served again, and who stays revoked."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "lift")]
    NEED: ClassVar[str] = "restore"
    UNDER_WAY: ClassVar[str] = "lifting"

    took = 0.0

    def heading(self, pen: Pen) -> Row:
        """Name it."""
        word = "Panic lifted" if self.finished else "Lift the panic"
        return ((word, pen.palette.title),)

    def obstacle(self) -> str | None:
        """Tell that nothing is stopped."""
        if self.desk.mirror.status.panic.on:
            return None
        return "The panic switch is off: there is nothing to lift."

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Say since when, by whom and why everything stands still, and what follows."""
        panic, palette = self.desk.mirror.status.panic, pen.palette
        agents = self.desk.mirror.agents.values()
        revoked = sum(agent.revoked for agent in agents)
        rows: list[Row] = []
        if panic.since:
            since = f"{panic.since:%Y-%m-%d} {clock_time(panic.since)}"
            rows.append(pen.fact("Since", (since, palette.text)))
        rows.append(pen.fact("By", (panic.by or "unknown", palette.text)))
        why, _ = pen.facts("Reason", panic.reason or "none given", width, height - 6)
        stays = "tokens and step-ups that were cut"
        if revoked:
            stays += f", and {plural(revoked, 'agent')} revoked singly"
        served = plural(len(agents) - revoked, "agent")
        return [
            *rows,
            *why,
            pen.fact("Serves", (f"{served} again", palette.strong)),
            *pen.facts("Stays cut", stays, width, 2)[0],
        ]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Say that it is over."""
        rows = [stage(pen, "done", "lifted", f"{self.took:.1f} ms"), EMPTY]
        return [*rows, *pen.paragraph("Agents have to ask for new tokens.", width)]

    def act(self, reason: str) -> Awaitable[Restored]:  # noqa: ARG002 - takes none
        """Lift it."""
        return self.desk.actions.lift()

    def happened(self, answer: object) -> None:
        """Keep the measure."""
        if isinstance(answer, Restored):
            self.took = answer.round_trip_ms
