"""Panic, and the door that finds out if a decision was revoked meanwhile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from agentvault_tui.ledger import Panic
from agentvault_tui.model import AgentId

_ANY: Final = "any"
_ALL: Final = "all"
"""Keys next to those of scopes, which have a colon."""


class Revocations:
    """Counts how often the decisions under way about each agent were voided."""

    def __init__(self) -> None:
        self.panic: Panic | None = None
        self._everyone = 0
        self._voided: dict[AgentId, Counter[str]] = defaultdict(Counter)

    def void(self, agent_id: AgentId, scopes: Iterable[str] | None) -> None:
        """Void the agent's decisions; see `Registry.void_decisions`."""
        self._voided[agent_id].update((_ANY, *((_ALL,) if scopes is None else scopes)))

    def void_all(self) -> None:
        """Void the decisions of all agents."""
        self._everyone += 1

    def unless_revoked(self, *agents: AgentId, scope: str | None = None) -> Grant:
        """Begin a decision that a revocation of one of *agents* voids.

        With a *scope*, several separated by spaces, a change of others does not.
        """
        about = (_ANY,) if scope is None else (_ALL, *scope.split())
        return Grant(self, agents, about)

    def count(self, agents: tuple[AgentId, ...], about: tuple[str, ...]) -> object:
        """Return a value that changes with each voiding, and with panic."""
        voided = self._everyone
        for counts in filter(None, map(self._voided.get, agents)):
            voided += sum(counts[key] for key in about)
        return voided, self.panic is None


class Grant:
    """A right that is given unless it is revoked while it is being recorded.

    Begin one before the first wait, and ask `revoked` after each: a decision from
    before a revocation must not take effect after it. Two questions have other answers:
    `Registry.lives`, since a parent may end without a revocation, and whether the
    policy is another, since that may decide the same.
    """

    __slots__ = "_about", "_agents", "_before", "_revocations"

    def __init__(
        self, among: Revocations, agents: tuple[AgentId, ...], about: tuple[str, ...]
    ) -> None:
        self._revocations, self._agents, self._about = among, agents, about
        self._before = among.count(agents, about)

    @property
    def revoked(self) -> bool:
        """Whether one of the agents, a scope, or all agents were revoked since."""
        return self._revocations.count(self._agents, self._about) != self._before
