"""When agents end by themselves: at a time, or with the template they are made from."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from agentvault_tui.clock import Clock, Deadline, as_set_now
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import Agent, AgentId, AgentStatus, Credential, Token


class RemovedAgents:
    """Finds the removed agent whose name, key or subject another one has."""

    def __init__(self) -> None:
        """Know no agent yet."""
        self._names: set[str] = set()
        self._credentials: set[Credential] = set()

    def put(self, agent: Agent) -> None:
        """Add an agent that was removed."""
        self._names.add(fold_text(agent.name))
        if agent.credential.kind != "none":
            self._credentials.add(agent.credential)

    def has_name(self, name: str) -> bool:
        """Check whether one had a name, or one that looks alike."""
        return fold_text(name) in self._names

    def has_credential(self, credential: Credential) -> bool:
        """Check whether one had a public key, or a subject."""
        return credential in self._credentials


class Lifetimes:
    """Says which agents are served, and which are to be revoked."""

    def __init__(self, clock: Clock, agents: Mapping[AgentId, Agent]) -> None:
        """Judge *agents*, the registry's own, by *clock*."""
        self._clock = clock
        self._agents = agents
        self._ends: list[tuple[datetime, AgentId]] = []
        """The next first; an agent that was revoked stays until then."""
        self._derived: dict[AgentId, list[AgentId]] = defaultdict(list)
        """By template."""
        self.removed = RemovedAgents()
        self._orphaned: set[AgentId] = set()
        """Agents whose template is revoked, as far as they were not taken."""
        self._revoked: dict[AgentId, float] = {}
        """When agents were revoked, by the boot clock, since this process started."""

    def put(self, agent: Agent, before: Agent | None) -> None:
        """Know *agent*, which was *before*, if it was there."""
        if agent.removed_at is not None:
            self.removed.put(agent)
        origin, revoked = agent.from_template, agent.status is AgentStatus.REVOKED
        if not revoked:
            self._revoked.pop(agent.id, None)
        elif before is not None and before.status is not AgentStatus.REVOKED:
            self._revoked[agent.id] = self._clock.boot()
        if before is None and origin is not None:
            self._derived[origin].append(agent.id)
        if origin is not None and not revoked and not self.is_template(origin):
            self._orphaned.add(agent.id)
        if agent.template and revoked:
            self._orphaned.update(self._derived.get(agent.id, ()))
        last = before is not None and (before.until, before.status)
        if agent.until and not revoked and last != (agent.until, agent.status):
            insort(self._ends, (agent.until.wall, agent.id))

    def is_active(self, agent_id: AgentId) -> bool:
        """Check whether the agent is served when nothing is stopped.

        Not once its time is over or its template was revoked, also before that is
        recorded.
        """
        agent = self._agents.get(agent_id)
        return (
            agent is not None
            and agent.status is AgentStatus.ACTIVE
            and self._lasts(agent)
        )

    def revoked_within(self, agent_id: AgentId, seconds: float) -> bool:
        """Check whether the agent was revoked so recently, by the boot clock.

        Not if it was before this process started: nothing says how long ago.
        """
        at = self._revoked.get(agent_id)
        return at is not None and self._clock.boot() - at <= seconds

    def is_template(self, agent_id: AgentId) -> bool:
        """Check whether it is a template, and the agents made from it are served."""
        agent = self._agents.get(agent_id)
        return (
            agent is not None
            and agent.status is AgentStatus.TEMPLATE
            and self._lasts(agent)
        )

    def derived(self, agent_id: AgentId) -> list[Agent]:
        """Return the agents made from a template that are not revoked."""
        agents = (self._agents[each] for each in self._derived.get(agent_id, ()))
        return [agent for agent in agents if agent.status is not AgentStatus.REVOKED]

    def take_ended(self, late: float = 0.0) -> list[Agent]:
        """Return the agents that are to be revoked, *late* seconds after their time."""
        moment = self._clock.now() - timedelta(seconds=late)
        count = bisect_right(self._ends, moment, key=lambda end: end[0])
        ended = dict.fromkeys(each for _, each in self._ends[:count])
        ended |= dict.fromkeys(sorted(self._orphaned))
        del self._ends[:count]
        self._orphaned.clear()
        agents = map(self._agents.__getitem__, ended)
        revoked = AgentStatus.REVOKED
        return [
            one for one in agents if one.status is not revoked and not self._lasts(one)
        ]

    def as_set_now(self) -> list[Agent]:
        """Return agents that would gain time by a wall clock that was set back.

        Each with its end as the clock is set now: after a reboot there is nothing else
        to know it by.
        """
        ends = as_set_now(self._clock)
        return [
            replace(agent, until=agent.until._replace(wall=wall))
            for agent in self._agents.values()
            if agent.until and agent.status is not AgentStatus.REVOKED
            if (wall := ends(agent.until)) < agent.until.wall
        ]

    def life(
        self, agent_id: AgentId, seconds: int, parent: Token | None = None
    ) -> tuple[Deadline, int]:
        """Return when something given to an agent now ends, and in how many seconds.

        Args:
            agent_id: the agent; the token does not outlive it.
            seconds: how long it would live.
            parent: a token that it was exchanged for, which it does not outlive either.
        """
        ends = Deadline.after(self._clock, seconds)
        bounds = self._agents[agent_id].until, parent.expires if parent else None
        for bound in filter(None, bounds):
            if (left := bound.remaining(self._clock)) < seconds:
                ends, seconds = bound, int(left)
        return ends, seconds

    def _lasts(self, agent: Agent) -> bool:
        if agent.until is not None and agent.until.passed(self._clock):
            return False
        return agent.from_template is None or self.is_template(agent.from_template)


def as_loaded(agent: Agent, clock: Clock, latest: datetime) -> Agent:
    """Return an agent with its end on this boot's clock too; see `Deadline.loaded`."""
    if agent.until is None:
        return agent
    return replace(agent, until=agent.until.loaded(clock, latest))
