"""Two things at once: the stricter one holds, in memory, on disk and in the chain."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import Gate, approve, hold

from agentvault_tui.broker.answers import Denied, Escalated, Granted
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.policy_change import recheck_tokens, reload_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import panic, restore_agent, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes, renew_secret
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import (
    Action,
    Agent,
    AgentStatus,
    EventType,
    StepUp,
    StepUpStatus,
)

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")


async def ask(bench: Bench, agent: Agent, action: Action = PAYMENT) -> Any:
    return await request_token(bench.broker, agent, action, resource=None, details=None)


async def test_a_repeated_request_does_not_write_over_its_denial(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again while the denial is being recorded, it is denied after a restart."""
    agent = await bench.agent()
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    gate = Gate(bench, monkeypatch, EventType.STEPUP_DENIED)
    denying = asyncio.create_task(deny(bench.broker, held.stepup.id, "no", OPERATOR))
    await gate.reached.wait()
    await ask(bench, agent)
    gate.open.set()
    await denying
    async with bench.restarted() as again:
        found = again.broker.stepups.get(held.stepup.id)
        assert found.status is StepUpStatus.DENIED
        refused = await ask(again, again.broker.registry.agent(agent.id))
        assert isinstance(refused, Denied)
        assert refused.reason == "cooling_down"


async def test_a_policy_tightened_meanwhile_ends_an_approval(bench: Bench) -> None:
    """Approved at the tenant after the policy changed, it waits for another look."""
    agent = await bench.agent()
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    stepup: StepUp = held.stepup
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.home.policy_file.write_text(
        bench.broker.deciding.policy.text + "\n// tightened\n"
    )
    await reload_policy(bench.broker)
    bench.tenant.approve()
    registry = bench.broker.registry
    await bench.until(lambda: stepup.id not in bench.broker.stepups.flows)
    assert registry.stepups.get(stepup.id).status is StepUpStatus.PENDING
    assert registry.elevated(stepup.id) is None
    (event,) = await bench.events("stepup.not_approved")
    assert event.reason


