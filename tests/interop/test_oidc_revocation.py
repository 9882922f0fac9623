"""An agent cut off at npm's oidc-provider, which has no Management API at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx_sse import connect_sse
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.oidc_peer import URSULA, Provider, signed_in_at, with_provider
from support.oidc_vault import AtProvider, vault_at
from support.token_vault import exchange
from support.vault import Vault, serving

from agentvault_tui.broker.shapes import agent_info
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.vault_access import VaultUser, VaultUsers
from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.model import Agent, AgentId
from agentvault_tui.vault import ClientSecret, Secret, Tenant
from agentvault_tui.vault.kept_clients import ClientSecretsFile

STEP = "held refresh token"

pytestmark = with_provider


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
    user = vault.broker.reaching.vault.users.of(agent.id)
    return user.refresh_token.reveal() if user else ""


def told(vault: AtProvider, agent: Agent) -> dict[str, tuple[str, str]]:
    """Return each step as operators see it: how it stands, and why."""
    rows = agent_info(agent, vault.broker.registry).upstream
    return {row.step: (row.status, row.problem or "") for row in rows}


async def work(vault: AtProvider) -> None:
    while await vault.broker.reaching.outbox.work():
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


async def keep_signed_in(provider: Provider, home: Home, agent_id: AgentId) -> Secret:
    """Have Ursula sign in for the agent, as `connections add` does."""
    made = provider.register()
    credential = ClientSecret(made["client_id"], Secret(made["client_secret"]))
    tenant = Tenant(provider.issuer, SystemClock())
    token = await signed_in_at(tenant, credential)
    await tenant.aclose()
    clients = ClientSecretsFile(home, provider.issuer)
    clients.keep(f"agents/{agent_id}", credential.client_id, credential.secret)
    user = VaultUser(URSULA, "ursula", token, credential.client_id)
    VaultUsers(home, provider.issuer).keep(agent_id, user)
    return token


def lives(provider: Provider, home: Home, agent_id: AgentId, token: Secret) -> bool:
    """Ask the provider whether the agent's application may still use the token."""
    clients, key = ClientSecretsFile(home, provider.issuer), f"agents/{agent_id}"
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token.reveal(),
        "client_id": clients.client_id(key),
        "client_secret": clients.secret(key).reveal(),
    }
    return provider.http.post("oauth/token", data=form).status_code == 200


def step_until(
    vault: Vault, agent_id: str, done: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Follow the stream until the step of the held token is *done*; return it."""
    with connect_sse(vault.operator, "GET", "/api/events") as source:
        for _ in source.iter_sse():
            shown = vault.operator.get(f"/api/agents/{agent_id}").json()
            step = next(row for row in shown["upstream"] if row["step"] == STEP)
            if done(step):
                return dict(step)
    raise AssertionError("the stream ended")


async def test_a_broker_that_is_killed_ends_it_when_it_is_back(
    provider: Provider,
) -> None:
    """A process of its own, cut off from the provider and shot: the row is on disk.

    The next one shows the token, sees that it is refused, and forgets it.
    """
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Home.locate(Path(folder))
        (Path(folder) / "config.toml").write_text(
            f"[tenant]\nissuer = {json.dumps(provider.issuer)}\nclient_id = 'console'\n"
        )
        with serving(Path(folder)) as first:
            agent_id = AgentId(first.register("mail-agent", "read:email").agent_id)
            token = await keep_signed_in(provider, home, agent_id)
            provider.down()
            try:
                said = first.cli("agents", "revoke", agent_id, "--json")
                assert json.loads(said.stdout)["recorded"]
                step_until(first, agent_id, lambda step: bool(step["attempts"]))
                first.kill()
            finally:
                provider.up()
        users = VaultUsers(home, provider.issuer)
        assert lives(provider, home, agent_id, token)
        assert users.of(agent_id) is not None
        with serving(Path(folder)) as second:
            step_until(second, agent_id, lambda step: step["status"] == "confirmed")
        assert not lives(provider, home, agent_id, token)
        assert users.sub_of(agent_id) is None
