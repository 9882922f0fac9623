"""What filters may ask for and be completed by: what the mirror knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from agentvault_tui.console.draw.words import TYPES
from agentvault_tui.console.state.filters import AgentFacts, EventFacts, Filter
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import OUTCOMES, RISKS, AgentRow, EventRow
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console.state.terms import STATUSES

_SPANS: Final = ("10m", "1h", "1d", "7d")


def event_facts(mirror: Mirror) -> Callable[[EventRow], EventFacts]:
    """Return what tells a `Filter` about an event's agent and what it asked for."""

    def facts(row: EventRow) -> EventFacts:
        agent = mirror.agents.get(row.agent_id)
        risk = mirror.intake.scope(row.action).risk if row.action else ""
        return EventFacts(agent.owner if agent else "", risk)

    return facts


def agent_facts(mirror: Mirror) -> Callable[[AgentRow], AgentFacts]:
    """Return what tells a `Filter` how an agent stands and how it was answered."""
    waiting = {row.agent_id for row in mirror.open_stepups()}

    def facts(row: AgentRow) -> AgentFacts:
        status = "waiting" if row.id in waiting else "active"
        return AgentFacts(mirror.counts(row.id), "revoked" if row.revoked else status)

    return facts


def read_filter(text: str, saved: SavedFilters, mirror: Mirror) -> Filter:
    """Read a filter, or by ``@name`` one that was saved."""
    named = saved.all() if text.startswith("@") else {}
    return Filter.parse(named.get(text[1:], text), before_colons(mirror))


def before_colons(mirror: Mirror) -> set[str]:
    """Return what scopes and resources hold before a colon."""
    names = [*mirror.intake.scopes, *(event.resource for event in mirror.events)]
    return {name.partition(":")[0].lower() for name in names if ":" in name}


class Known:
    """The vocabulary of completion, looked up when someone types."""

    def __init__(self, mirror: Mirror, saved: SavedFilters) -> None:
        self._mirror = mirror
        self._saved = saved
        self._fixed: Mapping[str, Iterable[str]] = {
            "outcome": OUTCOMES,
            "risk": tuple(reversed(RISKS)),
            "status": STATUSES,
            "type": sorted(TYPES),
            "since": _SPANS,
            "until": _SPANS,
        }

    def values(self, key: str) -> Iterable[str]:
        """Return the values known for a key, in the order of the alphabet."""
        agents = self._mirror.agents.values()
        match key:
            case "agent":
                return sorted({row.name for row in agents})
            case "owner":
                return sorted({row.owner for row in agents if row.owner})
            case "scope" | "action":
                granted = {scope.name for row in agents for scope in row.scopes}
                return sorted(granted.union(self._mirror.intake.scopes))
            case "resource":
                return sorted({e.resource for e in self._mirror.events if e.resource})
        return self._fixed.get(key, ())

    def saved(self) -> Mapping[str, str]:
        """Return the saved filters by their names."""
        return self._saved.all()
