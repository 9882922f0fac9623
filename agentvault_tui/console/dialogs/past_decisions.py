"""Read the earlier decisions about the same agent and action, for a dialog."""

from __future__ import annotations

from agentvault_tui.console.desk import Desk
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.stepup_rows import PastDecisions


class StepUpHistory:
    """Reads earlier decisions about the same agent and action."""

    def __init__(self, desk: Desk, stepup: StepUpRow) -> None:
        self.decisions = PastDecisions()
        self._desk = desk
        self._stepup = stepup
        self._seen_at = -1
        self._seen: frozenset[tuple[str, str]] = frozenset()

    def due(self) -> bool:
        """Check whether to read: at first, and when one like it was decided since."""
        mirror = self._desk.mirror
        version = mirror.versions.stepups
        if not mirror.link.live or version == self._seen_at:
            return False
        first, self._seen_at = self._seen_at == -1, version
        before, self._seen = self._seen, self._decided()
        return first or before != self._seen

    async def read(self) -> None:
        """Read it; the earlier result stays when the broker does not answer."""
        try:
            self.decisions = PastDecisions(
                await self._desk.link.before(self._stepup.id)
            )
        except AgentVaultError as error:
            problem = self._desk.mirror.intake.shown(error.what, 80)
            self.decisions = PastDecisions(self.decisions.rows, problem)

    def _decided(self) -> frozenset[tuple[str, str]]:
        kind = (self._stepup.agent_id, self._stepup.action)
        return frozenset(
            (row.id, row.status)
            for row in self._desk.mirror.stepups.values()
            if not row.open and (row.agent_id, row.action) == kind
        )
