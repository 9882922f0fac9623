"""Serving a revoked agent again, and taking that back within ten seconds."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import (
    UNDO_KEY,
    Desk,
    Undo,
    offer_undo,
    offered_undo,
    take_back,
    undo_bar,
)
from agentvault_tui.console.dialogs.confirm import Confirm, cautioned
from agentvault_tui.console.dialogs.stepup_factor import stage
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row, clock_time, plural
from agentvault_tui.console.state.actions import Restored, Revoked, caution
from agentvault_tui.console.state.records import AgentRow


class RestoreDialog(Confirm):
    """Says what the agent may do again, and that what was cut stays cut."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "restore"),
        Binding("z", "undo", "undo: revoke it again"),
    ]
    NEED: ClassVar[str] = "restore"
    UNDER_WAY: ClassVar[str] = "restoring"

    def __init__(self, desk: Desk, agent: AgentRow) -> None:
        self.agent = agent
        self._since = 0
        self.restored: Restored | None = None
        self.cut: Revoked | None = None
        """Set once the restore was taken back."""
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        """Name the agent."""
        word = "Restored  " if self.finished else "Restore  "
        if self.cut is not None:
            word = "Revoked again  "
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
        if (cut := self.cut) is not None:
            ended = f"{plural(cut.tokens, 'token')}, {plural(cut.stepups, 'step-up')}"
            here = f"{cut.effective_ms:.1f} ms"
            return [
                stage(pen, "done", "closed here", here),
                *cautioned(pen, cut, width),
                EMPTY,
                pen.fact("Cut", (ended, pen.palette.strong)),
            ]
        took = f"{self.restored.round_trip_ms:.1f} ms" if self.restored else ""
        rows = [stage(pen, "done", "served again", took), EMPTY]
        rows += pen.paragraph("It has to ask for new tokens.", width)
        undo = self._undo
        if self.busy:
            rows += [EMPTY, stage(pen, "current", "revoking again", "")]
        elif undo is not None:
            key = next((key for key, _ in self.hints("undo")), UNDO_KEY)
            rows += [EMPTY, pen.cut(undo_bar(pen, undo, self.clock.boot(), key), width)]
        if words := (undo and self.desk.refusal("revoke")) or self.note:
            rows += [EMPTY, *pen.paragraph(words, width, pen.palette.waiting)]
        return rows

    def act(self, reason: str) -> Awaitable[Restored]:  # noqa: ARG002 - takes none
        """Restore the agent."""
        self._since = self.desk.mirror.last_seq
        return self.desk.actions.restore(self.agent.id)

    def happened(self, answer: object) -> None:
        """Keep the measure."""
        if isinstance(answer, Restored):
            self.restored = answer
            offer_undo(self.desk, self.agent, self._since)

    # Taking it back

    def state(self) -> object:
        """Let keys wait after it has happened, and after it was taken back."""
        return self.finished, self.cut is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave out taking back what was not done, or not just now."""
        if action == "undo" and self._undo is not None:
            return True
        return super().check_action(action, parameters)

    @property
    def _undo(self) -> Undo | None:
        """The restore made here, while it can be taken back."""
        undo = offered_undo(self.desk) if self.restored is not None else None
        return undo if undo and undo.agent_id == self.agent.id else None

    def action_undo(self) -> None:
        """Revoke again the agent that was restored here."""
        undo = self._undo
        if undo is None:
            super().action_undo()
        elif self.may_decide("revoke"):
            self.ask(lambda: take_back(self.desk, undo), self._taken_back)

    def _taken_back(self, cut: Revoked) -> None:
        self.cut = cut
        if not self.is_attached:
            ended = f"{self.agent.name} revoked again"
            said = f"{ended}, closed here {cut.effective_ms:.1f} ms"
            self.app.notify(". ".join((said, *caution(cut))), markup=False)
