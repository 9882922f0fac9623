"""Read the earlier decisions about the same agent and action, for a dialog."""

from __future__ import annotations

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.stepup import PastDecisions
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.errors import AgentVaultError


class StepUpHistory:
    """Reads what was decided before about the same agent and action."""

    def __init__(self, desk: Desk, asked: StepUpRow) -> None:
        self.told = PastDecisions()
        self._desk = desk
        self._asked = asked
        self._seen_at = -1
        self._seen: frozenset[tuple[str, str]] = frozenset()

    def stale(self) -> bool:
        """Tell whether to read: at first, and when one like it was decided since."""
        version = self._desk.mirror.versions.stepups
        if version == self._seen_at:
            return False
        first, self._seen_at = self._seen_at == -1, version
        known, self._seen = self._seen, self._decided()
        return first or known != self._seen

    async def read(self) -> None:
        """Read it; what was read before stays when the broker does not answer."""
        try:
            self.told = PastDecisions(await self._desk.link.before(self._asked.id))
        except AgentVaultError as error:
            problem = self._desk.mirror.intake.shown(error.what, 80)
            self.told = PastDecisions(self.told.rows, problem)

    def _decided(self) -> frozenset[tuple[str, str]]:
        kind = (self._asked.agent_id, self._asked.action)
        return frozenset(
            (row.id, row.status)
            for row in self._desk.mirror.stepups.values()
            if not row.open and (row.agent_id, row.action) == kind
        )
