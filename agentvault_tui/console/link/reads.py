"""What a console asks the broker when someone looks: one agent, pages of the audit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import convert

from agentvault_tui.console.link.wire import Wire, integer, objects
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import EventPage, EventRow, Json, StepUpRow
from agentvault_tui.operator_api.history import LinkInfo

if TYPE_CHECKING:
    from agentvault_tui.console.state.activity import ActivityRow
    from agentvault_tui.operator_api.proof import Proof


class Reads:
    """Reads that change nothing; what comes back has passed the mirror's intake."""

    def __init__(self, mirror: Mirror, wire: Wire) -> None:
        self.mirror = mirror
        self._wire = wire

    async def agent(self, agent_id: str) -> Json:
        """Read one agent."""
        return await self._wire.get(f"/api/agents/{agent_id}")

    async def activity(self, agent_id: str) -> ActivityRow:
        """Read what one agent did, counted by the broker."""
        # Loaded by whoever shows it; the first frame does without.
        from agentvault_tui.console.state.activity import read_activity  # noqa: PLC0415

        data = await self._wire.get(f"/api/agents/{agent_id}/activity")
        return read_activity(self.mirror.intake, data)

    async def audit(self, **query: object) -> EventPage:
        """Read a page of the audit, in the order the broker gives."""
        events, following = await self.audit_objects(**query)
        return EventPage(tuple(map(self.mirror.intake.event, events)), following)

    async def audit_objects(self, **query: object) -> tuple[list[Json], int | None]:
        """Read a page of the audit as it comes; also where reading goes on."""
        page = await self._wire.get("/api/audit", **query)
        following = page.get("next")
        return objects(page, "events"), following if integer(following) else None

    async def past(self, **moment: object) -> Json:
        """Read what the broker knew at a moment."""
        return await self._wire.get("/api/past", **moment)

    async def links(self, seqs: Iterable[int]) -> list[Proof]:
        """Read what it takes to compute links of the chain again."""
        from agentvault_tui.operator_api.proof import Proof  # noqa: PLC0415 - as above

        asked = ",".join(map(str, seqs))
        page = await self._wire.get("/api/audit/links", seq=asked)
        ledger = page.get("ledger")
        return [
            Proof.read(convert(link, LinkInfo), str(ledger))
            for link in objects(page, "links")
        ]

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision; also whether that is all."""
        page = await self._wire.get(f"/api/audit/{seq}/story")
        rows = map(self.mirror.intake.event, objects(page, "events"))
        return list(rows), page.get("complete") is True

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        path = f"/api/agents/stepup/{stepup_id}/before"
        page = await self._wire.get(path, limit=limit)
        rows = map(self.mirror.intake.stepup, objects(page, "stepups"))
        # In the past, what was decided later had not been decided yet.
        now = self.mirror.clock.now()
        return tuple(r for r in rows if r.decided_at is None or r.decided_at <= now)
