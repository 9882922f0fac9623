"""Cutting off takes effect before anything else, and can be undone but not unsaid."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Denied, Escalated, Granted
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.usecases import revoke
from agentvault_tui.broker.usecases.redeem import introspect, poll, revoke_token
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.model import (
    Action,
    Agent,
    AgentStatus,
    Draft,
    Event,
    EventType,
    StepUpStatus,
)
from agentvault_tui.operator_api.requests import AgentRequest

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
NONE: frozenset[str] = frozenset()


async def token(bench: Bench, agent: Agent, action: Action = CALENDAR) -> str:
    granted = await request_token(
        bench.broker, agent, action, resource=None, details=None
    )
    assert isinstance(granted, Granted)
    return granted.access_token


async def active(bench: Bench, server: Agent, secret: str) -> bool:
    return (await introspect(bench.broker, server, secret)).token is not None


async def test_after_the_reply_no_token_of_the_agent_is_active(bench: Bench) -> None:
    """Every token it held is inactive at once; another agent's stays."""
    agent, other = await bench.agent("one"), await bench.agent("two")
    server = await bench.agent("api", resource_server=True)
    secrets = [await token(bench, agent) for _ in range(5)]
    kept = await token(bench, other)
    cut = await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    assert (cut.tokens, cut.recorded) == (5, True)
    assert not any([await active(bench, server, secret) for secret in secrets])
    assert await active(bench, server, kept)


async def test_what_was_cut_stays_cut_after_a_restore(bench: Bench) -> None:
    """Restored, the agent may ask again; its old tokens stay dead."""
    agent = await bench.agent()
    server = await bench.agent("api", resource_server=True)
    old = await token(bench, agent)
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    await restore_agent(bench.broker, agent.id, OPERATOR)
    assert not await active(bench, server, old)
    assert await active(bench, server, await token(bench, agent))


async def test_a_revocation_survives_a_restart(bench: Bench) -> None:
    """Agents, tokens and panic are after a restart as they were before it."""
    agent, other = await bench.agent("one"), await bench.agent("two")
    await bench.agent("api", resource_server=True)
    old, kept = await token(bench, agent), await token(bench, other)
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    async with bench.restarted() as again:
        registry = again.broker.registry
        assert registry.agent(agent.id).status is AgentStatus.REVOKED
        server = next(a for a in registry.agents() if a.resource_server)
        assert not await active(again, server, old)
        assert await active(again, server, kept)


async def test_revoking_works_when_nothing_can_be_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ledger down the cut holds, and its record follows when writing works."""
    agent = await bench.agent()
    server = await bench.agent("api", resource_server=True)
    secret = await token(bench, agent)
    commit = bench.ledger.commit

    async def broken(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    cut = await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    assert not cut.recorded
    assert not await active(bench, server, secret)
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await record_missed(bench.broker)
    assert (await bench.events("agent.revoked"))[-1].reason == "runaway"
    assert bench.broker.recording.cuts.unrecorded == []


@pytest.mark.slow
async def test_a_ledger_that_hangs_does_not_hold_up_a_revocation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that never answers delays the record, not the reply."""
    agent = await bench.agent()

    async def hangs(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.ledger, "commit", hangs)
    async with asyncio.timeout(30):
        cut = await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    assert not cut.recorded
    assert not bench.broker.registry.serves(agent.id)


async def test_a_revocation_wins_over_a_restore_being_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked again while a restore waits for the disk, the agent stays revoked."""
    agent = await bench.agent()
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    commit, recording, go_on = bench.ledger.commit, asyncio.Event(), asyncio.Event()

    async def slow(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        events = await commit(*drafts, **more)
        if drafts[0].type is EventType.AGENT_RESTORED:
            recording.set()
            await go_on.wait()
        return events

    monkeypatch.setattr(bench.ledger, "commit", slow)
    restoring = asyncio.create_task(restore_agent(bench.broker, agent.id, OPERATOR))
    await recording.wait()
    await revoke_agent(bench.broker, agent.id, "again", OPERATOR)
    go_on.set()
    with pytest.raises(ConflictError):
        await restoring
    assert not bench.broker.registry.serves(agent.id)
    (stored,) = (await bench.ledger.load()).agents
    assert stored.status is AgentStatus.REVOKED


async def test_a_panic_cancels_what_changes_while_it_is_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that goes back to waiting between two slices waits no more either."""
    monkeypatch.setattr(revoke, "ENDED_A_TURN", 1)
    held = [(await hold(bench, name))[1] for name in ("one", "two")]
    stepups = bench.broker.stepups

    async def count() -> None:
        for stepup in held:
            if stepups.get(stepup.id).status.open:
                stepups.put(replace(stepup, count=2))

    counting = asyncio.create_task(count())
    await panic(bench.broker, "drill", OPERATOR)
    await counting
    assert stepups.open() == []
    assert len(await bench.events("stepup.cancelled")) == 2


