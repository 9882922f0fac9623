"""An approved token reaches its agent once, in time, and the ledger tells."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import Gate, approve, hold, latched, redeemable

from agentvault_tui.broker import stepups as stepups_module
from agentvault_tui.broker.answers import Denied, Expired, Granted, Spent
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.revoke import panic, restore_agent, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import LedgerUnwritableError, OvertakenError
from agentvault_tui.model import Draft, Event, EventType


async def test_the_ledger_tells_a_step_up_whole(bench: Bench) -> None:
    """Request, approval, delivery and redemption stand there, tied by their ids."""
    agent, stepup = await hold(bench)
    server = await bench.agent("api", resource_server=True)
    await approve(bench, stepup)
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    await introspect(bench.broker, server, granted.access_token)
    story = [
        event
        for event in await bench.events()
        if event.detail.get("stepup_id") == stepup.id
        and event.type is not EventType.TOKEN_DECISION
    ]
    assert [event.type.value for event in story] == [
        "stepup.requested",
        "stepup.authorizing",
        "stepup.approved",
        "token.delivered",
        "token.redeemed",
    ]
    assert {event.decision_id for event in story} == {stepup.decision_id}
    assert {event.detail["token_id"] for event in story[2:]} == {granted.token.id}
    delivered = story[3]
    assert delivered.actor.id == agent.id
    assert delivered.detail["scope"] == "send:payment"
    assert delivered.detail["expires_at"] == "2026-11-24T10:05:00.000000Z"
    assert granted.access_token not in str(delivered.detail)


async def test_a_revoked_resource_server_learns_nothing_and_consumes_nothing(
    bench: Bench,
) -> None:
    """The token it shows is inactive for it, and still good for another."""
    _, server, secret = await redeemable(bench)
    other = await bench.agent("other api", resource_server=True)
    await revoke_agent(bench.broker, server.id, "stolen", OPERATOR)
    assert (await introspect(bench.broker, server, secret)).token is None
    assert (await introspect(bench.broker, other, secret)).token is not None


@pytest.mark.parametrize("how", ["agent_revoked", "panic"])
async def test_an_approved_token_nobody_fetched_is_refused_by_what_holds_now(
    bench: Bench, how: str
) -> None:
    """Cut before it came for its token, an agent reads why, and gets nothing."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    if how == "panic":
        await panic(bench.broker, "drill", OPERATOR)
    else:
        await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    refused = await poll(bench.broker, agent, stepup.id)
    assert isinstance(refused, Denied)
    assert refused.reason == how


@pytest.mark.parametrize("overtaken", ["its agent", "the server", "its end"])
async def test_a_redemption_overtaken_while_it_is_recorded_is_inactive(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, overtaken: str
) -> None:
    """No active answer leaves after a revocation, or after the token's end."""
    agent, server, secret = await redeemable(bench)
    gate = Gate(bench, monkeypatch, EventType.TOKEN_REDEEMED)
    asking = asyncio.create_task(introspect(bench.broker, server, secret))
    await gate.reached.wait()
    match overtaken:
        case "its agent":
            await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
            await restore_agent(bench.broker, agent.id, OPERATOR)
        case "the server":
            await revoke_agent(bench.broker, server.id, "stolen", OPERATOR)
        case _:
            clock.advance(301)
    gate.open.set()
    assert (await asking).token is None


async def test_a_failed_delivery_is_not_recorded_and_can_be_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ledger latched nothing is delivered; afterwards the poll yields it."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await poll(bench.broker, agent, stepup.id)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Granted)
    assert len(await bench.events("token.delivered")) == 1


async def test_a_delivery_overtaken_by_a_revocation_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut while the delivery is recorded: no secret leaves, and the ledger tells."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    gate = Gate(bench, monkeypatch, EventType.TOKEN_DELIVERED)
    polling = asyncio.create_task(poll(bench.broker, agent, stepup.id))
    await gate.reached.wait()
    await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    gate.open.set()
    assert isinstance(await polling, Denied)
    (event,) = await bench.events("token.revoked")
    assert event.reason == "revoked while it was being delivered"


