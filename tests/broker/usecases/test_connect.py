"""An account is connected for an agent, at the embedded tenant, and then used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents_http import Live
from support.bench import OPERATOR
from support.connecting import BACK, WORKSPACE, Office, caller
from support.stepups import Gate
from support.tenant_admin import query_of
from support.token_vault import exchange

from agentvault_tui.broker.usecases.connect import _answer
from agentvault_tui.broker.usecases.disconnect import disconnect
from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.broker.vault_access import Flow
from agentvault_tui.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    TenantError,
    UsageError,
)
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import Account, EventType
from agentvault_tui.vault import SigningIn


@pytest.mark.slow
async def test_from_two_pages_to_a_provider_token(office: Office, live: Live) -> None:
    """Signed in and allowed, the agent's exchange gives what the provider made."""
    agent = await caller(live)
    person = office.person("ursula")
    flow = await office.begin(agent.agent, "calendar.read", "calendar.write")
    assert isinstance(flow.at, SigningIn)
    assert query_of(flow.at.page)["prompt"] == "login"
    flow = await office.proceed(flow, await office.visit(flow, person))
    assert isinstance(flow, Flow)
    assert flow.consent is not None
    account = await office.proceed(flow, await office.visit(flow, person))
    assert isinstance(account, Account)
    assert account.scopes == ("calendar.read", "calendar.write")
    assert account.id.startswith("cac_")
    given = await exchange(agent, WORKSPACE)
    assert given.status_code == 200, given.text
    body = given.json()
    assert body["scope"] == "calendar.read calendar.write"
    assert body["expires_in"] == 60
    said = office.provider_says(body["access_token"])
    assert said["active"] is True
    assert said["scope"] == "calendar.read calendar.write"
    (added,) = await office.bench.events("connection.added")
    assert added.detail["account"] == account.id
    assert added.detail["provider_scopes"] == ["calendar.read", "calendar.write"]


async def test_an_agents_own_client_has_the_connection_asked_for_alone(
    office: Office, live: Live
) -> None:
    """Nothing else is read, made or changed: no role, Action, factor or setting."""
    agent = await caller(live)
    before = office.admin.call("GET", "tenants/settings").json()
    await office.begin(agent.agent, "calendar.read")
    client_id = office.broker.reaching.vault.credential(agent.agent.id).client_id
    path = f"clients/{client_id}/connections"
    listed = office.admin.call("GET", path).json()["connections"]
    assert [one["name"] for one in listed] == [WORKSPACE]
    assert office.admin.call("GET", "tenants/settings").json() == before
    assert office.admin.call("GET", "roles").json() == []


async def test_the_vault_users_token_is_nowhere_in_clear(
    office: Office, live: Live
) -> None:
    """Sealed, in one file of its owner's alone, and in nothing else of the home."""
    agent = await caller(live)
    await office.connect(agent.agent, office.person())
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    token = user.refresh_token.reveal().encode()
    assert token.decode() not in repr(user)
    await office.bench.events()
    for path in office.bench.home.data.rglob("*"):
        if path.is_file():
            assert token not in path.read_bytes(), path


@pytest.mark.slow
async def test_a_second_account_takes_no_second_sign_in(
    office: Office, live: Live
) -> None:
    """The vault user is known, so only the consent is left."""
    agent, person = await caller(live), office.person()
    first = await office.connect(agent.agent, person)
    flow = await office.begin(agent.agent, "calendar.read")
    assert flow.consent is not None
    again = await office.proceed(flow, await office.visit(flow, person))
    assert isinstance(again, Account)
    assert again.user == first.user


async def test_a_sign_in_the_tenant_has_ended_is_asked_for_again(
    office: Office, live: Live
) -> None:
    """Where the kept refresh token is worth nothing any more, the first page comes."""
    agent, person = await caller(live), office.person()
    await office.connect(agent.agent, person)
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    client = office.broker.reaching.vault.credential(agent.agent.id)
    office.tenant.post(
        "oauth/revoke",
        token=user.refresh_token.reveal(),
        client_id=client.client_id,
        client_secret=client.secret.reveal(),
    )
    refused = await exchange(agent, WORKSPACE)
    assert refused.status_code == 401
    flow = await office.begin(agent.agent)
    assert isinstance(flow.at, SigningIn)


NOT_THIS_PAGES = (
    "",
    "rubbish",
    BACK,
    f"{BACK}?code=x",
    f"{BACK}?code=x&state=another",
    f"{BACK}?error=access_denied&state=another",
    f"{BACK}?code=x&state=a&state=b",
    "\u202e" * 50,
    "http://[::1?code=x&state=y",
)