@pytest.mark.parametrize("everyone", [False, True])
async def test_a_cut_leaves_no_row_of_a_token_and_no_approval(
    bench: Bench, *, everyone: bool
) -> None:
    """Nothing is in the store that a restore and a restart could bring back."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    write = Action(("write:calendar",), "write:calendar", "calendar:primary")
    assert isinstance(await ask(bench, agent, write), Granted)
    assert len((await bench.ledger.load()).tokens) == 2
    if everyone:
        await panic(bench.broker, "drill", OPERATOR)
        await lift_panic(bench.broker, OPERATOR)
    else:
        await revoke_agent(bench.broker, agent.id, "", OPERATOR)
        await restore_agent(bench.broker, agent.id, OPERATOR)
    assert not (await bench.ledger.load()).tokens
    known = bench.broker.stepups.get(stepup.id)
    assert known.status is StepUpStatus.CANCELLED
    assert isinstance(await poll(bench.broker, agent, stepup.id), Denied)


async def test_a_panic_while_one_is_lifted_holds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lifts is told, and everything stays stopped, after a restart too."""
    await panic(bench.broker, "first", OPERATOR)
    record = bench.broker.record

    async def during(*drafts: Draft, **more: Any) -> Any:
        written = await record(*drafts, **more)
        await panic(bench.broker, "second", OPERATOR)
        return written

    monkeypatch.setattr(bench.broker, "record", during)
    with pytest.raises(ConflictError, match="stopped again"):
        await lift_panic(bench.broker, OPERATOR)
    assert bench.broker.registry.revocations.panic is not None
    async with bench.restarted() as again:
        assert again.broker.registry.revocations.panic is not None


async def test_nothing_is_lifted_before_the_ledger_was_verified(bench: Bench) -> None:
    """Where it did not hold, an operator could restore what was tampered with."""
    await panic(bench.broker, "drill", OPERATOR)
    bench.broker.health.verify_first = True
    with pytest.raises(ConflictError, match="did not hold"):
        await lift_panic(bench.broker, OPERATOR)
    assert bench.broker.registry.revocations.panic is not None


async def test_a_reason_is_added_to_a_panic_as_a_second_event(bench: Bench) -> None:
    """The switch keeps the time at which everything stopped, also over a restart."""
    await panic(bench.broker, "", OPERATOR)
    before = bench.broker.registry.revocations.panic
    assert before is not None
    await panic(bench.broker, "", OPERATOR)
    await panic(bench.broker, "leaked key", OPERATOR)
    reasons = [event.reason for event in await bench.events("panic.on")]
    assert reasons == ["", "leaked key"]
    async with bench.restarted() as again:
        after = again.broker.registry.revocations.panic
        assert after is not None
        assert (after.since, after.reason) == (before.since, "leaked key")


async def test_lifting_the_panic_leaves_single_revocations(bench: Bench) -> None:
    """After the panic agents revoked singly are still revoked, the others served."""
    one, two = await bench.agent("one"), await bench.agent("two")
    held = await request_token(bench.broker, two, PAYMENT, resource=None, details=None)
    assert isinstance(held, Escalated)
    secret = await token(bench, two)
    await revoke_agent(bench.broker, one.id, "", OPERATOR)
    cut = await panic(bench.broker, "drill", OPERATOR)
    assert (cut.tokens, cut.stepups) == (1, 1)
    ended = bench.broker.stepups.get(held.stepup.id)
    assert ended.status is StepUpStatus.CANCELLED
    assert await lift_panic(bench.broker, OPERATOR) == 1
    assert not bench.broker.registry.serves(one.id)
    assert not await active(bench, two, secret)
    kinds = [event.type.value for event in await bench.events()]
    assert kinds.count("panic.on") == kinds.count("panic.off") == 1


async def test_taking_a_scope_away_ends_the_tokens_that_carry_it(bench: Bench) -> None:
    """A token with the scope is cut, one without it stays."""
    agent = await bench.agent("a", "write:calendar", "read:contacts")
    server = await bench.agent("api", resource_server=True)
    contacts = Action(scopes=("read:contacts",), action="read:contacts")
    cut, kept = await token(bench, agent), await token(bench, agent, contacts)
    gone = frozenset({"write:calendar"})
    after, *_ = await change_scopes(bench.broker, agent.id, NONE, gone, OPERATOR)
    assert after.scopes == ("read:contacts",)
    assert not await active(bench, server, cut)
    assert await active(bench, server, kept)
    again, *_ = await change_scopes(bench.broker, agent.id, gone, NONE, OPERATOR)
    assert again.scopes == ("read:contacts", "write:calendar")
    assert not await active(bench, server, cut)


