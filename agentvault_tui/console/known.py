"""What a filter may ask of an event that only the mirror knows."""

from __future__ import annotations

from collections.abc import Callable

from agentvault_tui.console.filters import EventFacts
from agentvault_tui.console.mirror import Mirror
from agentvault_tui.console.records import EventRow


def event_facts(mirror: Mirror) -> Callable[[EventRow], EventFacts]:
    """Return what tells a `Filter` about an event's agent and what it asked for."""

    def facts(row: EventRow) -> EventFacts:
        agent = mirror.agents.get(row.agent_id)
        risk = mirror.intake.scope(row.action).risk if row.action else ""
        return EventFacts(agent.owner if agent else "", risk)

    return facts
