"""What a token is good for: one action, or an hour of counted uses, for its server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import Gate, details_of, latched

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.usecases.redeem import introspect, revoke_token
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.scopes import change_served
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.model import Action, Agent, Event, EventType
from agentvault_tui.operator_api.requests import AgentRequest

ONE_PERSON = {"recipients": ["ada@acme.test"]}
MAIL = Action(("send:email",), "send:email", "mail:outbox", ONE_PERSON)
READ = Action(("read:calendar",), "read:calendar", "calendar:primary")
MIXED = Action(
    ("read:calendar", "send:email"), "read:calendar", None, ONE_PERSON, named=False
)
SCOPES = ("read:calendar", "write:calendar", "send:email", "send:payment")


@pytest.fixture
async def agent(bench: Bench) -> Agent:
    return await bench.agent("agent", *SCOPES)


async def server(bench: Bench, name: str = "api", **more: Any) -> Agent:
    return await bench.agent(name, "read:files", resource_server=True, **more)


async def granted(bench: Bench, agent: Agent, action: Action) -> str:
    details = details_of(action) if action.named else None
    answer = await request_token(
        bench.broker, agent, action, resource=None, details=details
    )
    assert isinstance(answer, Granted), answer
    return answer.access_token


async def active(bench: Bench, server: Agent, token: str) -> bool:
    return (await introspect(bench.broker, server, token)).token is not None


async def told(bench: Bench) -> list[tuple[Event, int]]:
    return [(one, one.detail["count"]) for one in await bench.events("token.used")]


async def test_a_send_that_policy_allowed_is_good_for_one_action(
    bench: Bench, agent: Agent
) -> None:
    """Of any number that ask at once one gets it, by a record before its answer."""
    token, api = await granted(bench, agent, MAIL), await server(bench)
    answers = await asyncio.gather(*(active(bench, api, token) for _ in range(100)))
    assert answers.count(True) == 1
    (event,) = await bench.events("token.redeemed")
    (decision,) = await bench.events("token.decision")
    assert event.actor.id == api.id
    assert event.decision_id == decision.decision_id
    assert event.detail["token_id"] == decision.detail["token_id"]
    assert decision.detail["single_use"] is True
    assert bench.broker.registry.tokens_of(agent.id) == []
    assert await told(bench) == []


async def test_one_scope_that_sends_makes_a_token_good_for_one_action(
    bench: Bench, agent: Agent
) -> None:
    """Asked for together with a read, the whole token is consumed at once."""
    token, api = await granted(bench, agent, MIXED), await server(bench)
    assert [await active(bench, api, token) for _ in range(3)] == [True, False, False]


async def test_a_used_token_stays_used_over_a_restart(
    bench: Bench, agent: Agent
) -> None:
    """The one that was used is spent; the one that was not is good for one action."""
    used, fresh = [await granted(bench, agent, MAIL) for _ in range(2)]
    api = await server(bench)
    assert await active(bench, api, used)
    async with bench.restarted() as again:
        assert not await active(again, api, used)
        answers = [await active(again, api, fresh) for _ in range(3)]
        assert answers == [True, False, False]
        *_, event = await again.events("token.redeemed")
        *_, decision = await again.events("token.decision")
        assert event.decision_id == decision.decision_id


async def test_without_a_record_no_server_hears_that_it_is_active(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger cannot write the answer is an error, and no second chance."""
    token, api = await granted(bench, agent, MAIL), await server(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await introspect(bench.broker, api, token)
    assert not await active(bench, api, token)


async def test_whose_token_it_is_may_ask_without_consuming_it(
    bench: Bench, agent: Agent
) -> None:
    """Only a resource server's question counts."""
    token, api = await granted(bench, agent, MAIL), await server(bench)
    assert [await active(bench, agent, token) for _ in range(3)] == [True] * 3
    assert await active(bench, api, token)


async def test_uses_of_a_read_are_counted_and_told_once_a_minute(
    bench: Bench, agent: Agent, clock: ManualClock
) -> None:
    """300 answers are 300 counted, in few events, a pair of token and server each."""
    token = await granted(bench, agent, READ)
    api, other = await server(bench), await server(bench, "other")
    for _ in range(300):
        assert await active(bench, api, token)
    assert await active(bench, other, token)
    await bench.broker.recording.uses.record()
    assert sorted(count for _, count in await told(bench)) == [1, 300]
    assert await active(bench, api, token)
    clock.advance(59)
    await bench.broker.recording.uses.record()
    assert len(await told(bench)) == 2
    clock.advance(1)
    await bench.broker.recording.uses.record()
    event, count = (await told(bench))[-1]
    assert (count, event.actor.id, event.agent_id) == (1, api.id, agent.id)
    assert event.detail["token_id"] == bench.broker.registry.tokens_of(agent.id)[0].id
    clock.advance(60)
    await bench.broker.recording.uses.record()
    assert len(await told(bench)) == 3
    assert not bench.broker.recording.uses._reported


async def test_uses_not_told_yet_are_told_at_the_end_and_survive_an_outage(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop records what is left; what could not be written is kept."""
    token, api = await granted(bench, agent, READ), await server(bench)
    await active(bench, api, token)
    await bench.broker.recording.uses.record()
    await active(bench, api, token)
    await active(bench, api, token)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await bench.broker.recording.uses.record(ending=True)
    await bench.broker.recording.uses.record(ending=True)
    assert [count for _, count in await told(bench)] == [1, 2]


PAIRS: list[tuple[dict[str, Any], Action, bool]] = [
    ({"serves": ("send:email",)}, MAIL, True),
    ({"serves": ("send:payment", "read:calendar")}, MAIL, False),
    ({"resources": ("mail:outbox",)}, MAIL, True),
    ({"resources": ("MAIL:outbox",)}, MAIL, True),
    ({"resources": ("mail:",)}, MAIL, True),
    ({"resources": ("mail:out",)}, MAIL, False),
    ({"resources": ("mail:outbox/drafts",)}, MAIL, False),
    ({"resources": ("mail:outbox",)}, replace(MAIL, resource="mail:outbox/2"), True),
    ({"resources": ("mail:outbox",)}, replace(MAIL, resource="mail:outbox2"), False),
    ({"resources": ("mail:outbox",)}, replace(MAIL, resource=None), False),
    ({"serves": ("send:email",), "resources": ("stripe:x",)}, MAIL, False),
    ({"serves": ("read:calendar",)}, READ, True),
    ({"serves": ("write:calendar",)}, READ, False),
    ({"serves": ("write:calendar",)}, MIXED, False),
    ({"serves": ("read:calendar",)}, MIXED, True),
    ({}, MAIL, True),
]


@pytest.mark.parametrize(("served", "action", "sees"), PAIRS)
async def test_a_server_sees_and_consumes_tokens_of_what_it_serves_alone(
    bench: Bench, agent: Agent, served: dict[str, Any], action: Action, sees: bool
) -> None:
    """To others a token is not active, and what it is meant for still works."""
    token = await granted(bench, agent, action)
    special, any_other = await server(bench, **served), await server(bench, "any")
    found = (await introspect(bench.broker, special, token)).token
    assert (found is not None) is sees
    if found is not None and served.get("serves"):
        assert set(found.scope.split()) <= set(served["serves"])
    consumed = sees and action is not READ
    assert await active(bench, any_other, token) is not consumed


async def test_a_token_is_no_servers_whose_action_it_does_not_serve(
    bench: Bench, agent: Agent
) -> None:
    """A mail named beside a read is not consumed by the calendar's server."""
    both = replace(MAIL, scopes=("read:calendar", "send:email"))
    token = await granted(bench, agent, both)
    calendar = await server(bench, "calendar", serves=("read:calendar",))
    assert not await active(bench, calendar, token)
    assert await active(bench, await server(bench, serves=("send:email",)), token)


WRONG: list[dict[str, Any]] = [
    {"serves": ("send:emial",)},
    {"resources": ("no uri",)},
    {"resources": ("https://api.test/#x",)},
    {"resources": ("https://api.test/../x",)},
    {"resources": ("x:" + "y" * 500,)},
]


async def test_what_a_server_serves_is_kept_recorded_and_checked(bench: Bench) -> None:
    """Over a restart; in the event; a scope nobody knows or no URI is refused."""
    wanted = AgentRequest(name="api", owner="olga", serves=("send:email",))
    api = (await register(bench.broker, wanted, OPERATOR)).agent
    assert api.resource_server
    both = structs.replace(wanted, name="b", resources=("https://API.test/v1", "x:y"))
    second = (await register(bench.broker, both, OPERATOR)).agent
    assert second.resources == ("https://api.test/v1", "x:y")
    *_, event = await bench.events("agent.registered")
    assert event.detail["serves"] == ["send:email"]
    assert event.detail["resources"] == list(second.resources)
    for wrong in WRONG:
        with pytest.raises(UsageError):
            await register(
                bench.broker, structs.replace(both, name="c", **wrong), OPERATOR
            )
    async with bench.restarted() as again:
        assert again.broker.registry.agent(second.id) == second


async def test_what_a_server_serves_can_be_changed(bench: Bench, agent: Agent) -> None:
    """From its record on it sees tokens of that alone; what is not said stays."""
    api = await server(bench, serves=("send:email",))
    mail = await granted(bench, agent, MAIL)
    before = bench.ledger.head.seq
    changed = await change_served(
        bench.broker, api.id, ["send:payment", "read:calendar"], ["MAIL:in"], OPERATOR
    )
    assert changed.serves == ("read:calendar", "send:payment")
    assert changed.resources == ("mail:in",)
    assert not await active(bench, changed, mail)
    *_, event = await bench.events("agent.scopes_changed")
    assert event.detail["serves"] == ["read:calendar", "send:payment"]
    assert event.detail["granted"] == event.detail["ungranted"] == []
    assert changed in (await bench.ledger.load()).agents
    for seq, served in ((before, api.serves), (event.seq, changed.serves)):
        past = await bench.ledger.past.at(seq=seq, moment=None)
        assert [one.serves for one in past.agents if one.id == api.id] == [served]
    kept = await change_served(bench.broker, api.id, None, ["mail:out"], OPERATOR)
    assert (kept.serves, kept.resources) == (changed.serves, ("mail:out",))
    kept = await change_served(bench.broker, api.id, ["send:email"], None, OPERATOR)
    assert (kept.serves, kept.resources) == (("send:email",), ("mail:out",))
    everything = await change_served(bench.broker, api.id, [], [], OPERATOR)
    assert await active(bench, everything, mail)


async def test_a_change_of_what_a_server_serves_is_checked(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a resource server serves, only known scopes and URIs; and a cut wins."""
    api = await server(bench)
    with pytest.raises(ConflictError, match="no resource server"):
        await change_served(bench.broker, agent.id, ["send:email"], [], OPERATOR)
    with pytest.raises(UsageError, match="unknown scope"):
        await change_served(bench.broker, api.id, ["send:emial"], [], OPERATOR)
    with pytest.raises(UsageError, match="cannot be a resource"):
        await change_served(bench.broker, api.id, [], ["in box"], OPERATOR)
    with monkeypatch.context() as patched:
        patched.setattr(bench.ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await change_served(bench.broker, api.id, ["send:email"], [], OPERATOR)
    assert bench.broker.registry.agent(api.id).serves == ()
    await bench.broker.recording.cuts.record_missed()
    gate = Gate(bench, monkeypatch, EventType.AGENT_SCOPES_CHANGED)
    changing = asyncio.create_task(
        change_served(bench.broker, api.id, ["send:email"], [], OPERATOR)
    )
    await gate.reached.wait()
    await revoke_agent(bench.broker, api.id, "", OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError):
        await changing
    assert [a.status for a in (await bench.ledger.load()).agents if a.id == api.id] == [
        "revoked"
    ]


async def test_uses_are_recorded_before_the_token_is_handed_back(
    bench: Bench, agent: Agent
) -> None:
    """What was counted and not recorded yet stands before the end, and once."""
    token, api = await granted(bench, agent, READ), await server(bench)
    assert await active(bench, api, token)
    await bench.broker.recording.uses.record()
    assert [await active(bench, api, token) for _ in range(2)] == [True, True]
    await revoke_token(bench.broker, agent, token)
    await bench.broker.recording.uses.record(ending=True)
    kinds = [event.type for event in await bench.events()][-3:]
    assert kinds == ["token.used", "token.used", "token.revoked"]
    assert [count for _, count in await told(bench)] == [1, 2]


@pytest.mark.parametrize("action", [READ, MAIL])
async def test_every_event_of_a_token_names_its_decision(
    bench: Bench, agent: Agent, action: Action
) -> None:
    """Issued, used and handed back have one decision_id, also over a restart."""
    token, api = await granted(bench, agent, action), await server(bench)
    if action is READ:
        assert await active(bench, api, token)
    await bench.broker.recording.uses.record()
    async with bench.restarted() as again:
        if action is READ:
            assert await active(again, api, token)
        await revoke_token(again.broker, agent, token)
        about = [e for e in await again.events() if e.type.startswith("token.")]
        assert len(about) == (4 if action is READ else 2)
        assert {event.decision_id for event in about} == {about[0].decision_id}
        assert about[0].decision_id
