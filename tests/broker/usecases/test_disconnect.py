"""An account is taken away: here at once, at the tenant when it answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.agents_http import Live
from support.bench import OPERATOR
from support.connecting import WORKSPACE, Office, caller
from support.token_vault import exchange

from agentvault_tui.broker.shapes import agent_info
from agentvault_tui.broker.usecases.connect import my_account
from agentvault_tui.broker.usecases.disconnect import disconnect
from agentvault_tui.broker.usecases.revoke import restore_agent
from agentvault_tui.errors import ConflictError, NotFoundError, TenantError
from agentvault_tui.model import Agent


async def remove(office: Office, agent: Agent, *, shared: bool = False) -> str:
    found = await disconnect(
        office.broker, agent.id, WORKSPACE, OPERATOR, shared=shared
    )
    return found.at_tenant


async def sharing(office: Office, live: Live) -> tuple[list[Agent], str]:
    """Return two agents that use one account, and whose it is at the tenant."""
    pair = [(await caller(live)).agent, (await caller(live)).agent]
    return pair, (await office.share(*pair)).user


@pytest.mark.slow
async def test_an_account_is_deleted_where_it_is_kept(
    office: Office, live: Live
) -> None:
    """Gone from the vault, and with it the sign-in; a token outside lives on, said."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person(), "calendar.read")
    token = (await exchange(agent, WORKSPACE)).json()["access_token"]
    assert office.accounts_at_tenant(account.user) == [account.id]
    removed = await disconnect(
        office.broker, agent.agent.id, WORKSPACE, OPERATOR, shared=False
    )
    assert removed.at_tenant == "deleted"
    assert removed.outside_until is not None
    assert office.provider_says(token)["active"] is True
    assert office.accounts_at_tenant(account.user) == []
    refused = await exchange(agent, WORKSPACE)
    assert refused.status_code == 401
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None
    kinds = [
        event.detail["at_tenant"]
        for event in await office.bench.events("connection.removed")
    ]
    assert kinds == ["pending", "deleted"]
    with pytest.raises(NotFoundError):
        await remove(office, agent.agent)


@pytest.mark.slow
async def test_an_account_that_is_gone_already_counts_as_deleted(
    office: Office, live: Live
) -> None:
    """Deleted by its user meanwhile, it is forgotten here as well."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person(), "calendar.read")
    user = office.broker.reaching.vault.users.of(agent.agent.id)
    assert user is not None
    assert await my_account(office.broker, account, user).disconnect(account.id)
    assert (await exchange(agent, WORKSPACE)).status_code == 401
    assert await remove(office, agent.agent) == "gone"


@pytest.mark.slow
async def test_a_shared_account_is_not_taken_unasked(
    office: Office, live: Live
) -> None:
    """Whoever removes it is told whom else it cuts; then it cuts them too."""
    first, second = await caller(live), await caller(live)
    await office.share(first.agent, second.agent)
    with pytest.raises(ConflictError, match=second.agent.name):
        await remove(office, first.agent)
    assert (await exchange(first, WORKSPACE)).status_code == 200
    assert await remove(office, first.agent, shared=True) == "deleted"
    assert (await exchange(second, WORKSPACE)).status_code == 401
    assert office.broker.registry.accounts.all() == []


async def test_a_tenant_that_is_away_keeps_nothing_open(
    office: Office, live: Live
) -> None:
    """Closed here although the tenant has not deleted it; asked again, it goes on."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person(), "calendar.read")
    assert (await exchange(agent, WORKSPACE)).status_code == 200
    office.fault(status=503)
    with pytest.raises(TenantError):
        await remove(office, agent.agent)
    assert (await exchange(agent, WORKSPACE)).status_code == 401
    kept = office.broker.registry.accounts.get(agent.agent.id, WORKSPACE)
    assert kept is not None
    assert kept.removing
    assert (await office.bench.ledger.load()).accounts == (kept,)
    office.fault()
    assert await remove(office, agent.agent) == "deleted"
    assert office.accounts_at_tenant(account.user) == []


