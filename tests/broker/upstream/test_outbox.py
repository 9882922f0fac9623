"""A revocation reaches the tenant: in order, durable, and told as it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from support.bench import OPERATOR
from support.upstream import Site

from agentvault_tui.broker.shapes import agent_info
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.upstream import Outbox
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.ledger import OutboxStep
from agentvault_tui.vault import ClientSecret, Secret
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.management import logs
from agentvault_tui.vault.provision.desired import MANAGEMENT_SCOPES

CUT = [
    "vault grant",
    "connected accounts",
    "held refresh token",
    "refresh tokens",
    "client secret",
]


@pytest.mark.slow
async def test_what_an_agent_has_at_the_tenant_ends(site: Site) -> None:
    """Grant, account, refresh tokens and secret are gone there, each seen to be."""
    agent, there, token = await site.agent()
    told = agent_info(agent, site.bench.broker.registry)
    assert list(told.at_tenant) == CUT
    await site.revoke(agent)
    assert list(site.steps(agent))[:-1] == CUT
    await site.work()
    assert {site.steps(agent)[step] for step in CUT} == {"confirmed"}
    assert [account.id for account in site.disconnected] == ["cac_1"]
    # The old secret is dead, and with the new one there is no grant and no token.
    assert there.refresh(token).json()["error"] == "invalid_client"
    kept = ClientSecretsFile(site.home, site.tenant.issuer)
    there.client["client_secret"] = kept.secret(f"agents/{agent.id}").reveal()
    assert there.refresh(token).json()["error"] == "invalid_grant"
    assert there.exchange(token).json()["error"] == "unauthorized_client"
    events = await site.bench.events("upstream.revocation")
    assert [event.detail["step"] for event in events] == CUT
    assert {event.detail["status"] for event in events} == {"confirmed"}
    assert {event.reason for event in events} == {"confirmed"}
    told = agent_info(agent, site.bench.broker.registry)
    done = [step for step in told.upstream if step.status == "confirmed"]
    assert all(step.ms is not None and step.ms >= 0 for step in done)


@pytest.mark.slow
async def test_the_scopes_that_apply_gives_the_broker_are_enough(site: Site) -> None:
    """Every step, and the tenant's log, by a client that may do nothing else."""
    agent, _, _ = await site.agent()
    found = site.admin.management_client(MANAGEMENT_SCOPES)
    secret = Secret(found["client_secret"])
    site.bench.broker.reaching.access.given = ClientSecret(found["client_id"], secret)
    await site.revoke(agent)
    await site.work()
    assert {site.steps(agent)[step] for step in CUT} == {"confirmed"}
    management = site.bench.broker.reaching.access.management
    assert management is not None
    assert (await logs.latest(management)).rows
    assert await management.scopes() == set(MANAGEMENT_SCOPES)


async def test_no_secret_is_in_what_is_told(site: Site) -> None:
    """Neither the old secret nor the new one, nor a token, is in ledger or shapes."""
    agent, there, token = await site.agent()
    await site.revoke(agent)
    await site.work()
    kept = ClientSecretsFile(site.home, site.tenant.issuer)
    secrets = (
        token,
        there.client["client_secret"],
        kept.secret(f"agents/{agent.id}").reveal(),
        site.tenant.run.management_secret,
    )
    told = str(agent_info(agent, site.bench.broker.registry))
    stored = site.home.database.read_bytes()
    for path in site.home.data.glob("agentvault.db*"):
        stored += path.read_bytes()
    for secret in secrets:
        assert secret not in told
        assert secret.encode() not in stored


async def test_an_account_another_agent_uses_is_left(site: Site) -> None:
    """A revocation cuts off one agent, and not who shares its tokenset."""
    agent, _, _ = await site.agent(shared=True)
    await site.revoke(agent)
    await site.work()
    assert site.steps(agent)["connected accounts"] == "left"
    assert site.disconnected == []


async def test_an_agent_with_nothing_there_has_no_steps(site: Site) -> None:
    """Nothing is promised at a tenant that holds nothing of it."""
    agent = await site.bench.agent("only-here")
    await site.revoke(agent)
    assert site.steps(agent) == {}


async def test_a_restart_in_the_middle_loses_no_step(site: Site) -> None:
    """What was done stays so, what was not is done by the next broker."""
    agent, there, token = await site.agent()
    await site.revoke(agent)
    await site.bench.broker.reaching.outbox.work()
    site.fault(status=503, paths=("/api/v2",))
    await site.work()
    before = site.steps(agent)
    assert before["vault grant"] == "confirmed"
    assert before["refresh tokens"] == before["client secret"] == "pending"
    await site.restart()
    assert site.steps(agent)["vault grant"] == "confirmed"
    site.clock.advance(400)
    await site.work()
    assert {site.steps(agent)[step] for step in CUT} == {"confirmed"}
    assert there.refresh(token).status_code == 401


@pytest.mark.slow
async def test_a_tenant_that_is_busy_for_a_minute_is_asked_again(site: Site) -> None:
    """429 after 429 ends no step, and the broker waits longer each time."""
    agent, _, _ = await site.agent()
    await site.revoke(agent)
    site.fault(status=429, paths=("/api/v2",))
    for _ in range(5):
        await site.work()
        site.clock.advance(60)
    steps = site.bench.broker.registry.steps_of(agent.id)
    stuck = next(step for step in steps if step.step == "vault grant")
    assert stuck.status == "pending"
    assert stuck.attempts >= 3
    assert stuck.problem
    # Said once, not at each try.
    events = await site.bench.events("upstream.revocation")
    assert [event.detail["step"] for event in events].count("vault grant") == 1
    site.fault()
    site.clock.advance(400)
    await site.work()
    assert site.steps(agent)["vault grant"] == "confirmed"


