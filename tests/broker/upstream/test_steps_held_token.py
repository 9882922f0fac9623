"""The refresh token kept here ends at the tenant, and only then is it kept no more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR
from support.upstream import Site

from agentvault_tui.broker.shapes import agent_info, step_info
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.upstream.access import Tried
from agentvault_tui.broker.usecases import disconnect as sign_out
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.broker.vault_access import VaultUser
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import Agent
from agentvault_tui.vault import ClientSecret, Secret

STEP = "held refresh token"
BY_MANAGEMENT = ("vault grant", "refresh tokens", "client secret")


def problem(site: Site, agent: Agent, step: str = STEP) -> str:
    """Return why the step is not done."""
    told = agent_info(agent, site.bench.broker.registry).upstream
    return str(next(row.problem for row in told if row.step == step))


def kept(site: Site, agent: Agent) -> VaultUser | None:
    return site.bench.broker.reaching.vault.users.of(agent.id)


def without_credential(site: Site) -> None:
    """Leave the broker nothing to administer the tenant with."""
    site.bench.broker.reaching.access.given = None


@pytest.mark.slow
async def test_the_held_token_is_revoked_without_a_management_credential(
    site: Site,
) -> None:
    """The token is dead there and forgotten here; the rest says at once what it lacks.

    The account, which its user deletes with that token, goes before it.
    """
    agent, there, token = await site.agent()
    without_credential(site)
    cut = await revoke_agent(site.bench.broker, agent.id, "", OPERATOR)
    told = {step.step: step_info(step).reason for step in cut.steps}
    assert {step for step, reason in told.items() if reason} == set(BY_MANAGEMENT)
    await site.work()
    assert site.steps(agent)[STEP] == "confirmed"
    assert site.steps(agent)["connected accounts"] == "confirmed"
    assert there.refresh(token).json()["error"] == "invalid_grant"
    assert kept(site, agent) is None
    for step in BY_MANAGEMENT:
        assert site.steps(agent)[step] == "failed"
        assert "no Management API credential" in problem(site, agent, step)
    assert any("no Management API credential" in w for w in warnings(site.bench.broker))
    reasons = {e.reason for e in await site.bench.events("upstream.revocation")}
    assert any("no Management API credential" in str(reason) for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_lacked_a_credential_is_done_once_there_is_one(
    site: Site, *, restarted: bool
) -> None:
    """`auth0 apply` makes one days later: the steps are begun anew and confirmed."""
    agent, _, _ = await site.agent()
    without_credential(site)
    await site.revoke(agent)
    await site.work()
    site.clock.advance(3 * 86_400)
    if restarted:
        await site.restart()
    else:
        run = site.tenant.run
        secret = Secret(run.management_secret)
        site.bench.broker.reaching.access.given = ClientSecret(
            run.management_id, secret
        )
    await site.work()
    assert {site.steps(agent)[step] for step in BY_MANAGEMENT} == {"confirmed"}
    assert warnings(site.bench.broker) == []


@pytest.mark.slow
async def test_a_restore_takes_back_what_was_never_tried(site: Site) -> None:
    """The grant was not taken: nothing is given back, and nobody is warned any more."""
    agent, _, _ = await site.agent()
    without_credential(site)
    await site.revoke(agent)
    await site.work()
    await restore_agent(site.bench.broker, agent.id, OPERATOR)
    await site.work()
    assert {site.steps(agent)[step] for step in BY_MANAGEMENT} == {"withdrawn"}
    assert site.steps(agent)["vault grant back"] == "withdrawn"
    assert warnings(site.bench.broker) == []


async def test_an_account_that_may_not_be_deleted_keeps_no_token_alive(
    site: Site,
) -> None:
    """A no is told as one, at once; only an outage is worth a few minutes' wait."""
    agent, there, token = await site.agent()
    without_credential(site)

    async def refused(*_: Any) -> Tried:
        raise TenantRefusedError("insufficient_scope", "the tenant would not")

    site.bench.broker.reaching.access.holdings.disconnect = refused
    await site.revoke(agent)
    await site.work()
    assert site.steps(agent)["connected accounts"] == "failed"
    told = problem(site, agent, "connected accounts")
    assert told == "workspace stays: the tenant would not"
    assert site.steps(agent)[STEP] == "confirmed"
    assert there.refresh(token).json()["error"] == "invalid_grant"


async def test_an_endpoint_that_is_down_is_asked_again_after_a_restart(
    site: Site,
) -> None:
    """The row and the sealed token outlive the broker; then both are done with."""
    agent, there, token = await site.agent()
    await site.revoke(agent)
    site.fault(status=503, paths=("/oauth/revoke",))
    await site.work()
    assert site.steps(agent)[STEP] == "pending"
    assert "503" in problem(site, agent)
    assert kept(site, agent) is not None
    await site.restart()
    assert site.steps(agent)[STEP] == "pending"
    site.clock.advance(400)
    await site.work()
    assert site.steps(agent)[STEP] == "confirmed"
    assert kept(site, agent) is None
    secret = site.bench.broker.reaching.vault.clients.secret(f"agents/{agent.id}")
    there.client["client_secret"] = secret.reveal()
    assert there.refresh(token).json()["error"] == "invalid_grant"