async def test_a_scope_taken_away_stays_so_though_the_grant_beside_it_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on disk at once, the cut is written later and outlives a restart."""
    agent = await bench.agent()
    await token(bench, agent)
    held = await request_token(
        bench.broker, agent, PAYMENT, resource=None, details=None
    )
    assert isinstance(held, Escalated)
    commit = bench.ledger.commit

    async def broken(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    with pytest.raises(LedgerUnwritableError):
        await change_scopes(
            bench.broker,
            agent.id,
            frozenset({"read:email"}),
            frozenset(agent.scopes),
            OPERATOR,
        )
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        registry = again.broker.registry
        assert registry.agent(agent.id).scopes == ()
        assert registry.tokens_of(agent.id) == []
        assert registry.stepups.get(held.stepup.id).status is StepUpStatus.CANCELLED
        (event,) = await again.events("agent.scopes_changed")
        assert event.detail["ungranted"] == sorted(agent.scopes)
        assert event.detail["granted"] == []


async def test_the_cut_is_written_though_only_the_grant_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two have their own records, the cut first: a crash between keeps the cut."""
    agent = await bench.agent()
    commit = bench.ledger.commit

    async def grants_fail(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        if any(draft.detail.get("granted") for draft in drafts):
            raise LedgerUnwritableError("no space left")
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", grants_fail)
    gone = frozenset({"write:calendar"})
    with pytest.raises(LedgerUnwritableError):
        await change_scopes(
            bench.broker, agent.id, frozenset({"read:email"}), gone, OPERATOR
        )
    assert not bench.broker.recording.cuts.unrecorded
    async with bench.restarted() as again:
        assert again.broker.registry.agent(agent.id).scopes == ("send:payment",)


async def test_a_grant_and_a_cut_at_once_are_both_in_force(bench: Bench) -> None:
    """Taking one scope and giving another in one request does both."""
    agent = await bench.agent()
    after, *_ = await change_scopes(
        bench.broker,
        agent.id,
        frozenset({"read:email"}),
        frozenset({"write:calendar"}),
        OPERATOR,
    )
    assert after.scopes == ("read:email", "send:payment")
    cut, given = await bench.events("agent.scopes_changed")
    assert cut.detail["scopes"] == ["send:payment"]
    assert given.detail["scopes"] == list(after.scopes)


async def test_an_agent_can_give_back_its_own_token_only(bench: Bench) -> None:
    """RFC 7009: its own token ends; anyone else's, or none, changes nothing."""
    agent, other = await bench.agent("one"), await bench.agent("two")
    secret = await token(bench, agent)
    await revoke_token(bench.broker, other, secret)
    await revoke_token(bench.broker, other, "av_t_unknown")
    assert await active(bench, agent, secret)
    await revoke_token(bench.broker, agent, secret)
    assert not await active(bench, agent, secret)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "1 to 100 characters"),
        ({"name": "a\nb"}, "1 to 100 characters"),
        ({"name": "x" * 101}, "1 to 100 characters"),
        ({"owner": ""}, "1 to 200 characters"),
        ({"purpose": "x" * 1001}, "at most 1000"),
        ({"scopes": ("write:calender",)}, "did you mean write:calendar"),
        ({"public_key": "not a key"}, ""),
    ],
)
async def test_bad_registrations_are_refused_with_words(
    bench: Bench, change: dict[str, Any], words: str
) -> None:
    """Each field out of bounds, an unknown scope and an unusable key is named."""
    fields: dict[str, Any] = {
        "name": "agent",
        "owner": "olga",
        "purpose": "",
        "scopes": ("write:calendar",),
    } | change
    with pytest.raises(UsageError) as caught:
        await register(bench.broker, AgentRequest(**fields), OPERATOR)
    assert words in caught.value.diagnosis()
    assert bench.broker.registry.agents() == []


@pytest.mark.parametrize("twin", ["pay-bot", "PAY-BOT", "ｐay-bot"])
async def test_names_that_look_alike_are_refused(bench: Bench, twin: str) -> None:
    """A second agent cannot take a name a hurried reader would mistake."""
    await bench.agent("pay-bot")
    with pytest.raises(ConflictError):
        await bench.agent(twin)
