"""The broker's own client of Auth0 against the tenant: neither knows of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.tenant_admin import CALLBACK, PASSWORD, VAULT, Admin, Agent
from support.tenant_admin import Person as Browser

from agentvault_tui.vault import (
    Budget,
    ClientSecret,
    Management,
    MyAccountApi,
    NoToken,
    ProviderToken,
    RefreshedToken,
    Secret,
    Tenant,
    TokenVault,
)
from agentvault_tui.vault.api import Purpose
from agentvault_tui.vault.management import logs, objects, revoking
from agentvault_tui.vault.management.objects import (
    actions,
    client_grants,
    clients,
    connections,
    resource_servers,
)
from agentvault_tui.vault.my_account import SCOPES
from auth0_double.faults import Faults


class Clock:
    """The tenant's manual clock, which waiting advances: no test waits."""

    def __init__(self, admin: Admin) -> None:
        self._clock = admin.tenant.clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    async def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def tenant(admin: Admin) -> AsyncIterator[Tenant]:
    clock = Clock(admin)
    made = Tenant(admin.tenant.issuer, clock, sleep=clock.sleep)
    yield made
    await made.aclose()


@pytest.fixture
def api(tenant: Tenant, admin: Admin) -> Management:
    run = admin.tenant.run
    credential = ClientSecret(run.management_id, Secret(run.management_secret))
    budget = Budget(tenant.clock, rate=1000, burst=1000, sleep=tenant.sleep)
    return Management(tenant, credential, budget=budget)


async def test_the_vault_client_provisions_the_double(api: Management) -> None:
    """Client, API, grant, connection, Action, factor, policy: made, read, changed."""
    wanted = {"name": "provisioned", "oidc_conformant": True, "grant_types": [VAULT]}
    client, secret = await clients.register(api, wanted)
    assert secret is not None
    client_id = client["client_id"]
    assert (await clients.get(api, client_id))["name"] == "provisioned"
    assert client_id in [row["client_id"] for row in await clients.every(api)]
    rotated = await clients.rotate_secret(api, client_id)
    assert rotated.reveal() != secret.reveal()
    await api.request(
        "POST",
        "resource-servers",
        body={"identifier": "https://made.test/", "scopes": [{"value": "a"}]},
        expect=(201,),
        purpose=Purpose("make an API", "create:resource_servers"),
    )
    found_api = await resource_servers.get(api, "https://made.test/")
    assert found_api["scopes"][0]["value"] == "a"
    grant = {
        "client_id": client_id,
        "audience": "https://made.test/",
        "scope": ["a"],
        "subject_type": "user",
    }
    stored = await client_grants.create(api, grant)
    assert stored["subject_type"] == "user"
    found = await connections.every(api, name="workspace")
    await connections.set_clients(api, found[0]["id"], {client_id: True})
    assert client_id in await connections.clients(api, found[0]["id"])
    action = await actions.create(
        api,
        {
            "name": "made",
            "supported_triggers": [{"id": "post-login", "version": "v3"}],
            "code": "exports.onExecutePostLogin = async () => {};",
        },
    )
    await actions.until_built(api, action["id"])
    await actions.deploy(api, action["id"])
    await actions.bind(api, "post-login", [(action["id"], "Made")])
    assert [b["display_name"] for b in await actions.bindings(api, "post-login")] == [
        "Made"
    ]
    await objects.set_factor(api, "push-notification", enabled=True)
    assert (await objects.factors(api))["push-notification"]["enabled"] is True
    assert await objects.mfa_policies(api) == ()
    await objects.change_settings(api, {"friendly_name": "Acme"})
    assert (await objects.settings(api))["friendly_name"] == "Acme"
    assert await clients.delete(api, client_id)


async def test_the_vault_client_follows_the_log(api: Management, admin: Admin) -> None:
    """From the newest row on, each later one once, however the rows are paged."""
    start = await logs.latest(api)
    for number in range(5):
        admin.user(f"followed-{number}")
    seen, mark = [], start.resume
    while (page := await logs.after(api, mark, take=2)).rows:
        seen += [row["log_id"] for row in page.rows]
        mark = page.resume
    assert len(seen) == len(set(seen)) == 5
    assert (await logs.after(api, mark)).rows == ()


async def test_the_vault_client_connects_exchanges_and_revokes(
    tenant: Tenant, api: Management, admin: Admin
) -> None:
    """A whole life of an agent's access, with a deletion that becomes true later."""
    agent = Agent(admin, "wired-bot")
    first = Secret(agent.tokens()["refresh_token"])
    credential = ClientSecret(
        agent.client["client_id"], Secret(agent.client["client_secret"])
    )
    me = MyAccountApi(
        tenant,
        RefreshedToken(
            tenant,
            credential,
            first,
            audience=f"{tenant.issuer}me/",
            scope=" ".join(SCOPES),
        ),
        budget=Budget(tenant.clock, rate=1000, burst=1000, sleep=tenant.sleep),
    )
    begun = await me.connect("workspace", CALLBACK, ["calendar.read"])
    browser = Browser(admin.tenant, "wired-bot", PASSWORD)
    ticket = begun.page.rpartition("=")[2]
    back = await asyncio.to_thread(
        browser.allow, "connected-accounts/connect", ticket=ticket
    )
    account = await me.complete(begun, code=back["connect_code"], state=back["state"])
    assert account.connection == "workspace"
    vault = TokenVault(tenant, credential)
    token = await vault.for_refresh_token(first, "workspace")
    assert isinstance(token, ProviderToken)
    user_id = agent.user["user_id"]
    assert [one.id async for one in me.accounts()] == [account.id]
    admin.tenant.faults.set(Faults(deletion_lag=3))
    try:
        done = await revoking.revoke_refresh_tokens(
            api, user_id, agent.client["client_id"], seconds=10
        )
    finally:
        admin.tenant.faults.set(Faults())
    assert done.confirmed
    client_id = agent.client["client_id"]
    assert await revoking.user_tokens(api, user_id, client_id) == []
    ended = await vault.for_refresh_token(first, "workspace")
    assert isinstance(ended, NoToken)
    assert await me.disconnect(account.id)


@pytest.mark.parametrize(
    "faults",
    [Faults(paths=("/api/v2",), status=503, every=2), Faults(rate=2)],
    ids=["503", "429"],
)
async def test_the_vault_client_retries_faults(
    api: Management, admin: Admin, faults: Faults
) -> None:
    """Each second request fails, or 429s come: the client reads on until it has it."""
    admin.tenant.faults.set(faults)
    try:
        for _ in range(4):
            assert await clients.every(api)
    finally:
        admin.tenant.faults.set(Faults())
