"""Agents to which files grant only if a person accepts them.

In files the name is the identity. An operator who may not grant could register a name
before the files are applied, with a secret of their own, or free the name of an agent
that was revoked. So an agent gets what files grant if a file or a person who may grant
chose its credential; for any other one, a person has to name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from shlex import quote

from agentvault_tui.broker.registry import Registry
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import Agent, AgentId, Delegate
from agentvault_tui.text import visible


@dataclass(frozen=True, slots=True)
class AgentChange:
    """An agent as it is, if it is there, and as files say it."""

    before: Agent | None
    after: Agent

    @property
    def narrowed(self) -> Agent | None:
        """The agent with only its losses applied."""
        if self.before is None:
            return None
        narrowed = (
            Delegate(one.agent_id, tuple(sorted(left)))
            for one in self.before.delegates
            if (left := frozenset(one.scopes) & self.after.may_pass_on(one.agent_id))
        )
        scopes = frozenset(self.before.scopes) & frozenset(self.after.scopes)
        return replace(
            self.before, scopes=tuple(sorted(scopes)), delegates=tuple(narrowed)
        )

    @property
    def widens(self) -> bool:
        """Whether anything but its losses changes."""
        return self.narrowed != self.after

    def receivers(self) -> Iterator[AgentId]:
        """Yield the agents that it may pass on to, before or after."""
        receivers = self.before.delegates if self.before else ()
        yield from sorted({one.agent_id for one in (*receivers, *self.after.delegates)})


@dataclass(frozen=True, slots=True)
class Doubts:
    """Which agents of a plan have to be accepted, and why."""

    registry: Registry
    unconfirmed: Mapping[str, str]
    """Who registered agents without a grant; see `Ledger.unconfirmed`."""
    planned: Mapping[str, Agent]
    """The agents of files, by name."""

    def accepted(
        self, changes: Iterable[AgentChange], names: Collection[str]
    ) -> dict[AgentId, str]:
        """Return the agents that are accepted, and why they have to be.

        Args:
            changes: the changes of the files.
            names: of the agents that a person accepts.

        Raises:
            ConflictError: one has to be accepted, and is not.
        """
        accepted = dict[AgentId, str]()
        for change in changes:
            for agent, why in self._of(change):
                shown = visible(agent.name, 60)
                if agent.name not in names:
                    raise ConflictError(
                        f"{shown} {why}",
                        f"if it is the right agent: --accept {quote(shown)}",
                    )
                accepted[agent.id] = f"{shown} {why}"
        return accepted

    def _of(self, change: AgentChange) -> Iterator[tuple[Agent, str]]:
        before, after = change.before, change.after
        removed = self.registry.lifetimes.removed
        if before is None and removed.has_name(after.name):
            yield after, "has the name of an agent that was revoked and removed"
        same = before is not None and before.credential == after.credential
        if not same and removed.has_credential(after.credential):
            yield after, "has the credential of an agent that was revoked and removed"
        if before is not None and change.widens:
            yield from self._unconfirmed(after)
        for to in change.receivers():
            earlier = before.may_pass_on(to) if before else frozenset()
            receiver = self.registry.find_agent(to)
            if receiver is not None and after.may_pass_on(to) - earlier:
                yield from self._unconfirmed(receiver)

    def _unconfirmed(self, agent: Agent) -> Iterator[tuple[Agent, str]]:
        """Yield an agent whose credential an operator chose who may not grant."""
        planned = self.planned.get(agent.name, agent)
        by_file = agent.name in self.planned and planned.credential.kind != "secret"
        if agent.id in self.unconfirmed and not by_file:
            by, kind = visible(self.unconfirmed[agent.id], 60), planned.credential.kind
            why = f"was registered by {by}, who may not grant, and authenticates by its"
            yield agent, f"{why} {kind}"
