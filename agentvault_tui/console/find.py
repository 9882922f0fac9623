"""Finds what a typed word names: one thing, or nothing."""

from __future__ import annotations

from agentvault_tui.console.mirror import Mirror
from agentvault_tui.console.records import AgentRow, StepUpRow


def stepup(mirror: Mirror, what: str) -> StepUpRow | None:
    """Find by id, or by a fingerprint that only one has; open ones come first."""
    rows = mirror.stepups
    if exact := rows.get(what):
        return exact
    same = [row for row in rows.values() if row.fingerprint == what.upper()]
    waiting = [row for row in same if row.open]
    found = waiting or same
    return found[0] if len(found) == 1 else None


def agent(mirror: Mirror, what: str) -> AgentRow | None:
    """Find by id, or by a name that only one has."""
    agents = mirror.agents
    if what in agents:
        return agents[what]
    found = [agent for agent in agents.values() if agent.name == what]
    return found[0] if len(found) == 1 else None
