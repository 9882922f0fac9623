"""How long a denied agent waits before it may ask for a person again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.ledger import Cooldown
from agentvault_tui.model import AgentId

FIRST: Final = 30.0
LONGEST: Final = 900.0
_DOUBLINGS: Final = 5
"""After so many the wait has reached the longest."""


class Cooldowns:
    """One small record an agent, in the ledger with the decision that made it.

    Each denial since the last approval doubles the wait: push fatigue needs
    repetition, so repetition costs. Memory goes first and the record follows, in the
    same order, so that both say the same.
    """

    def __init__(self, clock: Clock) -> None:
        """Start with nobody waiting."""
        self._clock = clock
        self._known: dict[AgentId, Cooldown] = {}

    def take_over(self, cooldowns: Iterable[Cooldown]) -> None:
        """Know what the last process knew."""
        self._known.update((known.agent_id, known) for known in cooldowns)

    def of(self, agent_id: AgentId) -> Cooldown:
        """Return what is known of the agent, as the ledger keeps it."""
        return self._known.get(agent_id) or Cooldown(agent_id)

    def remaining(self, agent_id: AgentId) -> float:
        """Return the seconds the agent has to wait; 0 when it may ask.

        By the boot clock, which nobody can set. After a reboot only the wall clock is
        left; set back, it makes nobody wait longer than the denial did.
        """
        known = self.of(agent_id)
        if known.until is None:
            return 0.0
        if known.until.boot_id == self._clock.boot_id:
            left = known.until.boot - self._clock.boot()
        else:
            left = (known.until.wall - self._clock.now()).total_seconds()
        return max(0.0, min(left, _wait(known.denials)))

    def denied(self, agent_id: AgentId) -> Cooldown:
        """Make the agent wait; return what goes into the denial's transaction."""
        denials = self.of(agent_id).denials + 1
        until = Deadline.after(self._clock, _wait(denials))
        return self._put(Cooldown(agent_id, denials, until))

    def approved(self, agent_id: AgentId) -> tuple[Cooldown, ...]:
        """Start anew; return what goes into the approval's transaction, if anything."""
        return (Cooldown(agent_id),) if self._known.pop(agent_id, None) else ()

    def restore(self, cooldown: Cooldown) -> None:
        """Put back what an approval that was not recorded had ended."""
        if cooldown.until is not None and cooldown.agent_id not in self._known:
            self._put(cooldown)

    def _put(self, cooldown: Cooldown) -> Cooldown:
        self._known[cooldown.agent_id] = cooldown
        return cooldown


def _wait(denials: int) -> float:
    return min(FIRST * 2.0 ** min(denials - 1, _DOUBLINGS), LONGEST)
