"""A broker loses its store: it grants nothing, and what it cut off stays cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.postgres_relay import Relay
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.broker.follow import join_team
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.timed_grants import grant
from agentvault_tui.home import put_private
from agentvault_tui.ledger import postgres_store, urgent_line
from agentvault_tui.model import (
    ActorKind,
    Agent,
    AgentStatus,
    EventType,
    StepUpStatus,
    sha256_hex,
)


@pytest.fixture
async def brokers(
    short: Path, store: Database, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Broker]]:
    """Two brokers of a team, of which the first reaches the store by the relay."""
    monkeypatch.setattr(postgres_store, "DOUBT_SECONDS", 0.3)
    clocks = [ManualClock(datetime.now(UTC)) for _ in range(2)]
    reached = [store.settings_at(short / "relay"), store.settings]
    async with brokers_of(short, clocks, reached) as made:
        for one in made:
            await join_team(one.bench.broker, one.bench.ledger.shared)  # type: ignore[arg-type]
        yield made


def away(relay: Relay) -> None:
    relay.away = True
    relay.cut()


def silent(relay: Relay) -> None:
    relay.silent = True


def halved(relay: Relay) -> None:
    relay.halve = True


def whole(relay: Relay) -> None:
    relay.away = relay.silent = relay.halve = False


@pytest.mark.parametrize("fault", [away, silent, halved])
async def test_without_the_store_a_broker_grants_nothing_and_holds_nobody_up(
    brokers: list[Broker], relay: Relay, fault: Callable[[Relay], None]
) -> None:
    """Each answers while the fault lasts; a cut holds there and is told as such."""
    cut_off, other = brokers
    agent = await cut_off.agent("one", "read:calendar", "send:payment")
    server = await other.agent("api", resource_server=True)
    token = (await cut_off.token(agent, "read:calendar")).json()["access_token"]
    asked = await cut_off.pay(agent)
    await known(brokers)
    fault(relay)
    replies = await asyncio.gather(
        cut_off.token(agent, "read:calendar"),
        cut_off.poll(agent, asked),
        cut_off.post(server, "/oauth/introspect", token=token),
    )
    assert [one.status_code for one in replies] == [503] * 3
    assert all(one.headers["retry-after"] for one in replies)
    assert (await other.token(agent, "read:calendar")).status_code == 200
    assert await other.active(server, token)
    body = {"agent_id": agent.id, "reason": "drill"}
    told = (await cut_off.operator.post("/api/agents/revoke", json=body)).json()
    assert (told["recorded"], told["others"]) == (False, "not_told")
    assert (await cut_off.operator.get("/api/status")).json()["stale"]
    whole(relay)
    async with asyncio.timeout(PATIENT):
        while await other.active(server, token):  # noqa: ASYNC110 - it is elsewhere
            await asyncio.sleep(0.05)
    (event,) = await other.bench.events("agent.revoked")
    assert event.detail["took_effect_at"]
    assert (await other.token(agent, "read:calendar")).json()["reason"] == (
        "agent_revoked"
    )


@pytest.mark.parametrize("away_now", [True, False])
@pytest.mark.parametrize("what", ["scopes", "delegates", "token", "denial"])
async def test_what_is_taken_away_without_the_store_says_so(
    brokers: list[Broker], relay: Relay, what: str, away_now: bool
) -> None:
    """The answer names the brokers that were not notified, as a revocation's does.

    Once the store is back, it holds at every broker.
    """
    cut_off, other = brokers
    core, there = cut_off.bench.broker, other.bench.broker
    agent = await cut_off.agent("one", "read:calendar", "send:payment")
    friend = await cut_off.agent("two", "read:calendar")
    friends = frozenset({"read:calendar"})
    await change_delegates(core, agent.id, friend.id, friends, OPERATOR)
    email = frozenset({"read:email"}), frozenset[str]()
    await grant(core, agent.id, *email, OPERATOR, seconds=60)
    token = (await cut_off.token(agent, "read:calendar")).json()["access_token"]
    held = core.registry.token(sha256_hex(token))
    assert held is not None
    asked = await cut_off.pay(agent)
    await known(brokers)
    await core.team.brokers._look()  # as its next sign of life does
    if away_now:
        away(relay)
        await cut_off.bench.until(lambda: not core.ledger.writable)
    path, body = {
        "scopes": ("agents/scopes", {"agent_id": agent.id, "ungrant": ["read:email"]}),
        "delegates": ("agents/delegates", {"agent_id": agent.id, "to": friend.id}),
        "token": ("tokens/revoke", {"id": held.id}),
        "denial": ("agents/stepup", {"id": asked, "decision": "deny"}),
    }[what]
    reply = await cut_off.operator.post(f"/api/{path}", json=body)
    assert reply.status_code == 200, reply.text
    said = reply.json()
    if away_now:
        members = said["recorded"], said["kept"], said["others"]
        assert members == (False, "journal", "not_told")
        assert [one["id"] for one in said["brokers"]] == [there.team.brokers.id]
        assert not said["brokers"][0]["confirmed"]
    else:
        assert (said["recorded"], said["kept"]) == (True, "ledger")
        assert "others" not in said
    whole(relay)

    def ended() -> bool:
        one = there.registry.agent(agent.id)
        return {
            "scopes": "read:email" not in one.scopes,
            "delegates": not one.delegates,
            "token": there.registry.token_with_id(held.id) is None,
            "denial": there.stepups.get(asked).status is StepUpStatus.DENIED,
        }[what]

    await other.bench.until(ended)


async def test_a_change_that_is_denied_without_the_store_is_not_said_to_be_denied(
    brokers: list[Broker], relay: Relay
) -> None:
    """An approver may still apply it at another broker, and nothing takes that back."""
    for one in brokers:
        put_private(one.bench.home.team_key, bytes(range(32)), replace=False)
    cut_off, other = brokers
    wanted = Wanted(("secrets",), "set the secret k3", "k3")
    asker = Asker(OPERATOR, OPERATOR)
    change = await ask(cut_off.bench.broker, "POST /x", {"body": {}}, wanted, asker)
    await known(brokers)
    away(relay)
    core = cut_off.bench.broker
    await cut_off.bench.until(lambda: not core.ledger.writable)
    body = {"id": change.id, "decision": "deny", "reason": "no"}
    reply = await cut_off.operator.post("/api/changes", json=body)
    assert reply.status_code == 503, reply.text
    assert "another broker may still apply it" in reply.text
    assert other.bench.broker.stepups.get(change.id).status.open
    whole(relay)
    await other.bench.until(
        lambda: other.bench.broker.stepups.get(change.id).status is StepUpStatus.DENIED
    )


async def test_every_reading_without_the_store_is_marked(
    brokers: list[Broker], relay: Relay
) -> None:
    """Lists, single objects and refusals alike, and none once the store is back."""
    cut_off, _ = brokers
    agent = await cut_off.agent("one", "read:calendar")
    paths = [
        "/api/agents",
        "/api/agents?limit=1",
        f"/api/agents/{agent.id}",
        "/api/agents/agt_none",
        "/api/agents/stepup",
        "/api/audit",
        "/api/policy",
        "/api/limits",
        "/api/files",
        "/api/connections",
        "/api/status",
        "/api/auth/me",
    ]
    away(relay)
    core = cut_off.bench.broker
    await cut_off.bench.until(lambda: not core.ledger.writable)
    for path in paths:
        reply = await cut_off.operator.get(path)
        assert reply.json()["stale"] is True, path
        assert reply.text.count('"stale"') == 1, path
    whole(relay)
    await cut_off.bench.until(lambda: core.ledger.writable)
    for path in paths:
        assert "stale" not in (await cut_off.operator.get(path)).json(), path


async def test_a_cut_whose_outcome_was_unknown_is_recorded_once(
    brokers: list[Broker], relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it, and lost the answer: what is kept for later is let go."""
    monkeypatch.setattr(urgent_line, "DOUBT_SECONDS", 0.3)
    cut_off, other = brokers
    agent = await cut_off.agent("one", "read:calendar")
    await known(brokers)
    relay.lose, relay.word = "answer", b"agent.revoked"
    body = {"agent_id": agent.id, "reason": "drill"}
    post = cut_off.operator.post("/api/agents/revoke", json=body)
    asked = asyncio.ensure_future(post)
    await relay.lost.wait()
    away(relay)
    assert (await asked).json()["recorded"] is False
    whole(relay)
    core = cut_off.bench.broker
    await cut_off.bench.until(
        lambda: core.ledger.writable and not core.recording.cuts.unfinished
    )
    await known(brokers)
    (event,) = await other.bench.events("agent.revoked")
    assert event.detail["broker"] == core.team.brokers.id