@pytest.mark.slow
async def test_a_yes_of_the_endpoint_is_not_taken_for_the_truth(site: Site) -> None:
    """A page that says 200 to everything ends nothing: the token is tried, and kept."""
    agent, _, _ = await site.agent()
    without_credential(site)
    await site.revoke(agent)
    site.fault(garbage=True, paths=("/oauth/revoke",))
    await site.work()
    assert site.steps(agent)[STEP] == "pending"
    assert problem(site, agent) == "accepted, and not true yet"
    assert kept(site, agent) is not None
    site.fault()
    site.clock.advance(400)
    await site.work()
    assert site.steps(agent)[STEP] == "confirmed"
    assert kept(site, agent) is None


@pytest.mark.slow
async def test_a_doubt_whether_it_is_dead_keeps_it(site: Site) -> None:
    """Revoked, and nobody can say so: told as not done, and kept to be shown again."""
    agent, _, _ = await site.agent()
    await site.revoke(agent)
    site.fault(status=503, paths=("/oauth/token",))
    await site.work()
    site.fault()
    assert site.steps(agent)[STEP] == "pending"
    assert kept(site, agent) is not None
    site.clock.advance(400)
    await site.work()
    assert site.steps(agent)[STEP] == "confirmed"
    assert kept(site, agent) is None


async def test_a_token_of_another_client_is_not_called_dead(site: Site) -> None:
    """Only the client it was issued to can end it; of another's it seems unknown."""
    agent, _, _ = await site.agent()
    users = site.bench.broker.reaching.vault.users
    user = kept(site, agent)
    assert user is not None
    users.keep(agent.id, replace(user, client_id="app-of-before"))
    await site.revoke(agent)
    await site.work()
    assert site.steps(agent)[STEP] == "failed"
    assert "app-of-before" in problem(site, agent)
    assert kept(site, agent) is not None


async def test_one_that_was_rotated_is_kept_in_its_place(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tenant rotates tokens, the one that lives is shown the next time."""
    agent, _, _ = await site.agent()

    async def rotated(*_: Any) -> Secret:
        return Secret("v1.next")

    monkeypatch.setattr(sign_out, "probe_refresh_token", rotated)
    await site.revoke(agent)
    await site.work()
    assert site.steps(agent)[STEP] == "pending"
    user = kept(site, agent)
    assert user is not None
    assert user.refresh_token.reveal() == "v1.next"


async def test_a_sign_in_after_a_restore_is_not_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation that ends late forgets the token it ended, and no later one."""
    agent, _, _ = await site.agent()
    await site.revoke(agent)
    reached, go_on = asyncio.Event(), asyncio.Event()
    probe_refresh_token = sign_out.probe_refresh_token

    async def slowly(*args: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await probe_refresh_token(*args)

    monkeypatch.setattr(sign_out, "probe_refresh_token", slowly)
    working = asyncio.create_task(site.work())
    await reached.wait()
    await restore_agent(site.bench.broker, agent.id, OPERATOR)
    later = VaultUser("auth0|later", "Later", Secret("v1.later"))
    site.bench.broker.reaching.vault.users.keep(agent.id, later)
    go_on.set()
    await working
    user = kept(site, agent)
    assert user is not None
    assert user.refresh_token.reveal() == "v1.later"


async def test_another_token_is_none_of_its_business(site: Site) -> None:
    """One agent's is ended, and another agent's of the same tenant is not."""
    agent, _, _ = await site.agent()
    other, there, token = await site.agent()
    await site.revoke(agent)
    await site.work()
    assert kept(site, other) is not None
    assert there.refresh(token).status_code == 200


async def test_the_order_in_which_steps_are_told_is_the_kill_order(site: Site) -> None:
    """However often one is tried, and after a restart, none changes its place."""
    agent, _, _ = await site.agent()
    await site.revoke(agent)

    def order() -> list[str]:
        told = agent_info(agent, site.bench.broker.registry).upstream
        return [row.step for row in told]

    before = order()
    assert before == [
        "vault grant",
        "connected accounts",
        STEP,
        "refresh tokens",
        "client secret",
        "vault grant back",
    ]
    site.fault(status=503, paths=("/oauth/revoke",))
    await site.work()
    assert order() == before
    assert list(site.steps(agent)) == before
    await site.restart()
    assert order() == before
    site.clock.advance(400)
    await site.work()
    assert order() == before
