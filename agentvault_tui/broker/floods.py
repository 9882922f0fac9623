"""Limit how many refusals of one requester are decided and recorded.

A refusal costs an event, so an agent that goes on asking could fill the disk. Past its
budget it is answered 429, and one event every ten seconds counts its refusals.
A requester is an agent, or the chain of a token that was passed on; see `requester_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock

SPAN: Final = 10
"""Seconds over which refusals are counted, and for which a flooding agent is refused
before it is served again."""
RATE: Final = 20
"""Refusals a second that an agent may have on average over that time."""
BURST: Final = 5 * RATE * SPAN
"""Refusals an agent may have at once; the credit comes back by RATE a second."""


@dataclass(slots=True)
class _Agent:
    since: float
    """When the window began, in boot seconds."""
    last: float
    """When it last asked."""
    count: int = 0
    """Refusals in the window."""
    credit: float = BURST
    """Refusals it may have at once, when it last asked."""
    flooding: bool = False
    untold: int = 0
    """Refusals of this flood that are in no event yet."""
    told_at: float | None = None

    def credit_at(self, now: float) -> float:
        """Return the credit it has by *now*."""
        return min(BURST, self.credit + RATE * (now - self.last))


class Floods:
    """Counts refusals by agent; keeps nothing of agents that are not refused."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agents: dict[str, _Agent] = {}

    def refused(self, requester: str) -> None:
        """Count one refusal."""
        now = self._clock.boot()
        agent = self._agents.setdefault(requester, _Agent(now, now))
        agent.credit = agent.credit_at(now) - 1
        agent.last = now
        if agent.flooding:  # decided as others were
            agent.untold += 1
            return
        passed = now - agent.since
        if passed >= SPAN and agent.count <= RATE * passed:
            agent.since, agent.count = now, 0
        agent.count += 1
        if agent.credit < 0 or now - agent.since >= SPAN:
            agent.flooding, agent.untold = True, agent.untold + agent.count

    def limited(self, requester: str) -> bool:
        """Check whether a request of the agent is to be answered 429, and count it."""
        agent = self._agents.get(requester)
        if agent is None or not agent.flooding:
            return False
        now = self._clock.boot()
        still = now - agent.last >= SPAN
        agent.credit, agent.last = agent.credit_at(now), now
        if still:
            agent.flooding, agent.since, agent.count = False, now, 0
            return False
        agent.untold += 1
        return True

    def due(self) -> Iterator[tuple[str, int]]:
        """Yield flooding agents and their counts, at most once every SPAN.

        Unrecorded counts go back by `again`.
        """
        now = self._clock.boot()
        for requester, agent in list(self._agents.items()):
            still = now - agent.last >= SPAN
            waits = agent.told_at is not None and now - agent.told_at < SPAN
            if agent.untold and (still or not waits):
                count, agent.untold, agent.told_at = agent.untold, 0, now
                yield requester, count
            if still and not agent.untold and agent.credit_at(now) >= BURST:
                del self._agents[requester]

    def tell_later(self, requester: str, count: int) -> None:
        """Report *count* later: it could not be recorded now."""
        now = self._clock.boot()
        agent = self._agents.setdefault(requester, _Agent(now, now))
        agent.untold, agent.told_at = agent.untold + count, None
