"""An agent cut off at npm's oidc-provider, which has no Management API at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import OPERATOR, Bench
from support.oidc_peer import Provider, oidc_provider, with_provider
from support.oidc_vault import AtProvider, vault_at
from support.token_vault import exchange

from agentvault_tui.broker.shapes import agent_shape
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.clock import ManualClock
from agentvault_tui.home import Home
from agentvault_tui.model import Agent

STEP = "held refresh token"

pytestmark = with_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One provider for all tests here."""
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def vault(provider: Provider, tmp_path: Path) -> AsyncIterator[AtProvider]:
    """A broker whose tenant it is."""
    clock = ManualClock(datetime.now(UTC))
    bench = await Bench.open(Home.locate(tmp_path / "home"), clock, provider.issuer)
    async with vault_at(provider, bench) as vault:
        yield vault
    await bench.close()


def held(vault: AtProvider, agent: Agent) -> str:
    """Return the refresh token kept for the agent, empty when there is none."""
    user = vault.broker.vault.users.of(agent.id)
    return user.refresh_token.reveal() if user else ""


def told(vault: AtProvider, agent: Agent) -> dict[str, tuple[str, str]]:
    """Return each step as operators see it: how it stands, and why."""
    rows = agent_shape(agent, vault.broker.registry)["upstream"]
    return {row["step"]: (row["status"], row["problem"] or "") for row in rows}


async def work(vault: AtProvider) -> None:
    while await vault.broker.outbox.work():
        pass


async def test_its_refresh_token_is_refused_there_and_forgotten_here(
    vault: AtProvider,
) -> None:
    """By RFC 7009 alone, as the agent's own client; another agent's token lives.

    What takes a Management API is not done, and says so at once.
    """
    agent, other = await vault.connected("agent"), await vault.connected("other")
    assert (await exchange(agent)).status_code == 200
    mine, theirs = held(vault, agent.agent), held(vault, other.agent)
    await revoke_agent(vault.broker, agent.agent.id, "", OPERATOR)
    asked = vault.provider.asked("/oauth/revoke")
    await work(vault)
    assert told(vault, agent.agent)[STEP] == ("confirmed", "")
    assert vault.provider.asked("/oauth/revoke") == asked + 1
    assert not vault.lives(agent, mine)
    assert held(vault, agent.agent) == ""
    assert vault.lives(other, theirs)
    assert held(vault, other.agent) == theirs
    for step in ("vault grant", "refresh tokens", "client secret"):
        status, problem = told(vault, agent.agent)[step]
        assert status == "failed"
        assert "no Management API credential" in problem
    assert any("no Management API credential" in one for one in warnings(vault.broker))


async def test_it_is_shown_again_once_the_provider_is_back(vault: AtProvider) -> None:
    """Down when the agent is cut off: the token is kept until it is seen to be dead."""
    agent = await vault.connected("agent")
    mine = held(vault, agent.agent)
    vault.provider.down()
    try:
        await revoke_agent(vault.broker, agent.agent.id, "", OPERATOR)
        vault.bench.clock.advance(301)  # its accounts have had their minutes
        await work(vault)
        status, problem = told(vault, agent.agent)[STEP]
        assert status == "pending"
        assert problem
        assert held(vault, agent.agent) == mine
    finally:
        vault.provider.up()
    assert vault.lives(agent, mine)
    vault.bench.clock.advance(400)
    await work(vault)
    assert told(vault, agent.agent)[STEP] == ("confirmed", "")
    assert not vault.lives(agent, mine)
    assert held(vault, agent.agent) == ""