async def test_without_the_sign_in_it_is_left_and_said(
    office: Office, live: Live
) -> None:
    """Only its user can delete an account: that nobody did is no success."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person(), "calendar.read")
    office.broker.reaching.vault.users.forget(agent.agent.id)
    assert await remove(office, agent.agent) == "left"
    assert office.accounts_at_tenant(account.user) == [account.id]
    assert office.broker.registry.accounts.of(agent.agent.id) == ()


@pytest.mark.slow
async def test_a_revocation_takes_the_account_at_the_tenant(
    office: Office, live: Live
) -> None:
    """The outbox deletes what only this agent used, and it is forgotten here."""
    agent = await caller(live)
    account = await office.connect(agent.agent, office.person(), "calendar.read")
    await office.cut(agent.agent)
    assert office.step(agent.agent, "connected accounts").status == "confirmed"
    assert office.accounts_at_tenant(account.user) == []
    assert office.broker.registry.accounts.of(agent.agent.id) == ()
    assert office.broker.reaching.vault.users.of(agent.agent.id) is None


@pytest.mark.slow
async def test_a_revocation_leaves_what_another_uses(
    office: Office, live: Live
) -> None:
    """A shared account stays: the other agent was not revoked."""
    first, second = await caller(live), await caller(live)
    await office.share(first.agent, second.agent)
    await office.cut(first.agent)
    assert (await exchange(second, WORKSPACE)).status_code == 200
    row = office.step(first.agent, "connected accounts")
    assert row.status == "left"
    assert row.problem == f"workspace stays: {second.agent.name} uses it too"
    told = [event.reason for event in await office.bench.events("upstream.revocation")]
    assert row.problem in told


@pytest.mark.slow
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_last_agent_revoked_takes_a_shared_account_with_it(
    office: Office, live: Live, last: int, *, restarted: bool
) -> None:
    """Left for as long as one agent that is served uses it, in either order."""
    pair, user = await sharing(office, live)
    first, second = pair[1 - last], pair[last]
    await office.cut(first)
    assert office.steps(first)["connected accounts"] == "left"
    assert office.accounts_at_tenant(user)
    assert agent_info(second, office.broker.registry).shared_with == ()
    if restarted:
        await office.restart()
    await office.revoke(second)
    if restarted:
        await office.restart()
    await office.work()
    assert office.accounts_at_tenant(user) == []
    assert office.broker.registry.accounts.all() == []
    assert (await office.bench.ledger.load()).accounts == ()
    for agent in (first, second):
        assert office.steps(agent)["connected accounts"] == "confirmed"
        assert office.broker.reaching.vault.users.of(agent.id) is None


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("restarted", [False, True])
async def test_two_revoked_at_once_leave_no_shared_account(
    office: Office, live: Live, order: tuple[int, int], *, restarted: bool
) -> None:
    """Nobody is served by it any more, whichever step is done first."""
    pair, user = await sharing(office, live)
    for number in order:
        await office.revoke(pair[number])
    if restarted:
        await office.restart()
    await office.work()
    assert office.accounts_at_tenant(user) == []
    assert office.broker.registry.accounts.all() == []
    for agent in pair:
        assert office.steps(agent)["connected accounts"] == "confirmed"
        assert office.steps(agent)["held refresh token"] == "confirmed"


@pytest.mark.slow
async def test_one_restored_before_the_step_keeps_the_account(
    office: Office, live: Live
) -> None:
    """Looked at when it is done, not when it was decided: who is served keeps it."""
    pair, user = await sharing(office, live)
    for agent in pair:
        await office.revoke(agent)
    await restore_agent(office.broker, pair[0].id, OPERATOR)
    await office.work()
    assert office.accounts_at_tenant(user)
    assert office.steps(pair[1])["connected accounts"] == "left"
    assert office.broker.registry.accounts.of(pair[0].id)


@pytest.mark.slow
async def test_one_account_that_cannot_be_deleted_holds_no_other_up(
    office: Office, live: Live
) -> None:
    """The step is not done, and says which is left; what could be deleted is."""
    agent = (await caller(live)).agent
    account = await office.connect(agent, office.person())
    strangers = replace(account, connection="a-bank", user="agentvault|someone-else")
    office.broker.registry.accounts.put(replace(strangers, since=account.since))
    await office.cut(agent)
    row = office.step(agent, "connected accounts")
    assert (row.status, office.accounts_at_tenant(account.user)) == ("failed", [])
    assert str(row.problem).startswith("a-bank stays: only its user can delete it")


@pytest.mark.slow
async def test_a_step_looks_again_before_it_deletes(office: Office, live: Live) -> None:
    """Restored, or shared since it was planned: the account stays at the tenant."""
    first, second = await caller(live), await caller(live)
    person = office.person()
    account = await office.connect(first.agent, person, "calendar.read")
    known = office.broker.reaching.access.holdings
    held = known.of(first.agent.id)
    assert held is not None
    (planned,) = held.accounts
    assert not any(office.broker.registry.accounts.in_use(planned))
    served = await known.disconnect(planned)
    assert (served.problem, served.over) == ("the agent is served again", None)
    assert office.accounts_at_tenant(account.user) == [account.id]
    await office.connect(second.agent, person, "calendar.read")
    await office.revoke(first.agent)
    left = await known.disconnect(planned)
    assert left.over == "left"
    assert second.agent.name in str(left.problem)
    assert (await exchange(second, WORKSPACE)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("back_after", [30, 3600])
async def test_a_cut_gives_accounts_their_few_minutes(
    office: Office, live: Live, back_after: int
) -> None:
    """They go as their user: the refresh token ends after them, or minutes later.

    The client's grant and secret do not wait for either.
    """
    agent = (await caller(live)).agent
    account = await office.connect(agent, office.person(), "calendar.read")
    office.fault(paths=("/me/v1",), status=503)
    await office.revoke(agent)
    passed = 0
    while passed < back_after:
        await office.work()
        assert office.steps(agent)["vault grant"] == "confirmed"
        assert office.steps(agent)["client secret"] == "confirmed"
        for step in ("held refresh token", "refresh tokens"):
            waits = office.steps(agent)[step] == "pending"
            assert waits is (passed < 300)
        office.bench.clock.advance(10)
        passed += 10
    office.fault()
    office.bench.clock.advance(300)
    await office.work()
    ended = office.steps(agent)
    assert ended["refresh tokens"] == "confirmed"
    late = back_after > 300
    assert ended["held refresh token"] == "confirmed"
    # Its user's sign-in has ended: nobody here can delete it, and that is said.
    assert ended["connected accounts"] == ("failed" if late else "confirmed")
    assert office.accounts_at_tenant(account.user) == ([account.id] if late else [])
