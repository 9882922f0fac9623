"""Reads a moment of the past through the link to the broker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.link.link import Link
from agentvault_tui.console.state.activity import ActivityRow, read_activity
from agentvault_tui.console.state.past import Aim, PastMirror
from agentvault_tui.console.state.records import EventRow, Json

EVENTS: Final = 200
"""Events read for a moment; older ones when someone scrolls back to them."""


class PastReader(Link):
    """Shares the socket of a link; it only reads, and nothing that came later."""

    mirror: PastMirror

    def __init__(self, link: Link, mirror: PastMirror) -> None:
        vars(self).update(vars(link))
        self.mirror, self.read_only = mirror, True

    async def activity(self, agent_id: str) -> ActivityRow:
        """Read what one agent had done by then."""
        here = self.mirror.place
        at = self.mirror.clock.now()
        aim = Aim(seq=here.seq) if at == here.time else Aim(at=at)
        query = {"agent": agent_id, **aim.query()}
        data = await self._wire.get("/api/past/activity", **query)
        return read_activity(self.mirror.intake, data)

    async def audit_objects(self, **query: object) -> tuple[list[Json], int | None]:
        """Read a page of the audit up to then."""
        last = self.mirror.place.seq
        before = query.get("before")
        if isinstance(before, int):
            query["before"] = min(before, last + 1)
        events, following = await super().audit_objects(**query)
        had = [event for event in events if event.get("seq", 0) <= last]
        return had, following if len(had) == len(events) else None

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision, as far as it had come."""
        rows, complete = await super().story(seq)
        return [row for row in rows if row.seq <= self.mirror.place.seq], complete


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay in the past: its mirror and what reads for it, beside the present."""

    past: PastMirror
    live: Desk
    reader: PastReader
    desk: Desk
    """A place of work in the past: it reads, and refuses every decision."""
    since: int
    """The last event there was when it began."""

    @classmethod
    def begin(cls, past: PastMirror, live: Desk, link: Link) -> Stay:
        """Begin one at the moment that *past* holds."""
        reader = PastReader(link, past)
        desk = replace(live, mirror=past, actions=reader, past=True, begun={})
        return cls(past, live, reader, desk, live.mirror.last_seq)


async def look(link: Link, aim: Aim) -> tuple[Json, list[Json]]:
    """Read a moment and the events before it, oldest first.

    Raises:
        AgentVaultError: there is no such moment, or nobody answers.
    """
    told = await link.past(**aim.query())
    seq = told.get("seq")
    before = seq + 1 if isinstance(seq, int) else None
    events, _ = await link.audit_objects(before=before, limit=EVENTS)
    return told, events[::-1]
