"""A revocation reaches the provider: what an agent was given is worth nothing there."""

from __future__ import annotations

from support.agents_http import Live
from support.connecting import WORKSPACE, Office, caller
from support.token_vault import exchange

from agentvault_tui.broker.shapes import agent_shape


async def test_what_an_agent_holds_is_revoked_at_the_provider(
    office: Office, live: Live
) -> None:
    """It works, the agent is cut off, and the provider does not take it any more."""
    agent = await caller(live)
    account = await office.connect(
        agent.agent, office.person("ursula"), "calendar.read"
    )
    assert account.provider_user == "ursula"
    token = (await exchange(agent, WORKSPACE)).json()["access_token"]
    assert office.provider_says(token)["active"] is True
    await office.revoke(agent.agent)
    registry = office.broker.registry
    assert registry.leases.outside_until(agent.agent.id) is not None
    await office.work()
    assert office.provider_says(token)["active"] is False
    assert office.step(agent.agent).status == "confirmed"
    assert registry.leases.outside_until(agent.agent.id) is None
    told = agent_shape(registry.agent(agent.agent.id), registry)
    assert told["outside_until"] is None
    steps = [row.step for row in registry.steps_of(agent.agent.id)]
    assert "connected accounts" in steps
    (event,) = [
        event
        for event in await office.bench.events("upstream.revocation")
        if event.detail["step"] == "provider token"
    ]
    assert event.detail["connection"] == WORKSPACE
    assert event.detail["status"] == "confirmed"
