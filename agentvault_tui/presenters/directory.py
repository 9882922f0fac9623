"""The agents and scopes that texts about other records name."""

from __future__ import annotations

from agentvault_tui.clock import Clock
from agentvault_tui.operator_api.shapes import PastAgentInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.moments import plural
from agentvault_tui.presenters.records import AgentRow
from agentvault_tui.text import Shown


class Directory:
    """Agents by id, the catalogue of scopes, and the clock for "ago" and "in"."""

    def __init__(self, clock: Clock, *, ascii_only: bool = False) -> None:
        self.clock = clock
        self.intake = Intake(ascii_only=ascii_only)
        self.agents: dict[str, AgentRow] = {}
        """All clients, resource servers too."""

    def add(self, info: PastAgentInfo) -> AgentRow:
        """Take an agent of an answer; return its row."""
        row = self.agents[info.id] = self.intake.agent(info)
        return row

    def agent_name(self, agent_id: str) -> Shown:
        """Return an agent's name, or its id if it is unknown."""
        agent = self.agents.get(agent_id)
        return agent.name if agent else self.intake.shown(agent_id)

    def derived(self, agent_id: str) -> list[AgentRow]:
        """Return the agents made from a template that are not revoked."""
        template = self.agents.get(agent_id)
        if template is None or not template.template:
            return []
        made = (a for a in self.agents.values() if a.from_template == agent_id)
        return [agent for agent in made if not agent.revoked]

    def population(self) -> str:
        """Say how many agents and resource servers there are."""
        servers = sum(agent.resource_server for agent in self.agents.values())
        agents = plural(len(self.agents) - servers, "agent")
        return (
            f"{agents} and {plural(servers, 'resource server')}" if servers else agents
        )
