"""The tenant away: agents are answered from the broker's own state, people wait."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.agents_http import Live
from support.bench import OPERATOR
from support.connecting import WORKSPACE, Office, caller
from support.token_vault import exchange

from agentvault_tui.broker.serve import probe_tenant
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.broker.vault_access import VaultAccess
from agentvault_tui.errors import TenantError
from agentvault_tui.model import StepUpStatus
from agentvault_tui.vault import TenantClient

FAULTS = [
    {"status": 503},
    {"status": 429},
    {"status": 500},
    {"garbage": True},
    {"slow": 5},
]
GRANTS = ("token.exchanged", "token.delivered", "stepup.approved", "stepup.authorizing")


async def be_impatient(office: Office) -> None:
    """Let nobody wait long: what is slow is slow enough."""
    broker, tenant = office.broker, office.tenant
    await broker.reaching.tenant.aclose()
    await broker.reaching.vault.aclose()
    broker.reaching.tenant = TenantClient(
        tenant.issuer, tenant.run.client_id, tenant.clock, timeout=0.3
    )
    broker.reaching.vault = VaultAccess(
        broker.home, tenant.issuer, broker.clock, deadline=0.3
    )


async def kinds(office: Office, since: int) -> dict[str, list[Any]]:
    """Return the events after *since*, by type."""
    found: dict[str, list[Any]] = {}
    for event in await office.bench.events():
        if event.seq > since:
            found.setdefault(event.type.value, []).append(event)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_agents_are_answered_while_the_tenant_is_away(
    office: Office, live: Live, fault: dict[str, Any]
) -> None:
    """Allowed, denied, held and cut as ever; no person's yes, no provider's token."""
    bot = await caller(live)
    await office.connect(bot.agent, office.person(), "calendar.read")
    payer = await live.caller("payer", "send:payment")
    token = (await bot.token("read:calendar")).json()["access_token"]
    await be_impatient(office)
    broker, since = office.broker, office.broker.ledger.head.seq
    office.fault(**fault)
    # From its own state, all of it.
    assert (await bot.token("read:calendar")).status_code == 200
    assert (await bot.introspect(token))["active"]
    assert (await bot.token("delete:records")).json()["reason"] == "scope_not_granted"
    held = await payer.payment()
    assert held.json()["error"] == "insufficient_user_authentication"
    # What needs the tenant is no one's fault but its own, and nothing is granted.
    refused = await exchange(bot, WORKSPACE)
    assert_away(refused)
    stepup = broker.stepups.get(held.json()["auth_req_id"])
    with pytest.raises(TenantError):
        await begin_approval(broker, stepup.id, stepup.digest, OPERATOR)
    assert broker.stepups.get(stepup.id).status is StepUpStatus.PENDING
    waiting = await payer.poll(stepup.id)
    assert waiting.json()["error"] == "authorization_pending"
    # Cutting off waits for nobody.
    await revoke_agent(broker, bot.agent.id, "drill", OPERATOR)
    assert (await bot.token("read:calendar")).json()["reason"] == "agent_revoked"
    told = await kinds(office, since)
    assert [event.outcome.value for event in told["token.decision"]] == [
        *("allowed", "denied", "escalated", "allowed", "denied")
    ]
    (missed,) = told["token.not_exchanged"]
    assert missed.reason == "unavailable"
    (unproven,) = told["stepup.not_approved"]
    assert unproven.actor == OPERATOR
    assert [event.reason for event in told["agent.revoked"]] == ["drill"]
    assert not set(GRANTS) & told.keys()


def assert_away(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error"]) == (
        *(503, "temporarily_unavailable"),
    )
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.slow
async def test_all_goes_on_once_the_tenant_is_back(office: Office, live: Live) -> None:
    """What was waiting is approved, exchanged and done at the tenant; all recorded."""
    bot, other = await caller(live), await caller(live)
    await office.connect(bot.agent, office.person(), "calendar.read")
    await office.connect(other.agent, office.person(), "calendar.read")
    payer = await live.caller("payer", "send:payment")
    broker, since = office.broker, office.broker.ledger.head.seq
    assert await probe_tenant(broker, None)
    office.fault(status=503)
    assert await probe_tenant(broker, True) is False
    assert await probe_tenant(broker, False) is False
    held = await payer.payment()
    assert_away(await exchange(bot, WORKSPACE))
    await revoke_agent(broker, other.agent.id, "", OPERATOR)
    await work(office)
    assert "pending" in statuses(office, other.agent.id)
    office.fault()
    office.tenant.clock.advance(600)
    assert await probe_tenant(broker, False) is True
    await work(office)
    assert set(statuses(office, other.agent.id)) <= {"confirmed", "withdrawn"}
    assert (await exchange(bot, WORKSPACE)).status_code == 200
    again = (await payer.payment()).json()["auth_req_id"]
    assert again != held.json()["auth_req_id"]  # the first one had its five minutes
    stepup = broker.stepups.get(again)
    begun = await begin_approval(broker, again, stepup.digest, OPERATOR)
    assert begun.status is StepUpStatus.AUTHORIZING
    await deny(broker, again, "", OPERATOR)
    told = await kinds(office, since)
    assert len(told["tenant.away"]) == len(told["tenant.back"]) == 1
    assert "nothing that needs a person" in told["tenant.away"][0].reason


async def work(office: Office) -> None:
    while await office.broker.reaching.outbox.work():
        pass


def statuses(office: Office, agent_id: Any) -> list[str]:
    return [step.status for step in office.broker.registry.steps_of(agent_id)]
