"""How calls end: what still stops one, what is cut, and which result it has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.call_kit import BEARER, ROUTES, bearer, paying
from support.gateway_stand import Stand

from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import revoke_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.clock import iso
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway.credentials import Attachment
from agentvault_tui.model import Agent, Draft


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    until = iso(stand.bench.clock.now() + timedelta(seconds=60))
    scopes = "read:calendar", "write:calendar", "send:payment"
    return await stand.bench.agent("agent", *scopes, until=until)


def read(stand: Stand, token: str, name: str = "e1") -> asyncio.Task[httpx.Response]:
    url = f"/gw/api/events/{name}"
    return asyncio.create_task(stand.client.get(url, headers=bearer(token)))


@pytest.mark.parametrize(
    "way", ["an operator cuts it", "its agent's time is over", "its scope is gone"]
)
async def test_nothing_is_sent_that_ends_while_its_credential_is_fetched(
    stand: Stand, agent: Agent, token: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It is looked at once more in the turn in which the credential is attached."""
    fetch = stand.gateway.credentials.of

    async def late(*asked: Any) -> Attachment:
        found = await fetch(*asked)
        (call,) = stand.gateway.calls
        if way.startswith("an operator"):
            stand.gateway.calls.cut_one(call.id, OPERATOR)
        elif way.startswith("its agent"):
            stand.bench.clock.advance(60)
        else:
            narrower = replace(agent, scopes=("write:calendar",))
            stand.bench.broker.registry.put_agent(narrower)
        return found

    monkeypatch.setattr(stand.gateway.credentials, "of", late)
    reply = await read(stand, token)
    told = {(403, "call_cut"), (401, "agent_revoked"), (403, "scope_not_granted")}
    assert (reply.status_code, reply.json()["reason"]) in told
    assert stand.upstream.received == []
    assert [name for name, _ in await stand.records()] == ["attempt", "result"]


async def test_what_is_recorded_while_a_credential_is_fetched_is_known_first(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another broker may have revoked: where nobody can tell, nothing is sent."""
    fetch, ledger = stand.gateway.credentials.of, stand.bench.broker.ledger

    async def away() -> None:
        raise LedgerUnwritableError("the store does not answer")

    async def late(*asked: Any) -> Attachment:
        monkeypatch.setattr(ledger, "confirm", away)
        return await fetch(*asked)

    monkeypatch.setattr(stand.gateway.credentials, "of", late)
    reply = await read(stand, token)
    assert (reply.status_code, reply.json()["error"]) == (
        503,
        "temporarily_unavailable",
    )
    assert stand.upstream.received == []


async def test_a_broker_that_may_not_know_who_is_revoked_lets_nothing_out(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a team whose store does not answer says so, and makes no attempt."""
    brokers = stand.bench.broker.team.brokers
    monkeypatch.setattr(brokers, "lease_over", lambda: True)
    reply = await read(stand, token)
    assert (reply.status_code, reply.json()["error"]) == (
        503,
        "temporarily_unavailable",
    )
    assert reply.headers["retry-after"] == "1"
    assert [name for name, _ in await stand.records()] == ["refused"]


async def test_a_call_is_cut_and_counted_once(
    stand: Stand, agent: Agent, token: str, gate: asyncio.Event
) -> None:
    """Whoever cuts it afterwards finds nothing in flight."""
    asking, calls = read(stand, token), stand.gateway.calls
    await stand.bench.until(lambda: len(stand.upstream.received) == 1)
    assert [tuple(calls.cut(agent.id)) for _ in range(2)] == [(1, 1), (0, 0)]
    assert (await asking).json()["reason"] == "agent_revoked"
    gate.set()


async def test_the_end_of_a_token_cuts_calls_with_that_token_alone(
    stand: Stand, agent: Agent, token: str, gate: asyncio.Event
) -> None:
    """Others of the same agent go on, also if it hands the token back (RFC 7009)."""
    other = await stand.token(agent, "read:calendar")
    cut, kept = read(stand, token, "cut"), read(stand, other, "kept")
    await stand.bench.until(lambda: len(stand.upstream.received) == 2)
    await revoke_token(stand.bench.broker, agent, token)
    assert (await cut).status_code == 401
    gate.set()
    assert (await kept).status_code == 200


async def test_a_held_call_is_none_of_those_that_a_revocation_cuts(
    stand: Stand, agent: Agent, token: str
) -> None:
    """Nothing of it was sent: its step-up is cancelled, which ends its wait."""
    asking = paying(stand, token)
    await stand.pending()
    cut = await revoke_agent(stand.bench.broker, agent.id, "", OPERATOR)
    assert (tuple(cut.calls), cut.stepups) == ((0, 0), 1)
    reply = await asking
    assert (reply.status_code, reply.json()["reason"]) == (403, "agent_revoked")


async def test_only_calls_that_did_not_go_out_are_told_to_have_failed(
    stand: Stand, token: str, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is in flight when the ledger is looked at has its own end."""
    asking, broker = read(stand, token, "flies"), stand.bench.broker
    await stand.bench.until(lambda: len(stand.upstream.received) == 1)
    record = broker.record

    async def lost(*drafts: Draft, **more: Any) -> Any:
        await record(*drafts, **more)
        raise LedgerUnwritableError("the disk did not say")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "record", lost)
        assert (await read(stand, token, "lost")).status_code == 503
    await stand.gateway.look()
    gate.set()
    assert (await asking).status_code == 200
    await stand.settled()
    results = await stand.bench.events("gateway.result")
    ends = {event.detail["path"]: event.detail["ended"] for event in results}
    assert ends == {"/events/lost": "failed", "/events/flies": "done"}
    assert len(results) == 2


async def test_what_could_not_be_recorded_uses_up_no_limit(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a decision reserved is given back when its record fails."""
    stand.bench.home.limits_file.write_text(
        '[[limits]]\nid = "reads"\nscopes = ["read:calendar"]\nper = "agent"\n'
        'within = "60s"\ncount = 1\nover = "deny"\n'
    )
    broker = stand.bench.broker
    await reload_policy(broker)

    async def full(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("full")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "record", full)
        assert (await read(stand, token)).status_code == 503
    assert (await read(stand, token)).status_code == 200
    assert (await read(stand, token)).json()["reason"] == "limit_reached"