async def test_a_failed_delivery_gives_nothing_back_to_an_agent_cut_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored later, it does not find the token its revocation would have cut."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    commit = bench.ledger.commit

    async def cut_and_latched(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        if drafts and drafts[0].type is EventType.TOKEN_DELIVERED:
            await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
            await latched()
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", cut_and_latched)
    with pytest.raises(LedgerUnwritableError):
        await poll(bench.broker, agent, stepup.id)
    await restore_agent(bench.broker, agent.id, OPERATOR)
    assert bench.broker.registry.elevated(stepup.id) is None
    assert not isinstance(await poll(bench.broker, agent, stepup.id), Granted)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("taken", ["write:calendar", "send:payment"])
async def test_a_change_of_other_scopes_costs_no_approval(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, taken: str, *, written: bool
) -> None:
    """If a scope is taken during a delivery, only an approval of that scope ends."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    commit = bench.ledger.commit

    async def taken_meanwhile(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        if drafts and drafts[0].type is EventType.TOKEN_DELIVERED:
            monkeypatch.undo()
            scopes = frozenset({taken})
            await change_scopes(bench.broker, agent.id, frozenset(), scopes, OPERATOR)
            if not written:
                raise OvertakenError("another broker wrote it", "ask again")
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", taken_meanwhile)
    ends = taken == "send:payment"
    if written:
        first = await poll(bench.broker, agent, stepup.id)
        assert isinstance(first, Denied if ends else Granted)
    else:
        with pytest.raises(OvertakenError):
            await poll(bench.broker, agent, stepup.id)
        again = await poll(bench.broker, agent, stepup.id)
        assert isinstance(again, Granted) is not ends
    assert len(bench.broker.registry.tokens_of(agent.id)) == (not ends)


@pytest.mark.parametrize("taken", ["write:calendar", "send:payment"])
async def test_a_redemption_next_to_a_change_of_other_scopes_is_active(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """If a scope is taken during a redemption, only a token of that scope is void."""
    agent, server, secret = await redeemable(bench)
    gate = Gate(bench, monkeypatch, EventType.TOKEN_REDEEMED)
    asking = asyncio.create_task(introspect(bench.broker, server, secret))
    await gate.reached.wait()
    scopes = frozenset({taken})
    await change_scopes(bench.broker, agent.id, frozenset(), scopes, OPERATOR)
    gate.open.set()
    assert ((await asking).token is None) is (taken == "send:payment")


async def test_an_approved_token_nobody_fetches_expires(
    bench: Bench, clock: ManualClock
) -> None:
    """Approved and never fetched, polls say expired, also after a restart."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    clock.advance(stepup.ttl - 1)
    list(bench.broker.registry.sweep())
    clock.advance(1)
    list(bench.broker.registry.sweep())
    assert await poll(bench.broker, agent, stepup.id) == Expired(approved=True)
    async with bench.restarted() as again:
        assert await poll(again.broker, agent, stepup.id) == Expired(approved=True)


async def test_a_fetched_token_is_spent_and_not_expired(
    bench: Bench, clock: ManualClock
) -> None:
    """Fetched once, a later poll is spent, when the token has ended and restarted."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    answers = await asyncio.gather(
        *(poll(bench.broker, agent, stepup.id) for _ in range(3))
    )
    assert sorted(type(answer).__name__ for answer in answers) == [
        "Granted",
        "Spent",
        "Spent",
    ]
    clock.advance(2 * stepup.ttl)
    list(bench.broker.registry.sweep())
    assert await poll(bench.broker, agent, stepup.id) == Spent()
    async with bench.restarted() as again:
        assert await poll(again.broker, agent, stepup.id) == Spent()


async def test_many_decisions_do_not_take_an_approved_token_away(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many were decided since, the agent still finds its approved token."""
    monkeypatch.setattr(stepups_module, "KEPT_DECIDED", 1)
    agent, stepup = await hold(bench)
    clock.advance(200)
    await approve(bench, stepup)
    for number in range(3):
        _, other = await hold(bench, f"other-{number}")
        clock.advance(1)
        await deny(bench.broker, other.id, "no", OPERATOR)
    clock.advance(150)
    list(bench.broker.registry.sweep())
    assert isinstance(await poll(bench.broker, agent, stepup.id), Granted)
