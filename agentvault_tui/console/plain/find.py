"""Finds what a typed word names: one thing, or nothing."""

from __future__ import annotations

import difflib

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import AgentRow, StepUpRow


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


def agent_first(mirror: Mirror, text: str) -> tuple[AgentRow | None, str]:
    """Find the agent a line begins with, and what follows; names may have spaces."""
    what, _, rest = text.partition(" ")
    if what in mirror.agents:
        return mirror.agents[what], rest.strip()
    names = {agent.name for agent in mirror.agents.values()}
    begun = [name for name in names if f"{text} ".startswith(f"{name} ")]
    name = max(begun, key=len, default=what)
    return agent(mirror, name), text[len(name) :].strip()


def nearest(mirror: Mirror, what: str) -> str:
    """Return the agent's name a word was meant for, most likely; empty if none is."""
    names = sorted({agent.name for agent in mirror.agents.values()})
    begun = [name for name in names if what and name.startswith(what)]
    near = begun or difflib.get_close_matches(what, names, n=1)
    return near[0] if near else ""