async def test_an_address_that_is_not_this_pages_ends_nothing(
    office: Office, live: Live
) -> None:
    """Anyone can call a loopback address; the flow goes on as if nobody had."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    for address in NOT_THIS_PAGES:
        with pytest.raises(UsageError, match="not the address"):
            await office.proceed(flow, address)
    reached = await office.proceed(flow, await office.visit(flow, person))
    assert isinstance(reached, Flow)


@given(st.text(max_size=300))
def test_any_text_is_an_answer_or_none(address: str) -> None:
    """Whatever is pasted is read without a fault, and no name stands twice."""
    answer = _answer(address)
    assert all(isinstance(value, str) for value in answer.values())


async def test_a_query_alone_is_taken_as_well(office: Office, live: Live) -> None:
    """People paste what they can get hold of."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    assert isinstance(await office.proceed(flow, address.partition("?")[2]), Flow)


async def test_a_no_at_the_page_ends_the_flow(office: Office, live: Live) -> None:
    """The person's no is told in the tenant's words, made displayable."""
    agent = await caller(live)
    flow = await office.begin(agent.agent)
    said = {"error": "access_denied", "error_description": "\x1b[31mno"}
    address = f"{BACK}?{urlencode({**said, 'state': flow.at.state})}"
    with pytest.raises(RefusedError, match="access_denied") as raised:
        await office.proceed(flow, address)
    assert "\x1b" not in raised.value.diagnosis()
    with pytest.raises(NotFoundError):
        await office.proceed(flow, address)


async def test_an_answer_of_another_tenants_ends_the_flow(
    office: Office, live: Live
) -> None:
    """RFC 9207: whoever names another issuer has mixed us up; no code is spent."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    other = urlencode({"iss": "https://evil.test/"})
    with pytest.raises(RefusedError, match="another tenant"):
        await office.proceed(flow, f"{address}&{other}")
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None
    flow = await office.begin(agent.agent)
    ours = urlencode({"iss": office.tenant.issuer})
    address = f"{await office.visit(flow, person)}&{ours}"
    assert isinstance(await office.proceed(flow, address), Flow)


async def test_a_code_counts_once(office: Office, live: Live) -> None:
    """The same address a second time leads nowhere."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    await office.proceed(flow, address)
    with pytest.raises(NotFoundError):
        await office.proceed(flow, address)


async def test_time_to_sign_in_ends(office: Office, live: Live) -> None:
    """What was begun ten minutes ago is begun again."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    office.tenant.clock.advance(601)
    with pytest.raises(NotFoundError):
        await office.proceed(flow, address)


async def test_someone_else_cannot_become_the_vault_user(
    office: Office, live: Live
) -> None:
    """While accounts are connected, the agent's vault user stays who it is."""
    agent, person = await caller(live), office.person()
    await office.connect(agent.agent, person)
    office.broker.reaching.vault.users.forget(agent.agent.id)
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, office.person("mallory"))
    with pytest.raises(ConflictError, match="mallory"):
        await office.proceed(flow, address)
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None


async def test_what_cannot_lead_anywhere_is_refused_at_once(
    office: Office, live: Live
) -> None:
    """A connection nobody described, an address elsewhere, an agent that is cut off."""
    agent = await caller(live)
    for changes in (
        {"connection": "workspaec"},
        {"redirect_uri": "http://evil.test/callback"},
        {"redirect_uri": "https://127.0.0.1:7719/callback"},
        {"redirect_uri": "http://127.0.0.1:7719/callback?x=1"},
        {"redirect_uri": "http://[::1/callback"},
        {"redirect_uri": "http://127.0.0.1@evil.test/callback"},
        {"scopes": ("",)},
        {"scopes": ("x",) * 101},
    ):
        with pytest.raises(UsageError):
            await office.begin(agent.agent, **changes)
    await office.revoke(agent.agent)
    with pytest.raises(ConflictError):
        await office.begin(agent.agent)


async def test_nothing_is_connected_while_everything_is_stopped(
    office: Office, live: Live
) -> None:
    """A panic between the two pages lets the second lead nowhere."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    await panic(office.broker, "drill", OPERATOR)
    with pytest.raises(ConflictError):
        await office.proceed(flow, address)


async def test_a_revocation_while_it_is_recorded_wins(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked while the connection is being recorded, the agent has no account."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    flow = await office.proceed(flow, await office.visit(flow, person))
    assert isinstance(flow, Flow)
    address = await office.visit(flow, person)
    gate = Gate(office.bench, monkeypatch, EventType.CONNECTION_ADDED)
    connecting = asyncio.create_task(office.proceed(flow, address))
    await gate.reached.wait()
    await office.revoke(agent.agent)
    gate.open.set()
    with pytest.raises(ConflictError):
        await connecting
    assert office.broker.registry.accounts.of(agent.agent.id) == ()
    assert (await office.bench.ledger.load()).accounts == ()
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    there = office.admin.call("GET", f"users/{user.sub}/connected-accounts").json()
    assert there["connected_accounts"] == []


@pytest.mark.slow
async def test_a_token_under_way_is_not_given_once_it_is_connected_anew(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was decided about the account before; the next request has the new one."""
    agent, person = await caller(live), office.person()
    await office.connect(agent.agent, person, "calendar.read")
    gate = Gate(office.bench, monkeypatch, EventType.TOKEN_EXCHANGED)
    asking = asyncio.create_task(exchange(agent, WORKSPACE))
    await gate.reached.wait()
    await office.connect(agent.agent, person, "calendar.read", "calendar.write")
    gate.open.set()
    assert (await asking).json()["error"] == "access_denied"
    given = (await exchange(agent, WORKSPACE)).json()
    assert given["scope"] == "calendar.read calendar.write"


