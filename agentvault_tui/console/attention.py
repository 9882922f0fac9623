"""Who needs a person, and why: the order of the agent list, in plain integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

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


_QUIET: Final = Attention()
_REVOKED: Final = Attention(revoked=True)


class Facts(NamedTuple):
    """What is looked at, and when."""

    mirror: Mirror
    agent: AgentRow
    now: datetime


def survey(mirror: Mirror) -> dict[str, Attention]:
    """Look at every agent."""
    waiting: dict[str, list[datetime]] = {}
    for stepup in mirror.open_stepups():
        waiting.setdefault(stepup.agent_id, []).append(stepup.requested_at)
    now = mirror.clock.now()
    paces = mirror.paces(now)
    busy = [pace for pace in paces.values() if pace]
    usual = sorted(busy)[(len(busy) - 1) // 2] if len(busy) > 1 else 0
    return {
        agent.id: _look(
            Facts(mirror, agent, now),
            waiting.get(agent.id, ()),
            paces.get(agent.id, 0),
            usual,
        )
        for agent in mirror.agents.values()
    }


def _look(
    facts: Facts, waiting: Sequence[datetime], pace: int, usual: int
) -> Attention:
    mirror, agent, now = facts
    if agent.revoked:
        return _REVOKED
    denials = mirror.denied_lately(agent.id, now)
    token = mirror.soonest(agent.id)
    soon = (
        token is not None
        and (token.expires_at - now).total_seconds() < SOON
        and mirror.live_tokens(agent.id) == 1
    )
    if not (waiting or soon or pace >= _BURST or denials >= _MANY_DENIALS):
        return _QUIET
    burst = pace >= _BURST and pace >= _BURST_FACTOR * max(_habit(facts, pace), usual)
    return Attention(
        waiting=len(waiting),
        oldest=waiting[0] if waiting else None,
        burst=pace if burst else 0,
        denials=denials if denials >= _MANY_DENIALS else 0,
        soon=soon,
    )


def _habit(facts: Facts, pace: int) -> float:
    """Return how many tokens a minute the agent got before the last one."""
    mirror, agent, now = facts
    minutes = (now - agent.created_at).total_seconds() / 60 - 1
    if minutes < 1:
        return 0.0
    return max(mirror.counts(agent.id).allowed - pace, 0) / minutes
