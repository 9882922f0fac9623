"""What consoles are sent as it happens: the state a commit leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace

from support.bench import OPERATOR, Bench

from agentvault_tui.broker.usecases import revoke
from agentvault_tui.ledger import DropAgentTokens
from agentvault_tui.model import AgentStatus


async def test_a_restored_agent_is_sent_as_active(
    bench: Bench,
) -> None:
    """A frame for another change of the commit does not put the revoked agent back."""
    agent = await bench.agent()
    await revoke.revoke_agent(bench.broker, agent.id, "drill", OPERATOR)
    revoked = bench.broker.registry.agent(agent.id)
    assert revoked.status is AgentStatus.REVOKED
    stream = bench.feed.stream(None)
    await anext(stream)
    active = replace(revoked, status=AgentStatus.ACTIVE, revoked_at=None)
    bench.feed.publish([], [active, DropAgentTokens(agent.id)])
    told = await anext(stream)
    await stream.aclose()
    states = [
        json.loads(line.removeprefix("data: "))["status"]
        for line in told.splitlines()
        if line.startswith("data: ")
    ]
    assert states == ["active"]
