"""What a console asks the broker when someone looks: one agent, pages of the audit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import EventPage, EventRow, StepUpRow
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import AsyncOperatorClient
from agentvault_tui.operator_api.history import EventPageInfo, PastInfo
from agentvault_tui.operator_api.requests import (
    AuditQuery,
    BeforeQuery,
    LinksQuery,
    PastQuery,
)

if TYPE_CHECKING:
    from agentvault_tui.console.state.activity import ActivityRow
    from agentvault_tui.operator_api.proof import Proof


class Reads:
    """Reads that change nothing; what comes back has passed the mirror's intake."""

    def __init__(self, mirror: Mirror, client: AsyncOperatorClient) -> None:
        self.mirror = mirror
        self._client = client

    async def activity(self, agent_id: str) -> ActivityRow:
        """Read what one agent did, counted by the broker."""
        # Loaded by whoever shows it; the first frame does without.
        from agentvault_tui.console.state.activity import read_activity  # noqa: PLC0415

        told = await self._client.call(calls.ACTIVITY, id=agent_id)
        return read_activity(self.mirror.intake, told)

    async def audit(self, query: AuditQuery) -> EventPage:
        """Read a page of the audit, in the order the broker gives."""
        page = await self.audit_page(query)
        return EventPage(tuple(map(self.mirror.intake.event, page.events)), page.next)

    async def audit_page(self, query: AuditQuery) -> EventPageInfo:
        """Read a page of the audit as it comes."""
        return await self._client.call(calls.AUDIT, query)

    async def past(self, moment: PastQuery) -> PastInfo:
        """Read what the broker knew at a moment."""
        return await self._client.call(calls.PAST, moment)

    async def links(self, seqs: Iterable[int]) -> list[Proof]:
        """Read what it takes to compute links of the chain again."""
        from agentvault_tui.operator_api.proof import Proof  # noqa: PLC0415 - as above

        asked = LinksQuery(seq=",".join(map(str, seqs)))
        found = await self._client.call(calls.LINKS, asked)
        return [Proof.read(link, found.ledger) for link in found.links]

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision; also whether that is all."""
        found = await self._client.call(calls.STORY, seq=seq)
        return list(map(self.mirror.intake.event, found.events)), found.complete

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        found = await self._client.call(
            calls.BEFORE, BeforeQuery(limit=limit), id=stepup_id
        )
        rows = map(self.mirror.intake.stepup, found.stepups)
        # In the past, what was decided later had not been decided yet.
        now = self.mirror.clock.now()
        return tuple(r for r in rows if r.decided_at is None or r.decided_at <= now)
