"""Who needs a person, and why: the order of the agent list, in plain integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import AgentRow

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
    threshold: float = 0.0
    """What a burst has to stay above half of, as it was when the burst began."""
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


def survey(
    mirror: Mirror, before: Mapping[str, Attention] = MappingProxyType({})
) -> dict[str, Attention]:
    """Look at every agent that may need a look, and leave the quiet ones out.

    *before* is what was found last time. A burst goes on until it is half over: its
    own tokens become the agent's habit, and its peers' usual pace, while it lasts.
    """
    now = mirror.clock.now()
    waiting: dict[str, list[datetime]] = {}
    for stepup in mirror.open_stepups():
        waiting.setdefault(stepup.agent_id, []).append(stepup.requested_at)
    paces, denials = mirror.paces(now), mirror.denials(now)
    usual = sorted(paces.values())[(len(paces) - 1) // 2] if len(paces) > 1 else 0
    hasty = max(_BURST, _BURST_FACTOR * usual)
    ending = mirror.ending(now + timedelta(seconds=SOON))
    found = dict.fromkeys(mirror.revoked, _REVOKED)
    suspects = {
        *waiting,
        *ending,
        *(agent_id for agent_id, pace in paces.items() if pace >= hasty),
        *(agent_id for agent_id, look in before.items() if look.burst),
        *(agent_id for agent_id, count in denials.items() if count >= _MANY_DENIALS),
    }
    for agent_id in suspects - mirror.revoked:
        if (agent := mirror.agents.get(agent_id)) is None:
            continue
        waits, pace = waiting.get(agent_id, ()), paces.get(agent_id, 0)
        denied = denials.get(agent_id, 0)
        threshold = before.get(agent_id, _QUIET).threshold
        if pace < threshold / 2:
            threshold = 0.0
        if not threshold and pace >= hasty:
            usually = _BURST_FACTOR * _habit(mirror, agent, pace, now)
            threshold = max(hasty, usually) if pace >= usually else 0.0
        look = Attention(
            waiting=len(waits),
            oldest=waits[0] if waits else None,
            burst=pace if threshold else 0,
            threshold=threshold,
            denials=denied if denied >= _MANY_DENIALS else 0,
            soon=agent_id in ending and mirror.live_tokens(agent_id) == 1,
        )
        if look != _QUIET:
            found[agent_id] = look
    return found


def _habit(mirror: Mirror, agent: AgentRow, pace: int, now: datetime) -> float:
    """Return how many tokens a minute the agent got before the last one."""
    minutes = (now - agent.created_at).total_seconds() / 60 - 1
    if minutes < 1:
        return 0.0
    return max(mirror.counts(agent.id).allowed - pace, 0) / minutes
