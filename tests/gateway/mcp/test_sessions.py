"""Sessions of MCP: bounded, and one agent's are no other's."""

from __future__ import annotations

import pytest

from agentvault_tui.gateway.mcp.sessions import McpSession, McpSessions
from agentvault_tui.model import AgentId


def begin(sessions: McpSessions, agent: str) -> McpSession:
    return sessions.begin(AgentId(agent), "files", "2025-11-25", None)


@pytest.mark.slow
def test_agents_that_begin_many_sessions_end_no_other_agents() -> None:
    """Twenty agents with all they may have; who has one keeps it, though it is old."""
    sessions = McpSessions()
    mine = begin(sessions, "agt_quiet")
    for number in range(20):
        theirs = [begin(sessions, f"agt_{number}") for _ in range(150)]
    assert sessions.find(mine.id, mine.agent_id, "files") is mine
    assert sessions.find(theirs[-1].id, theirs[-1].agent_id, "files")
    assert len(sessions._sessions) == 1_000
