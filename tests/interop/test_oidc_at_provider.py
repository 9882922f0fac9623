"""npm's oidc-provider as the provider: its own endpoint revokes what it gave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.oidc_peer import Person, oidc_provider, with_provider
from support.rogue_tenant import rogue_tenant
from support.token_vault import (
    CONNECTIONS,
    GOOGLE,
    Vaulted,
    exchange,
    recorded,
    vaulted,
)

from agentvault_tui.broker.upstream.providers import STEP
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.home import Home
from agentvault_tui.ledger import OutboxStep
from agentvault_tui.vault import AccessToken, FlowTokens, TenantClient
from agentvault_tui.vault.client import SCOPE
from agentvault_tui.vault.device import poll_once

pytestmark = with_provider


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """One provider for all tests here."""
    with oidc_provider() as provider:
        yield provider.issuer


@pytest.fixture
async def access(issuer: str) -> AsyncIterator[AccessToken]:
    """What the provider gave the tenant when a person allowed it."""
    client = TenantClient(issuer, "console", ManualClock(datetime.now(UTC)))
    flow = await client.start_device_flow(f"{SCOPE} offline_access", ttl=600)
    async with Person(issuer) as person:
        await person.approve(flow)
    found = await poll_once(client, "console", flow, openid=False)
    assert isinstance(found, FlowTokens)
    assert found.access is not None
    yield found.access
    await client.aclose()


@pytest.fixture
async def vault(tmp_path: Path, access: AccessToken) -> AsyncIterator[Vaulted]:
    """A broker whose Token Vault keeps the provider's token."""
    clock = ManualClock(datetime.now(UTC))
    async with rogue_tenant() as tenant:
        home = Home.locate(tmp_path / "home")
        bench = await Bench.open(home, clock, tenant.issuer)
        async with vaulted(bench, tenant) as vault:
            vault.answers(recorded("ok", access_token=access.token.reveal()))
            yield vault
            await bench.broker.reaching.providers.aclose()
        await bench.close()


def at(vault: Vaulted, issuer: str, revocation: str) -> None:
    """Set the endpoints as an operator would."""
    connections = {
        GOOGLE: replace(
            CONNECTIONS[GOOGLE],
            revocation_endpoint=f"{issuer}{revocation}",
            userinfo_endpoint=f"{issuer}me",
        )
    }
    vault.broker.settings = replace(vault.broker.settings, connections=connections)


async def taken(issuer: str, token: str) -> bool:
    """Tell whether the provider's API takes *token*."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        headers = {"authorization": f"Bearer {token}"}
        return (await http.get(f"{issuer}me", headers=headers)).status_code == 200


async def cut_off(vault: Vaulted) -> tuple[str, OutboxStep, bool]:
    """Let an agent have the token, and revoke it: token, step, anything outside."""
    caller = await vault.connected(connections=(GOOGLE,))
    token = (await exchange(caller)).json()["access_token"]
    assert token
    registry, outbox = vault.broker.registry, vault.broker.reaching.outbox
    await revoke_agent(vault.broker, caller.agent.id, "test", OPERATOR)
    await outbox.work()
    rows = registry.steps_of(caller.agent.id)
    outside = registry.leases.outside_until(caller.agent.id) is not None
    return token, next(row for row in rows if row.step == STEP), outside


async def test_its_endpoint_ends_the_token_and_the_grant(
    vault: Vaulted, issuer: str, access: AccessToken
) -> None:
    """Shown the token alone: it is taken no more, and neither is its refresh token."""
    assert access.refresh_token is not None
    assert await taken(issuer, access.token.reveal())
    at(vault, issuer, "holder/revoke")
    token, row, outside = await cut_off(vault)
    assert row.status == "confirmed"
    assert not await taken(issuer, token)
    assert not outside
    form = {
        "grant_type": "refresh_token",
        "client_id": "console",
        "refresh_token": access.refresh_token.reveal(),
    }
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        refused = await http.post(f"{issuer}oauth/token", data=form)
    assert refused.json()["error"] == "invalid_grant"


async def test_an_endpoint_that_wants_the_client_is_given_up_loudly(
    vault: Vaulted, issuer: str
) -> None:
    """As it comes it refuses us: a person is told, and the countdown goes on."""
    at(vault, issuer, "oauth/revoke")
    token, row, outside = await cut_off(vault)
    assert row.status == "failed"
    assert "by hand" in (row.problem or "")
    assert await taken(issuer, token)
    assert outside