async def stop_meanwhile(broker: Broker, agent: Agent) -> None:
    """End the agent at a broker that knows nothing of the cut, and serve it again."""
    await revoke_agent(broker.bench.broker, agent.id, "other", OPERATOR)
    await restore_agent(broker.bench.broker, agent.id, OPERATOR)


async def panic_meanwhile(broker: Broker, _: Agent) -> None:
    await panic(broker.bench.broker, "other", OPERATOR)
    await lift_panic(broker.bench.broker, OPERATOR)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("everyone", [False, True])
async def test_a_cut_without_the_store_wins_over_what_was_restored_meanwhile(
    brokers: list[Broker], relay: Relay, everyone: bool, restarted: bool
) -> None:
    """It is the first thing written when the store is back, by the next process too."""
    cut_off, other = brokers
    agent = await cut_off.agent("one", "read:calendar")
    await known(brokers)
    away(relay)
    body: dict[str, Any] = {"all": True} if everyone else {"agent_id": agent.id}
    body["reason"] = "drill"
    told = (await cut_off.operator.post("/api/agents/revoke", json=body)).json()
    assert (told["recorded"], told["others"]) == (False, "not_told")
    await (panic_meanwhile if everyone else stop_meanwhile)(other, agent)
    assert (await other.token(agent, "read:calendar")).status_code == 200
    before = other.bench.ledger.head.seq
    if restarted:
        bench = cut_off.bench
        await bench.close()
        whole(relay)
        clocks, homes = [bench.clock], [bench.broker.settings]
        async with brokers_of(bench.home.data.parent, clocks, homes) as (again,):
            await check(agent, [again, other], before, everyone)
    else:
        whole(relay)
        await check(agent, brokers, before, everyone)


async def check(
    agent: Agent, brokers: list[Broker], before: int, everyone: bool
) -> None:
    """See that the cut holds at all brokers, and is what was recorded first."""
    kind = EventType.PANIC_ON if everyone else EventType.AGENT_REVOKED
    one, other = brokers
    async with asyncio.timeout(PATIENT):
        while (  # noqa: ASYNC110 - it is elsewhere
            await other.token(agent, "read:calendar")
        ).status_code == 200:
            await asyncio.sleep(0.05)
    await known(brokers)
    for each in brokers:
        registry = each.bench.broker.registry
        assert (registry.revocations.panic is not None) is everyone
        revoked = registry.agent(agent.id).status is AgentStatus.REVOKED
        assert revoked is not everyone
    first = next(
        event
        for event in await one.bench.events()
        if event.seq > before
        and event.actor.kind is not ActorKind.AGENT
        and event.type is not EventType.AUDIT_AMBIGUOUS
    )
    assert (first.type, bool(first.detail.get("took_effect_at"))) == (kind, True)
