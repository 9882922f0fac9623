"""One vault user, several accounts at one provider: nobody's is used for another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.agents_http import Caller, Live
from support.connecting import WORKSPACE, Office, caller
from support.tenant_admin import Person
from support.token_vault import exchange

from agentvault_tui.broker.vault_access import Flow
from agentvault_tui.errors import ConflictError, TenantError
from agentvault_tui.model import Account
from agentvault_tui.vault import MyAccountApi


async def connect(
    office: Office, agent: Caller, user: Person, owner: Person
) -> Account:
    """Sign *user* in, if that is asked; then *owner* allows their own account."""
    reached: Flow | Account = await office.begin(agent.agent, "calendar.read")
    while isinstance(reached, Flow):
        who = user if "/authorize" in reached.at.page else owner
        reached = await office.proceed(reached, await office.visit(reached, who))
    return reached


async def owner_of_token(office: Office, agent: Caller) -> Any:
    """Return whose account the agent's token is for, asked of the provider."""
    office.broker.registry.provider_tokens.drop(agent.agent.id)
    answer = await exchange(agent, WORKSPACE)
    assert answer.status_code == 200, answer.text
    return office.provider_says(answer.json()["access_token"])["sub"]


@pytest.mark.slow
async def test_another_persons_account_is_not_slipped_under_an_agents(
    office: Office, live: Live
) -> None:
    """Token Vault would give it to all who have that vault user: it is taken back."""
    first, second = await caller(live), await caller(live)
    ursula, mallory = office.person(), office.person()
    account = await connect(office, first, ursula, ursula)
    with pytest.raises(ConflictError, match=first.agent.name):
        await connect(office, second, ursula, mallory)
    assert office.accounts_at_tenant(account.user) == [account.id]
    assert await owner_of_token(office, first) == ursula.name
    assert (await exchange(second, WORKSPACE)).status_code == 401
    shared = await connect(office, second, ursula, ursula)
    assert shared.id == account.id
    assert await owner_of_token(office, second) == ursula.name


@pytest.mark.slow
async def test_an_account_that_cannot_be_taken_back_serves_nobody(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is deleted at the tenant, which is asked for anew, all stay closed."""
    first, second = await caller(live), await caller(live)
    ursula, mallory = office.person(), office.person()
    account = await connect(office, first, ursula, ursula)

    async def away(*_: Any) -> bool:
        raise TenantError("the tenant is away")

    with monkeypatch.context() as patched:
        patched.setattr(MyAccountApi, "disconnect", away)
        with pytest.raises(TenantError):
            await connect(office, second, ursula, mallory)
    for agent in (first, second):
        assert (await exchange(agent, WORKSPACE)).status_code == 401
    (closed,) = office.broker.registry.accounts.of(second.agent.id)
    assert closed.removing
    assert closed in (await office.bench.ledger.load()).accounts
    event = (await office.bench.events("connection.removed"))[-1]
    assert event.detail["at_tenant"] == "pending"
    await office.cut(second.agent)
    assert office.accounts_at_tenant(account.user) == [account.id]
    assert await owner_of_token(office, first) == ursula.name


@pytest.mark.slow
async def test_no_exchange_slips_in_while_it_is_taken_back(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while the other account is there waits, and gets their own."""
    first, second = await caller(live), await caller(live)
    ursula, mallory = office.person(), office.person()
    await connect(office, first, ursula, ursula)
    asked: list[asyncio.Task[Any]] = []
    disconnect = MyAccountApi.disconnect

    async def slowly(accounts: MyAccountApi, key: str) -> bool:
        asked.append(asyncio.create_task(owner_of_token(office, first)))
        await office.bench.until(
            lambda: bool(
                office.broker.reaching.vault._turns[first.agent.id, WORKSPACE]._waiters
            )
        )
        return await disconnect(accounts, key)

    monkeypatch.setattr(MyAccountApi, "disconnect", slowly)
    with pytest.raises(ConflictError):
        await connect(office, second, ursula, mallory)
    assert await asked[0] == ursula.name


@pytest.mark.slow
async def test_what_is_connected_in_the_place_of_another_leaves_none_behind(
    office: Office, live: Live
) -> None:
    """The one before is deleted at the tenant: a revocation would not know of it."""
    agent = await caller(live)
    ursula, other = office.person(), office.person()
    before = await connect(office, agent, ursula, ursula)
    after = await connect(office, agent, ursula, other)
    assert office.accounts_at_tenant(after.user) == [after.id]
    (event,) = await office.bench.events("connection.removed")
    assert (event.detail["account"], event.detail["at_tenant"]) == (
        before.id,
        "deleted",
    )
    await office.cut(agent.agent)
    assert office.steps(agent.agent)["connected accounts"] == "confirmed"
    assert office.accounts_at_tenant(after.user) == []


@pytest.mark.slow
async def test_the_same_persons_account_under_another_id_is_the_same(
    office: Office, live: Live
) -> None:
    """A tenant may name it anew each time: who shares it is not shut out by that."""
    first, second = await caller(live), await caller(live)
    ursula = office.person()
    account = await connect(office, first, ursula, ursula)
    accounts = office.broker.registry.accounts
    accounts.put(replace(account, id="cac_of_yesterday"))
    shared = await connect(office, second, ursula, ursula)
    assert shared.provider_user == ursula.name
    assert accounts.sharing(shared) == (first.agent.id,)
    for agent in (first, second):
        assert await owner_of_token(office, agent) == ursula.name
