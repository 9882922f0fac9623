"""Sessions of MCP's eras with a handshake, each of one agent at one server."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agentvault_tui.model import AgentId, new_secret

_MOST: Final = 1_000
_MOST_OF_ONE: Final = 100


@dataclass(slots=True)
class McpSession:
    """One client's session."""

    id: str
    agent_id: AgentId
    server: str
    version: str
    """Of MCP, as it was agreed."""
    upstream: str | None
    """The server's own name of it, where that is reached by URL and names one."""
    running: dict[object, Callable[[], object]] = field(default_factory=dict)
    """The functions that stop requests under way, by their ids."""


class McpSessions:
    """The sessions there are; past their number the agent with most gives one up.

    It is the one that was used least lately: agents that begin many end no other's.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._sessions: OrderedDict[str, McpSession] = OrderedDict()

    def begin(
        self, agent_id: AgentId, server: str, version: str, upstream: str | None
    ) -> McpSession:
        """Return a new session."""
        held = Counter(one.agent_id for one in self._sessions.values())
        ends = agent_id if held[agent_id] >= _MOST_OF_ONE else None
        if ends is None and len(self._sessions) >= _MOST:
            (ends, _), *_ = held.most_common(1)
        if ends is not None:
            self.end(next(s for s in self._sessions.values() if s.agent_id == ends))
        session = McpSession(new_secret("mcs"), agent_id, server, version, upstream)
        self._sessions[session.id] = session
        return session

    def find(self, id_: str, agent_id: AgentId, server: str) -> McpSession | None:
        """Return a session of this agent at this server."""
        session = self._sessions.get(id_)
        if session is None or (session.agent_id, session.server) != (agent_id, server):
            return None
        self._sessions.move_to_end(id_)
        return session

    def end(self, session: McpSession) -> None:
        """Forget a session."""
        self._sessions.pop(session.id, None)

    def cut(self, agent_id: AgentId | None) -> None:
        """Forget all sessions of an agent, or of all."""
        for session in list(self._sessions.values()):
            if agent_id in {None, session.agent_id}:
                self.end(session)
