"""One agent, and the audit, as they were: over the past, marked like it, read-only."""

from __future__ import annotations

from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.inpast import InPast
from agentvault_tui.console.state.past import Stay


class PastAgent(InPast, AgentScreen):
    """Everything about an agent at a moment."""

    def __init__(self, stay: Stay, agent_id: str, *, pulse: float) -> None:
        self.stay = stay
        super().__init__(stay.desk, stay.reader, agent_id, pulse=pulse)

    def show_audit(self, seq: int | None, *, full: bool, filter_: str) -> None:
        """Show its audit as it was."""
        screen = PastAudit(self.stay, pulse=self._pulse, filter_=filter_)
        if seq is not None:
            screen.begin_at(seq, full=full)
        self.app.push_screen(screen)


class PastAudit(InPast, AuditScreen):
    """The audit up to a moment: what came later is not there yet."""

    def __init__(self, stay: Stay, *, pulse: float, filter_: str) -> None:
        self.stay = stay
        super().__init__(stay.desk, stay.reader, pulse=pulse, filter_=filter_)

    def show_agent_of(self, agent_id: str) -> None:
        """Show an agent as it was."""
        self.app.push_screen(PastAgent(self.stay, agent_id, pulse=self._pulse))