async def test_a_policy_tightened_during_a_delivery_ends_the_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An elevated token whose delivery is being recorded is looked at again as well."""
    agent, stepup = await hold(bench)
    server = await bench.agent("server", resource_server=True)
    await approve(bench, stepup)
    gate = Gate(bench, monkeypatch, EventType.TOKEN_DELIVERED)
    polling = asyncio.create_task(poll(bench.broker, agent, stepup.id))
    await gate.reached.wait()
    forbid = '@id("none") @why("no") forbid (principal, action, resource);'
    bench.home.policy_file.write_text(bench.broker.deciding.policy.text + forbid)
    await reload_policy(bench.broker)
    gate.open.set()
    answer = await polling
    if isinstance(answer, Granted):
        told = await introspect(bench.broker, server, answer.access_token)
        assert told.token is None
    assert isinstance(answer, Denied)
    assert answer.reason == "policy_changed"
    await recheck_tokens(bench.broker)
    assert (await bench.ledger.load()).tokens == ()
    (event,) = await bench.events("token.revoked")
    assert event.reason == "policy_changed"


async def test_a_policy_is_in_force_though_its_record_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full does not keep a tightened policy out of force."""
    before = bench.broker.deciding.policy.version
    bench.home.policy_file.write_text(
        bench.broker.deciding.policy.text + "\n// tightened\n"
    )

    async def broken(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    commit = bench.ledger.commit
    monkeypatch.setattr(bench.ledger, "commit", broken)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.policy.version != before
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await record_missed(bench.broker)
    assert len(await bench.events("policy.changed")) == 1


async def test_the_chains_last_word_is_what_is_in_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore overtaken by a revocation is followed by a revocation in the chain."""
    agent = await bench.agent()
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    gate = Gate(bench, monkeypatch, EventType.AGENT_RESTORED)
    restoring = asyncio.create_task(restore_agent(bench.broker, agent.id, OPERATOR))
    await gate.reached.wait()
    await revoke_agent(bench.broker, agent.id, "again", OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError):
        await restoring
    about = [e.type for e in await bench.events() if e.agent_id == agent.id]
    assert about[-1] is EventType.AGENT_REVOKED


@pytest.mark.parametrize("grants", ["scope", "delegate", "secret"])
@pytest.mark.parametrize("by", ["panic", "ungrant"])
async def test_a_grant_that_was_refused_is_not_in_force_after_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, grants: str, by: str
) -> None:
    """A panic, or a scope taken away, came while it was being recorded."""
    agent = await bench.agent("one", "read:email", "send:payment")
    other = await bench.agent("other", "read:email")
    first = EventType.AGENT_SCOPES_CHANGED
    gate = Gate(
        *(bench, monkeypatch), EventType.AGENT_CHANGED if grants == "secret" else first
    )
    granting = asyncio.create_task(grant(bench, grants, agent, other))
    await gate.reached.wait()
    monkeypatch.undo()
    if by == "panic":
        await panic(bench.broker, "drill", OPERATOR)
    else:
        taken = frozenset({"send:payment"})
        await change_scopes(bench.broker, agent.id, frozenset(), taken, OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError, match="meanwhile"):
        await granting
    told = bench.broker.registry.agent(agent.id)
    scopes = ("read:email", "send:payment") if by == "panic" else ("read:email",)
    assert told == replace(agent, scopes=scopes)
    async with bench.restarted() as again:
        assert again.broker.registry.agent(agent.id) == told
    assert verify_ledger(bench.home, now=bench.clock.now()).ok


async def grant(bench: Bench, what: str, agent: Agent, other: Agent) -> None:
    none, email = frozenset[str](), frozenset({"read:email"})
    if what == "scope":
        wider = frozenset({"read:calendar"})
        await change_scopes(bench.broker, agent.id, wider, none, OPERATOR)
    elif what == "delegate":
        await change_delegates(bench.broker, agent.id, other.id, email, OPERATOR)
    else:
        await renew_secret(bench.broker, agent.id, OPERATOR)


async def test_many_looks_expire_a_request_once(
    bench: Bench, clock: ManualClock
) -> None:
    """Twenty looks at the same moment record each expiry once."""
    agent = await bench.agent()
    for amount in (1, 2, 3):
        await ask(bench, agent, replace(PAYMENT, parameters={"amount": amount}))
    clock.advance(300)
    await asyncio.gather(*(expire_due(bench.broker) for _ in range(20)))
    assert len(await bench.events("stepup.expired")) == 3


async def test_a_kept_record_is_written_as_things_stand_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept from an outage, an older picture of an agent does not bring it back."""
    agent = await bench.agent("a", "write:calendar", "read:contacts")

    async def broken(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    commit = bench.ledger.commit
    monkeypatch.setattr(bench.ledger, "commit", broken)
    gone = frozenset({"read:contacts"})
    await change_scopes(bench.broker, agent.id, frozenset(), gone, OPERATOR)
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        found = again.broker.registry.agent(agent.id)
        assert found.status is AgentStatus.REVOKED
        assert found.scopes == ("write:calendar",)


async def test_a_clock_set_back_over_a_reboot_revives_nothing(
    bench: Bench, clock: ManualClock
) -> None:
    """Started before its own last event, the broker takes no token over."""
    agent = await bench.agent()
    granted = await ask(bench, agent, CALENDAR)
    assert isinstance(granted, Granted)
    held = await ask(bench, agent)
    assert isinstance(held, Escalated)
    clock.jump_wall(-86_400)
    clock.reboot("b1")
    async with bench.restarted() as again:
        same = again.broker.registry.agent(agent.id)
        answer = await introspect(again.broker, same, granted.access_token)
        assert answer.token is None
        found = again.broker.stepups.get(held.stepup.id)
        assert found.status is StepUpStatus.CANCELLED
        assert len(await again.events("clock.jump")) == 1


async def test_an_agent_cannot_fill_the_memory_with_tokens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past what one agent may hold it is denied, and served again once it lets go."""
    monkeypatch.setattr("agentvault_tui.broker.registry.HELD_CAP", 1400)
    agent = await bench.agent()
    assert isinstance(await ask(bench, agent, CALENDAR), Granted)
    assert isinstance(await ask(bench, agent, CALENDAR), Granted)
    refused = await ask(bench, agent, CALENDAR)
    assert isinstance(refused, Denied)
    assert refused.reason == "too_many_tokens"
    bench.broker.registry.cut_tokens(agent.id)
    assert isinstance(await ask(bench, agent, CALENDAR), Granted)
