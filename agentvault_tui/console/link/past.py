"""Reads the state at a moment of the past over the link."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, structs
from msgspec.structs import asdict

from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.state.past import PastMirror
from agentvault_tui.operator_api.calls import PAST_ACTIVITY
from agentvault_tui.operator_api.history import EventInfo, EventPageInfo, PastInfo
from agentvault_tui.operator_api.requests import AuditQuery, PastActivityQuery
from agentvault_tui.presenters.activity import ActivityRow, read_activity
from agentvault_tui.presenters.moments import LedgerMoment
from agentvault_tui.presenters.records import EventRow, StepUpRow

EVENTS: Final = 200
"""Events read for a moment; older ones when someone scrolls back to them."""
_LOOKED_THROUGH: Final = 50
"""Decisions about the same, of which those taken by then are shown."""


class PastReader(BrokerLink):
    """Read as of a moment through the link's socket; decisions are refused."""

    mirror: PastMirror

    def __init__(self, link: BrokerLink, mirror: PastMirror) -> None:
        vars(self).update(vars(link))
        self.mirror, self.read_only = mirror, True

    async def activity(self, agent_id: str) -> ActivityRow:
        here = self.mirror.place
        at = self.mirror.clock.now()
        aim = LedgerMoment(seq=here.seq) if at == here.time else LedgerMoment(at=at)
        query = PastActivityQuery(agent=agent_id, **asdict(aim.query()))
        answer = await self._client.call(PAST_ACTIVITY, query)
        return read_activity(self.mirror.intake, answer)

    async def audit_page(self, query: AuditQuery) -> EventPageInfo:
        """Read a page of the audit up to that moment."""
        last = self.mirror.place.seq
        if query.before is not UNSET:
            query = structs.replace(query, before=min(query.before, last + 1))
        page = await super().audit_page(query)
        had = tuple(event for event in page.events if event.seq <= last)
        following = page.next if len(had) == len(page.events) else None
        return EventPageInfo(events=had, next=following)

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the decisions by then; later decisions may come before it."""
        rows, now = (
            await super().before(stepup_id, _LOOKED_THROUGH),
            self.mirror.clock.now(),
        )
        decided = [row for row in rows if row.decided_at and row.decided_at <= now]
        return tuple(decided[:limit])

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision, up to that moment."""
        rows, complete = await super().story(seq)
        return [row for row in rows if row.seq <= self.mirror.place.seq], complete


async def look(link: BrokerLink, aim: LedgerMoment) -> tuple[PastInfo, list[EventInfo]]:
    """Read a moment and the events before it, oldest first."""
    answer = await link.past(aim.query())
    page = await link.audit_page(AuditQuery(before=answer.seq + 1, limit=EVENTS))
    return answer, list(reversed(page.events))
