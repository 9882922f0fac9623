"""A broker that has not heard of what another recorded does not go by what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.scripted_tenant import ALICE
from support.stepups import ask
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.broker.answers import Escalated
from agentvault_tui.broker.core import decide_anew
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.revoke import lift_panic, panic, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.model import (
    Account,
    AgentStatus,
    Repeat,
    StepUp,
    StepUpId,
    StepUpStatus,
    sha256_hex,
)
from agentvault_tui.model.event import user_changed
from agentvault_tui.settings import StepUpRule
from agentvault_tui.vault import FlowExpired

BOB = ALICE | {"sub": "agentvault|bob"}


@pytest.fixture
async def brokers(
    short: Path, store: Database, clock: ManualClock
) -> AsyncIterator[list[Broker]]:
    """Two brokers, each with a home of its own; whose factors are shown at once."""
    async with brokers_of(short, [clock] * 2, [store.settings] * 2) as made:
        for one in made:
            one.bench.tenant.took = timedelta()
            one.bench.broker.reaching.kind = "embedded"
        yield made


async def deafen(brokers: list[Broker]) -> None:
    """Let each know what all have recorded, and of nothing later unless it asks."""
    await known(brokers)
    listeners = [
        one for one in asyncio.all_tasks() if one.get_name() == "store listener"
    ]
    assert len(listeners) == len(brokers)
    for one in listeners:
        one.cancel()
    await asyncio.wait(listeners)


async def test_an_agent_that_was_revoked_elsewhere_is_restored(
    brokers: list[Broker],
) -> None:
    """Its broker, for which it is active, asks the store before it says so."""
    a, b = brokers
    agent = await a.agent("one", "read:calendar")
    await deafen(brokers)
    await revoke_agent(a.bench.broker, agent.id, "no", OPERATOR)
    path, body = "/api/agents/restore", {"agent_id": agent.id}
    assert b.bench.broker.registry.agent(agent.id).status is AgentStatus.ACTIVE
    assert (await b.operator.post(path, json=body)).status_code == 200
    await panic(a.bench.broker, "no", OPERATOR)
    assert b.bench.broker.registry.revocations.panic is None
    assert (await b.operator.post(path, json={"all": True})).status_code == 200
    await known(brokers)
    for one in brokers:
        registry = one.bench.broker.registry
        assert registry.revocations.panic is None
        assert registry.agent(agent.id).status is AgentStatus.ACTIVE
    for kind in ("agent.restored", "panic.off"):
        assert len(await b.bench.events(kind)) == 1, kind


async def test_what_another_broker_made_a_moment_ago_is_cut_off(
    brokers: list[Broker],
) -> None:
    """The broker that is told to, and does not know it, asks the store."""
    a, b = brokers
    await deafen(brokers)
    agent = await a.agent("payer", "send:payment")
    reply = await b.operator.post(
        "/api/agents/scopes", json={"agent_id": agent.id, "ungrant": ["send:payment"]}
    )
    assert (reply.status_code, reply.json()["scopes"]) == (200, [])
    agent = await a.agent("other", "send:payment")
    denial = {"id": await a.pay(agent), "decision": "deny"}
    reply = await b.operator.post("/api/agents/stepup", json=denial)
    assert (reply.status_code, reply.json()["status"]) == (200, "denied")
    agent = await a.agent("third", "read:calendar")
    reply = await b.operator.post(
        "/api/agents/revoke", json={"agent_id": agent.id, "reason": "no"}
    )
    assert (reply.status_code, reply.json()["recorded"]) == (200, True)
    agent = await a.agent("fourth", "read:calendar")
    at, now = a.bench.broker.reaching.tenant.issuer, a.bench.clock.now()
    account = Account(agent.id, "google", "cac_1", at, "u", "n", (), now)
    await a.bench.broker.record(changes=[account])
    reply = await b.operator.post(
        "/api/connections/remove", json={"agent_id": agent.id, "connection": "google"}
    )
    assert (reply.status_code, reply.json()["account"]) == (200, "cac_1")


async def test_a_token_that_was_issued_elsewhere_a_moment_ago_is_handed_back(
    brokers: list[Broker],
) -> None:
    """RFC 7009 section 2.2: the answer that it is revoked is true."""
    a, b = brokers
    agent = await a.agent("one", "read:calendar")
    await deafen(brokers)
    token = (await a.token(agent, "read:calendar")).json()["access_token"]
    assert b.bench.broker.registry.token(sha256_hex(token)) is None
    assert (await b.post(agent, "/oauth/revoke", token=token)).status_code == 200
    assert not await a.active(agent, token)
    (event,) = await b.bench.events("token.revoked")
    assert event.agent_id == agent.id


async def begin(broker: Broker, asked: str, repeat: Repeat | None = None) -> None:
    """Give a person at that broker a code."""
    core = broker.bench.broker
    digest = core.stepups.get(asked).digest
    await begin_approval(core, asked, digest, OPERATOR, repeat)


async def approve(broker: Broker, asked: str, who: dict[str, Any] = ALICE) -> StepUp:
    """Let a person use their code; return the step-up once that was judged."""
    core = broker.bench.broker
    (flow,) = core.stepups.flows[StepUpId(asked)].values()
    broker.bench.tenant.approve(who=who)
    async with asyncio.timeout(PATIENT):
        await asyncio.wait({flow.task})
    return core.stepups.get(asked)


async def change(broker: Broker, change: str) -> None:
    """Change Alice at that broker."""
    body = {"change": change, "user": "alice", "sub": ALICE["sub"], "roles": []}
    reply = await broker.operator.post("/api/tenant/people", json=body)
    assert reply.status_code == 200


@pytest.mark.parametrize("word", ["removed", "role", "passkey"])
async def test_an_approval_is_refused_after_a_change_of_the_person_elsewhere(
    brokers: list[Broker], clock: ManualClock, word: str
) -> None:
    """Whose factors were shown before it; what they show later counts."""
    a, b = brokers
    asked = await a.pay(await a.agent("payer", "send:payment"))
    await deafen(brokers)
    await begin(a, asked)
    await change(b, word)
    assert not a.bench.broker.reaching.people._times
    refused = await approve(a, asked)
    assert refused.status is StepUpStatus.PENDING
    assert "alice was changed at the tenant" in str(refused.problem)
    assert await b.bench.events("stepup.approved") == []
    clock.advance(60)
    await begin(a, asked)
    assert (await approve(a, asked)).status is StepUpStatus.APPROVED


async def test_a_second_approval_does_not_count_with_one_of_who_was_removed_elsewhere(
    brokers: list[Broker],
) -> None:
    """It is the first of two then."""
    a, b = brokers
    for one in brokers:
        settings = one.bench.broker.settings
        rule = StepUpRule(approvals=2, scopes=("payments",))
        stepup = replace(settings.stepup, rules=(rule,))
        one.bench.broker.settings = replace(settings, stepup=stepup)
    asked = await a.pay(await a.agent("payer", "send:payment"))
    await deafen(brokers)
    await begin(a, asked)
    assert (await approve(a, asked)).confirmed
    await begin(a, asked)
    # By a broker that does not know of her approval: here too it ends nothing of that.
    removed = user_changed(OPERATOR, "removed", "alice", str(ALICE["sub"]), ())
    await b.bench.broker.record(removed)
    assert not a.bench.broker.reaching.people._times
    await approve(a, asked, BOB)
    await known(brokers)
    for one in brokers:
        found = one.bench.broker.stepups.get(asked)
        assert found.status is StepUpStatus.PENDING
        assert "alice" not in {each.name for each in found.confirmed}
    assert await b.bench.events("stepup.approved") == []


async def test_an_approval_of_who_was_removed_elsewhere_stands_in_for_nobody(
    brokers: list[Broker],
) -> None:
    """The next request like it waits for a person."""
    a, b = brokers
    agent = await a.agent("payer", "send:payment")
    await begin(a, asked := await a.pay(agent), Repeat(3, 600, ()))
    await approve(a, asked)
    await deafen(brokers)
    assert (await ask(a.bench, agent)).stepup.status is StepUpStatus.APPROVED
    await known(brokers)
    await change(b, "removed")
    assert a.bench.broker.stepups.repeating(agent.id)
    again = await decide_anew(lambda: ask(a.bench, agent))
    assert isinstance(again, Escalated)
    assert again.stepup.status is StepUpStatus.PENDING


async def test_a_scope_that_is_taken_ends_what_another_broker_gave_a_moment_ago(
    brokers: list[Broker],
) -> None:
    """Its token, and the step-up that waits there: both are gone from the reply on."""
    a, b = brokers
    agent = await a.agent("payer", "read:calendar", "send:payment")
    server = await a.agent("api", resource_server=True)
    await deafen(brokers)
    token = (await b.token(agent, "read:calendar")).json()["access_token"]
    asked = await b.pay(agent)
    assert a.bench.broker.registry.tokens_of(agent.id) == []
    body = {"agent_id": agent.id, "ungrant": ["read:calendar", "send:payment"]}
    assert (await a.operator.post("/api/agents/scopes", json=body)).status_code == 200
    for one in brokers:
        assert not await one.active(server, token)
    await known(brokers)
    for one in brokers:
        found = one.bench.broker.stepups.get(asked)
        assert (found.status, found.problem) == (
            StepUpStatus.CANCELLED,
            "scope_not_granted",
        )
    (event,) = await b.bench.events("agent.scopes_changed")
    assert event.detail["tokens_revoked"] == 1


async def test_a_delegation_that_is_taken_ends_what_was_passed_on_elsewhere(
    brokers: list[Broker],
) -> None:
    """The other agent's token is worth nothing from the reply on."""
    a, b = brokers
    scopes = frozenset({"read:calendar"})
    one, two = [await a.agent(name, *scopes) for name in ("one", "two")]
    await change_delegates(a.bench.broker, one.id, two.id, scopes, OPERATOR)
    await deafen(brokers)
    parent = (await b.token(one, "read:calendar")).json()["access_token"]
    kind = "urn:ietf:params:oauth:grant-type:token-exchange"
    form = {"grant_type": kind, "subject_token": parent, "audience": two.id}
    form["subject_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
    reply = await b.post(one, "/oauth/token", **form)
    child = reply.json()["access_token"]
    changed = await change_delegates(
        a.bench.broker, one.id, two.id, frozenset(), OPERATOR
    )
    assert changed.delegated == 1
    assert not await b.active(two, child)
    assert await b.active(one, parent)


async def test_a_revocation_counts_and_ends_what_another_broker_holds(
    brokers: list[Broker],
) -> None:
    """Also a step-up that this broker has not followed: it is no zero in the reply."""
    a, b = brokers
    agent = await a.agent("payer", "read:calendar", "send:payment")
    await deafen(brokers)
    await b.token(agent, "read:calendar")
    asked = await b.pay(agent)
    body = {"agent_id": agent.id, "reason": "no"}
    told = (await a.operator.post("/api/agents/revoke", json=body)).json()
    assert (told["tokens_revoked"], told["stepups_cancelled"]) == (1, 1)
    await known(brokers)
    assert b.bench.broker.stepups.get(asked).status is StepUpStatus.CANCELLED


async def test_a_panic_ends_what_another_broker_holds(brokers: list[Broker]) -> None:
    """After it is lifted nothing of before is waiting, at any broker."""
    a, b = brokers
    agent = await a.agent("payer", "read:calendar", "send:payment")
    await deafen(brokers)
    token = (await b.token(agent, "read:calendar")).json()["access_token"]
    asked = await b.pay(agent)
    body = {"all": True, "reason": "drill"}
    told = (await a.operator.post("/api/agents/revoke", json=body)).json()
    assert (told["tokens_revoked"], told["stepups_cancelled"]) == (1, 1)
    await lift_panic(b.bench.broker, OPERATOR)
    await known(brokers)
    for one in brokers:
        assert one.bench.broker.stepups.get(asked).status is StepUpStatus.CANCELLED
        assert not await one.active(agent, token)


async def test_a_second_denial_at_another_broker_is_a_conflict(
    brokers: list[Broker],
) -> None:
    """It neither counts nor changes who denied it."""
    a, b = brokers
    agent = await a.agent("payer", "send:payment")
    asked = await a.pay(agent)
    await deafen(brokers)
    denial = {"id": asked, "decision": "deny", "reason": "first"}
    assert (await a.operator.post("/api/agents/stepup", json=denial)).status_code == 200
    assert b.bench.broker.stepups.get(asked).status is StepUpStatus.PENDING
    again = denial | {"reason": "second"}
    assert (await b.operator.post("/api/agents/stepup", json=again)).status_code == 409
    assert b.bench.broker.stepups.get(asked).denial == "first"
    assert b.bench.broker.stepups.cooldowns.of(agent.id).denials == 1
    assert len(await b.bench.events("stepup.denied")) == 1


async def test_a_code_that_ran_out_does_not_undo_a_denial_elsewhere(
    brokers: list[Broker],
) -> None:
    """The step-up stays denied: it does not wait again."""
    a, b = brokers
    asked = await a.pay(await a.agent("payer", "send:payment"))
    await begin(a, asked)
    await deafen(brokers)
    await deny(b.bench.broker, asked, "no", OPERATOR)
    (flow,) = a.bench.broker.stepups.flows[StepUpId(asked)].values()
    a.bench.tenant.end(FlowExpired())
    async with asyncio.timeout(PATIENT):
        await asyncio.wait({flow.task})
    await known(brokers)
    loaded = {one.id: one for one in (await b.bench.ledger.load()).stepups}
    assert loaded[StepUpId(asked)].status is StepUpStatus.DENIED
    for one in brokers:
        assert one.bench.broker.stepups.get(asked).status is StepUpStatus.DENIED


async def test_a_request_like_one_that_was_denied_elsewhere_cools_down(
    brokers: list[Broker],
) -> None:
    """Here the first one still waits: the second is not counted with it."""
    a, b = brokers
    agent = await a.agent("payer", "send:payment")
    asked = await a.pay(agent)
    await deafen(brokers)
    await deny(b.bench.broker, asked, "no", OPERATOR)
    assert a.bench.broker.stepups.get(asked).status is StepUpStatus.PENDING
    assert await a.pay(agent) == "cooling_down"
    assert await a.pay(agent, "stripe:other") == "cooling_down"
    assert a.bench.broker.stepups.get(asked).count == 1