@pytest.mark.slow
async def test_a_deletion_that_is_not_true_yet_is_not_told_as_done(site: Site) -> None:
    """202 and 204 are promises: the step is confirmed once a reading says so."""
    agent, there, _ = await site.agent()
    there.tokens()  # one that is not kept here
    await site.revoke(agent)
    site.fault(deletion_lag=30)
    await site.work()
    assert site.steps(agent)["refresh tokens"] == "pending"
    site.tenant.clock.advance(60)
    site.clock.advance(400)
    await site.work()
    assert site.steps(agent)["refresh tokens"] == "confirmed"


async def test_a_step_is_given_up_loudly(site: Site) -> None:
    """After a day it is failed, in the audit and in every operator's status."""
    agent, _, _ = await site.agent()
    await site.revoke(agent)
    site.fault(status=500, paths=("/api/v2",))
    await site.work()
    site.clock.advance(timedelta(hours=25).total_seconds())
    await site.work()
    assert site.steps(agent)["vault grant"] == "failed"
    assert any("were given up" in text for text in warnings(site.bench.broker))
    await site.restart()
    assert any("were given up" in text for text in warnings(site.bench.broker))


async def test_a_restore_gives_the_grant_back(site: Site) -> None:
    """What was pending is withdrawn, and the client may use Token Vault again."""
    agent, there, _ = await site.agent()
    await site.revoke(agent)
    await site.bench.broker.reaching.outbox.work()
    await restore_agent(site.bench.broker, agent.id, OPERATOR)
    await site.work()
    steps = site.steps(agent)
    assert steps["vault grant back"] == "confirmed"
    assert steps["client secret"] == steps["refresh tokens"] == "withdrawn"
    path = f"clients/{there.client['client_id']}"
    grants = site.admin.call("GET", path).json()["grant_types"]
    assert any("federated-connection" in grant for grant in grants)


async def test_nothing_is_given_back_to_who_is_revoked(site: Site) -> None:
    """A restore's step that a row still tells of does nothing while it is revoked."""
    agent, there, _ = await site.agent()
    await site.revoke(agent)
    await site.work()
    row = OutboxStep(
        f"{agent.id}/vault grant back", agent.id, "vault grant back", site.clock.now()
    )
    site.bench.broker.reaching.outbox.take([row])
    await site.work()
    assert site.steps(agent)["vault grant back"] == "withdrawn"
    path = f"clients/{there.client['client_id']}"
    grants = site.admin.call("GET", path).json()["grant_types"]
    assert not any("federated-connection" in grant for grant in grants)


async def test_a_client_that_is_gone_is_cut_off(site: Site) -> None:
    """Whoever deleted it at the tenant did all of it."""
    agent, there, _ = await site.agent()
    path = f"clients/{there.client['client_id']}"
    assert site.admin.call("DELETE", path).status_code == 204
    await site.revoke(agent)
    await site.work()
    assert {site.steps(agent)[step] for step in CUT} == {"confirmed"}


@pytest.mark.slow
async def test_a_step_that_drags_on_holds_no_other_agent_up(site: Site) -> None:
    """While the tenant never finishes one agent's step, another agent is cut off."""
    broker = site.bench.broker
    slow, *_ = await site.agent()
    other, *_ = await site.agent()
    reached = (
        site.clock,
        broker.registry,
        broker.reaching.access,
        broker.reaching.providers,
    )
    broker.reaching.outbox = Outbox(*reached, broker.record_cut, longest=0.3)
    stuck = asyncio.Event()

    async def never(*_: Any) -> bool:
        stuck.set()
        return await asyncio.Event().wait()

    broker.reaching.access.holdings.disconnect = never
    await site.revoke(slow)
    working = asyncio.create_task(broker.reaching.outbox.run())
    try:
        await stuck.wait()
        await site.revoke(other)
        await site.bench.until(
            lambda: site.steps(other).get("vault grant") == "confirmed"
        )
    finally:
        working.cancel()
    (step,) = (
        s for s in broker.registry.steps_of(slow.id) if s.step == "connected accounts"
    )
    assert (step.status, step.problem) == (
        "pending",
        "the tenant took longer than 0.3 s",
    )


@pytest.mark.parametrize("blind", ["of", "signed_in"])
async def test_a_home_that_cannot_be_read_stops_no_cut_and_loses_no_step(
    site: Site, monkeypatch: pytest.MonkeyPatch, blind: str
) -> None:
    """Out of descriptors, say: cut and recorded at once, and the tenant hears later."""
    agent, there, token = await site.agent()
    holdings = site.bench.broker.reaching.access.holdings

    def unreadable(_: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(holdings, blind, unreadable)
    cut = await revoke_agent(site.bench.broker, agent.id, "", OPERATOR)
    assert cut.recorded
    assert [step.step for step in cut.steps if step.status == "pending"] == CUT
    await site.work()
    monkeypatch.undo()
    await site.restart()
    site.clock.advance(60)
    await site.work()
    assert set(site.steps(agent).values()) == {"confirmed", "withdrawn"}
    kept = ClientSecretsFile(site.home, site.tenant.issuer)
    there.client["client_secret"] = kept.secret(f"agents/{agent.id}").reveal()
    assert there.refresh(token).json()["error"] == "invalid_grant"
    assert there.exchange(token).json()["error"] == "unauthorized_client"
