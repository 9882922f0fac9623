"""Who needs a person, and why: the order of the agent list, in plain integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Final

from agentvault_tui.console.mirror import Mirror
from agentvault_tui.console.records import AgentRow

SOON: Final = 60
"""Seconds before the end at which a countdown says SOON."""
_BURST: Final = 10
_BURST_FACTOR: Final = 3
_MANY_DENIALS: Final = 3


@dataclass(frozen=True, slots=True)
class Attention:
    """Why an agent stands where it does; all False and 0 is a quiet one."""

    waiting: int = 0
    """Step-ups that wait for a person."""
    burst: int = 0
    """Tokens got in the last minute, when that is unlike itself and its peers."""
    denials: int = 0
    """Denials in the last minute, when they are many."""
    soon: bool = False
    """Its last token but none after it ends within a minute."""
    revoked: bool = False

    @property
    def rank(self) -> int:
        """Order agents: 0 first."""
        if self.revoked:
            return 5
        reasons = (self.waiting, self.burst, self.denials, self.soon)
        return next((n for n, reason in enumerate(reasons) if reason), 4)


def survey(mirror: Mirror) -> dict[str, Attention]:
    """Look at every agent."""
    waiting: dict[str, int] = {}
    for stepup in mirror.stepups.values():
        if stepup.open:
            waiting[stepup.agent_id] = waiting.get(stepup.agent_id, 0) + 1
    paces = {agent_id: mirror.allowed_lately(agent_id) for agent_id in mirror.agents}
    busy = [pace for pace in paces.values() if pace]
    usual = median(busy) if len(busy) > 1 else 0.0
    return {
        agent.id: replace(
            _look(mirror, agent, paces[agent.id], usual),
            waiting=waiting.get(agent.id, 0),
        )
        for agent in mirror.agents.values()
    }


def _look(mirror: Mirror, agent: AgentRow, pace: int, usual: float) -> Attention:
    if agent.revoked:
        return Attention(revoked=True)
    now = mirror.clock.now()
    denials = mirror.denied_lately(agent.id)
    token = mirror.soonest(agent.id)
    soon = (
        token is not None
        and mirror.live_tokens(agent.id) == 1
        and token.remaining(now) < SOON
    )
    quiet = max(_habit(mirror, agent, now, pace), usual)
    burst = pace >= _BURST and pace >= _BURST_FACTOR * quiet
    return Attention(
        burst=pace if burst else 0,
        denials=denials if denials >= _MANY_DENIALS else 0,
        soon=soon,
    )


def _habit(mirror: Mirror, agent: AgentRow, now: datetime, pace: int) -> float:
    """Return how many tokens a minute the agent got before the last one."""
    minutes = (now - agent.created_at).total_seconds() / 60 - 1
    if minutes < 1:
        return 0.0
    return max(mirror.counts(agent.id).allowed - pace, 0) / minutes
