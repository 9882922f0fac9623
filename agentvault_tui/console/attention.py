"""Who needs a person, and why: the order of the agent list, in plain integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
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
    oldest: datetime | None = None
    """Since when the first of them waits."""
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

    @property
    def order(self) -> tuple[int, float]:
        """Order agents: by rank, and those that wait by how long they have."""
        return self.rank, self.oldest.timestamp() if self.oldest else 0.0


def survey(mirror: Mirror) -> dict[str, Attention]:
    """Look at every agent."""
    waiting: dict[str, list[datetime]] = {}
    for stepup in mirror.open_stepups():
        waiting.setdefault(stepup.agent_id, []).append(stepup.requested_at)
    paces = {agent_id: mirror.allowed_lately(agent_id) for agent_id in mirror.agents}
    busy = [pace for pace in paces.values() if pace]
    usual = sorted(busy)[(len(busy) - 1) // 2] if len(busy) > 1 else 0
    return {
        agent.id: replace(
            _look(mirror, agent, paces[agent.id], usual),
            waiting=len(waiting.get(agent.id, ())),
            oldest=waiting.get(agent.id, (None,))[0],
        )
        for agent in mirror.agents.values()
    }


def _look(mirror: Mirror, agent: AgentRow, pace: int, usual: int) -> Attention:
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