@pytest.mark.slow
async def test_a_removal_while_it_is_recorded_stays_a_removal(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator was told is closed here is closed on disk as well."""
    agent, person = await caller(live), office.person()
    await office.connect(agent.agent, person)
    flow = await office.begin(agent.agent, "calendar.read")
    address = await office.visit(flow, person)
    gate = Gate(office.bench, monkeypatch, EventType.CONNECTION_ADDED)
    connecting = asyncio.create_task(office.proceed(flow, address))
    await gate.reached.wait()
    office.fault(status=503)
    with pytest.raises(TenantError):
        await disconnect(
            office.broker, agent.agent.id, WORKSPACE, OPERATOR, shared=False
        )
    gate.open.set()
    with pytest.raises(ConflictError):
        await connecting
    (account,) = (await office.bench.ledger.load()).accounts
    assert account.removing


async def test_a_vault_user_without_an_account_is_cut_too(
    office: Office, live: Live
) -> None:
    """Signed in and no further: the refresh token that came of it ends as well."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    await office.proceed(flow, await office.visit(flow, person))
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    await office.revoke(agent.agent)
    steps = office.broker.registry.steps_of(agent.agent.id)
    (step,) = [step for step in steps if step.step == "refresh tokens"]
    assert step.users == (user.sub,)


@pytest.mark.parametrize("damage", ["lost", "unreadable"])
async def test_a_vault_user_whose_token_does_not_open_is_cut_as_well(
    office: Office, live: Live, damage: str
) -> None:
    """What we cannot use any more lives on at the tenant, and is ended there."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    await office.proceed(flow, await office.visit(flow, person))
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    key = office.bench.home.keys / "vault.key"
    key.unlink()
    if damage == "unreadable":
        key.mkdir()
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None
    await office.revoke(agent.agent)
    steps = office.broker.registry.steps_of(agent.agent.id)
    (step,) = [step for step in steps if step.step == "refresh tokens"]
    assert step.users == (user.sub,)


async def test_a_sign_in_that_ends_after_a_cut_leaves_nothing(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked while the person's sign-in is verified, no refresh token is kept."""
    agent, person = await caller(live), office.person()
    flow = await office.begin(agent.agent)
    address = await office.visit(flow, person)
    verify = office.broker.reaching.tenant.verify_login

    async def slowly(*args: Any, **more: Any) -> Any:
        await office.revoke(agent.agent)
        return await verify(*args, **more)

    monkeypatch.setattr(office.broker.reaching.tenant, "verify_login", slowly)
    with pytest.raises(ConflictError):
        await office.proceed(flow, address)
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None


async def test_the_tenant_away_is_said(office: Office, live: Live) -> None:
    """A tenant that does not answer leads to an error with its words, and no flow."""
    agent = await caller(live)
    office.fault(status=503)
    with pytest.raises(TenantError):
        await office.begin(agent.agent)
    office.fault()
    assert await office.begin(agent.agent)


async def test_an_agent_without_a_client_is_told_what_makes_one(
    office: Office, live: Live
) -> None:
    """On a tenant we did not start, `auth0 apply` makes the client."""
    agent = await caller(live)
    office.broker.reaching.access.given = None
    with pytest.raises(NotFoundError, match="no application") as raised:
        await office.begin(agent.agent)
    assert raised.value.remedy == "agentvault auth0 apply"


@pytest.mark.slow
async def test_a_restart_keeps_the_connection(office: Office, live: Live) -> None:
    """Account and sealed token are there for the next process."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person())
    loaded = await office.bench.ledger.load()
    assert loaded.accounts == (account,)
    assert isinstance(office.bench.ledger, Ledger)
    moved = replace(account, user="agentvault|someone-else")
    office.broker.registry.accounts.put(moved)
    # The token kept is not that user's: nothing is exchanged for another's account.
    assert (await exchange(agent, WORKSPACE)).status_code == 401
