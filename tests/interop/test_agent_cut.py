"""An agent on Auth0's SDK at the embedded tenant, cut off, as another SDK sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from auth0_double.running import TenantThread
from support.agents_http import Caller, live_broker
from support.bench import OPERATOR
from support.connecting import Office, caller
from support.peers import MANAGEMENT, Peer, peer, with_python
from support.sdk_agents import SDKS, sdk_agent
from support.tenant_admin import Admin
from support.tls_front import tls_front, trusted

from agentvault_tui.broker.upstream.tenant_log import TenantLog
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.home import Home
from agentvault_tui.vault.credentials import VAULT_GRANT

pytestmark = with_python("auth0", MANAGEMENT)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """One tenant for all tests here."""
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("tenant") / "home"))
    yield Admin(running)
    running.close()


@pytest.fixture
async def office(admin: Admin, tmp_path: Path) -> AsyncIterator[Office]:
    """A broker whose tenant it is."""
    office = await Office.open(admin, Home.locate(tmp_path / "home"))
    yield office
    await office.close()


def follower(office: Office) -> TenantLog:
    """Return what reads the tenant's log into the audit."""
    broker = office.broker
    return TenantLog(
        broker.clock, office.tenant.issuer, broker.reaching.access, broker.record
    )


@asynccontextmanager
async def watched(office: Office, agent: Caller) -> AsyncIterator[Peer]:
    """Run an administrator who knows the agent's own credentials there."""
    run, vault, agent_id = (
        office.tenant.run,
        office.broker.reaching.vault,
        agent.agent.id,
    )
    user = vault.users.of(agent_id)
    assert user is not None
    _, _, env = trusted(office.tenant.home)
    async with tls_front(office.tenant.home, office.tenant.issuer) as domain:
        given = {
            "domain": domain,
            "management_id": run.management_id,
            "management_secret": run.management_secret,
            "audience": f"{office.tenant.issuer}api/v2/",
            "client_id": vault.clients.client_id(f"agents/{agent_id}"),
            "client_secret": vault.clients.secret(f"agents/{agent_id}").reveal(),
            "user_id": user.sub,
            "refresh_token": user.refresh_token.reveal(),
        }
        async with peer("observer.py", given, python=MANAGEMENT, **env) as observer:
            yield observer


async def audited(office: Office) -> dict[str, Any]:
    """Return the tenant's rows in our audit, as their ids and what they are."""
    events = await office.bench.events("tenant.log")
    return {event.detail["log_id"]: event.action for event in events}


@pytest.mark.parametrize("sdk", SDKS)
async def test_from_a_connected_account_to_nothing_left(
    office: Office, sdk: str
) -> None:
    """The SDK has the provider's token; cut, it has none, and the tenant nothing.

    The rows of the tenant's log that an administrator reads stand in the audit, by
    their ids: the exchange, the ended tokens, and no row twice.
    """
    tls, trust = None, None
    if sdk == "node":
        tls, trust, _ = trusted(office.bench.home)
    log = follower(office)
    await log.read()
    async with live_broker(office.bench, tls=tls, verify=trust or True) as live:
        agent = await caller(live)
        await office.connect(agent.agent, office.person(), "calendar.read")
        async with sdk_agent(sdk, live, agent) as program:
            given = await program.told("workspace")
            says = office.provider_says(given["result"])
            assert says["active"] is True
            async with watched(office, agent) as observer:
                before = await observer.told("look")
                await log.read()
                await revoke_agent(office.broker, agent.agent.id, "", OPERATOR)
                while await office.broker.reaching.outbox.work():
                    pass
                after = await observer.told("look")
                await log.read()
            refused = await program.told("workspace-anew")
    assert refused["code"] == "TOKEN_VAULT_ERROR"
    assert VAULT_GRANT in before["grants"]
    assert len(before["accounts"]) == len(before["refresh tokens"]) == 1
    assert before["refreshed"]["token_type"] == "Bearer"
    assert "seta" in before["logs"].values()
    assert VAULT_GRANT not in after["grants"]
    assert after["accounts"] == after["refresh tokens"] == []
    # The secret was rotated: whoever copied it is not even a client.
    assert after["refreshed"]["raised"] == "invalid_client"
    kept = await audited(office)
    assert before["logs"].items() <= kept.items()
