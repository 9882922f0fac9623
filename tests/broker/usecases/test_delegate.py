"""An agent passes on less than it has, and what it passed on ends with its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.usecases import delegate
from agentvault_tui.broker.usecases.decide import decide
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.model import Agent, Draft, Verdict, sha256_hex
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.policy.texts import shipped_policy
from agentvault_tui.settings import DelegationSettings

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
ISSUER = "http://127.0.0.1:7717"
SCOPES = ("read:calendar", "write:calendar")
NOTHING: frozenset[str] = frozenset()


class Delegates:
    """Agents of one broker that pass tokens on over the agents' HTTP."""

    def __init__(self, bench: Bench, client: httpx.AsyncClient) -> None:
        self.bench, self.client = bench, client
        self.secrets: dict[str, str] = {}

    async def agent(self, name: str, *scopes: str) -> Agent:
        wanted = AgentRequest(name=name, owner="olga", purpose="tests", scopes=scopes)
        made = await register(self.bench.broker, wanted, OPERATOR)
        assert made.client_secret is not None
        self.secrets[made.agent.id] = made.client_secret
        return made.agent

    async def let(self, agent: Agent, other: Agent, *scopes: str) -> int:
        wanted = frozenset(scopes)
        broker = self.bench.broker
        return (await change_delegates(broker, agent.id, other.id, wanted, OPERATOR))[2]

    async def post(self, agent: Agent, path: str, **form: Any) -> httpx.Response:
        auth = (agent.id, self.secrets[agent.id])
        texts = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in form.items()
        }
        return await self.client.post(path, data=texts, auth=auth)

    async def token(self, agent: Agent, scope: str, **more: Any) -> str:
        form = {"grant_type": "client_credentials", "scope": scope, **more}
        reply = await self.post(agent, "/oauth/token", **form)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["access_token"])

    async def exchange(
        self, agent: Agent, token: str, other: Agent | str, **more: Any
    ) -> httpx.Response:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS,
            "audience": other if isinstance(other, str) else other.client_id,
            **more,
        }
        return await self.post(agent, "/oauth/token", **form)

    async def passed(self, agent: Agent, token: str, other: Agent, **more: Any) -> str:
        reply = await self.exchange(agent, token, other, **more)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["access_token"])

    async def seen(self, agent: Agent, token: str) -> dict[str, Any]:
        reply = await self.post(agent, "/oauth/introspect", token=token)
        answer: dict[str, Any] = reply.json()
        return answer


@pytest.fixture
async def stage(bench: Bench) -> Any:
    app = httpx.ASGITransport(AgentsApi(bench.broker, ISSUER))
    async with httpx.AsyncClient(transport=app, base_url=ISSUER) as client:
        yield Delegates(bench, client)


@pytest.fixture
async def line(stage: Delegates) -> tuple[Agent, Agent, Agent]:
    """Three agents, each of which may pass both scopes on to the next."""
    first = await stage.agent("first", *SCOPES)
    second, third = (
        await stage.agent("second", "read:contacts"),
        await stage.agent("third", "read:contacts"),
    )
    await stage.let(first, second, *SCOPES)
    await stage.let(second, third, *SCOPES)
    return first, second, third


async def test_a_passed_on_token_says_who_holds_it_and_for_whom(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """The holder reads sub, client_id and the nested act claim (RFC 8693 4.1)."""
    first, second, third = line
    parent = await stage.token(first, "read:calendar write:calendar")
    reply = await stage.exchange(first, parent, second, scope="read:calendar")
    answer = reply.json()
    assert reply.status_code == 200
    assert answer["issued_token_type"] == ACCESS
    assert (answer["scope"], answer["token_type"]) == ("read:calendar", "Bearer")
    assert answer["expires_in"] <= 3600
    token = answer["access_token"]
    seen = await stage.seen(second, token)
    assert seen["client_id"] == second.client_id
    assert (seen["sub"], seen["act"]) == (first.id, {"sub": second.id})
    last = await stage.passed(second, token, third)
    seen = await stage.seen(third, last)
    assert seen["sub"] == first.id
    assert seen["act"] == {"sub": third.id, "act": {"sub": second.id}}
    assert seen["scope"] == "read:calendar"
    for stranger in (first, third):
        assert await stage.seen(stranger, token) == {"active": False}
    event = (await stage.bench.events("token.delegated"))[0]
    assert event.detail["chain"] == [first.id, second.id]
    assert (event.actor.id, event.agent_id) == (first.id, second.id)
    assert event.outcome is None


async def test_nothing_is_passed_on_without_an_operator(stage: Delegates) -> None:
    """Without a delegation, for another scope, or after its end: not_delegable."""
    first, second = (
        await stage.agent("first", *SCOPES),
        await stage.agent("second", "read:contacts"),
    )
    token = await stage.token(first, "read:calendar")
    for allowed in ((), ("write:calendar",), ("read:calendar",), ()):
        await stage.let(first, second, *allowed)
        reply = await stage.exchange(first, token, second)
        if allowed == ("read:calendar",):
            assert reply.status_code == 200
        else:
            assert reply.status_code == 403
            assert reply.json()["reason"] == "not_delegable"


async def test_reasons_come_in_the_contracts_order(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """Each removes the one before it and meets the next."""
    first, second, third = line
    broker = stage.bench.broker
    broker.settings = replace(
        broker.settings, delegation=DelegationSettings(max_depth=0, max_children=0)
    )
    parent = await stage.token(first, "read:calendar")

    async def reason(agent: Agent, token: str, other: Agent, **more: Any) -> str:
        reply = await stage.exchange(agent, token, other, **more)
        assert reply.status_code == 403, reply.text
        return str(reply.json()["reason"])

    wide = {"scope": "write:calendar"}
    assert await reason(first, parent, first, **wide) == "loop"
    assert await reason(first, parent, third, **wide) == "not_delegable"
    assert await reason(first, parent, second, **wide) == "wider_than_parent"
    assert await reason(first, parent, second) == "too_deep"
    limits = DelegationSettings(max_depth=1, max_children=0)
    broker.settings = replace(broker.settings, delegation=limits)
    assert await reason(first, parent, second) == "too_many"
    limits = DelegationSettings(max_depth=1, max_children=1)
    broker.settings = replace(broker.settings, delegation=limits)
    token = await stage.passed(first, parent, second)
    assert await reason(first, parent, second) == "too_many"
    assert await reason(second, token, first, **wide) == "loop"
    assert await reason(second, token, third) == "too_deep"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"subject_token": "av_t_unknown"}, "invalid_request"),
        ({"subject_token_type": "urn:other"}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"requested_token_type": "urn:other"}, "invalid_request"),
        ({"actor_token": "av_t_x"}, "invalid_request"),
        ({"audience": ""}, "invalid_request"),
        ({"audience": "agt_nobody"}, "invalid_target"),
        ({"scope": "READ:calendar"}, "invalid_scope"),
        ({"scope": "rеad:calendar"}, "invalid_scope"),
    ],
)
async def test_an_exchange_that_makes_no_sense_is_a_400(
    stage: Delegates,
    line: tuple[Agent, Agent, Agent],
    change: dict[str, str],
    error: str,
) -> None:
    """Nothing is issued, and the word is the standard's (RFC 8693 2.2.2)."""
    first, second, _ = line
    token = await stage.token(first, "read:calendar")
    reply = await stage.exchange(first, token, second, **change)
    assert (reply.status_code, reply.json()["error"]) == (400, error)


async def test_a_foreign_an_ended_and_a_removed_agents_token_are_refused(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """Only the live token of the client that asks is exchanged, for a served agent."""
    first, second, third = line
    token = await stage.token(first, "read:calendar")
    foreign = await stage.exchange(second, token, third)
    assert (foreign.status_code, foreign.json()["error"]) == (400, "invalid_request")
    await revoke_agent(stage.bench.broker, second.id, "", OPERATOR)
    gone = await stage.exchange(first, token, second)
    assert (gone.status_code, gone.json()["error"]) == (400, "invalid_target")
    refused = await stage.exchange(second, token, third)
    assert (refused.status_code, refused.json()["reason"]) == (403, "agent_revoked")
    stage.bench.clock.advance(3601)
    old = await stage.exchange(first, token, third)
    assert (old.status_code, old.json()["error"]) == (400, "invalid_request")


async def test_a_child_lives_no_longer_than_its_parent(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """expires_in is what is left of the parent, and both end in the same moment."""
    first, second, _ = line
    parent = await stage.token(first, "read:calendar")
    stage.bench.clock.advance(3000)
    reply = await stage.exchange(first, parent, second)
    assert reply.json()["expires_in"] == 600
    token = reply.json()["access_token"]
    stage.bench.clock.advance(599)
    assert (await stage.seen(second, token))["active"]
    stage.bench.clock.advance(1)
    assert await stage.seen(second, token) == {"active": False}


@pytest.mark.parametrize("how", ["agent", "token", "scope", "panic", "remove"])
async def test_all_below_ends_in_the_turn_of_the_revocation(
    stage: Delegates, line: tuple[Agent, Agent, Agent], how: str
) -> None:
    """Before anything is recorded, no token of the tree is worth anything."""
    first, second, third = line
    broker, registry = stage.bench.broker, stage.bench.broker.registry
    parent = await stage.token(first, "read:calendar write:calendar")
    child = await stage.passed(first, parent, second, scope="read:calendar")
    last = await stage.passed(second, child, third)
    other = await stage.token(first, "read:calendar")
    kept = await stage.passed(first, other, second)
    cut: Any
    match how:
        case "agent":
            cut = revoke_agent(broker, first.id, "", OPERATOR)
        case "panic":
            cut = panic(broker, "drill", OPERATOR)
        case "scope":
            taken = frozenset({"write:calendar"})
            cut = change_scopes(broker, first.id, NOTHING, taken, OPERATOR)
        case "remove":
            cut = stage.let(first, second)
        case _:
            cut = stage.post(first, "/oauth/revoke", token=parent)
    answer = await cut
    for holder, token in ((second, child), (third, last)):
        assert await stage.seen(holder, token) == {"active": False}
    alive = how in {"token", "scope"}
    assert (await stage.seen(second, kept))["active"] is alive
    assert len(registry.delegations) == (1 if alive else 0) or how == "panic"
    counts = {"agent": 3, "panic": 3, "scope": 2, "remove": 3}
    if how in {"agent", "panic"}:
        assert answer.delegated == counts[how]
    elif how == "scope":
        assert answer[2] == 2
    elif how == "remove":
        assert answer == 3
    if how != "panic":
        revoked = await stage.bench.events("token.revoked")
        assert {e.agent_id for e in revoked} >= {second.id, third.id}


async def test_a_tree_outlives_a_restart_and_ends_with_its_root(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """What was passed on is found again, and so is what it depends on."""
    first, second, third = line
    parent = await stage.token(first, "read:calendar")
    child = await stage.passed(first, parent, second)
    await stage.passed(second, child, third)
    async with stage.bench.restarted() as again:
        assert len(again.broker.registry.delegations) == 2
        cut = await revoke_agent(again.broker, first.id, "", OPERATOR)
        assert cut.delegated == 2


@pytest.mark.parametrize("slow", [False, True])
async def test_sixty_four_at_once_never_pass_max_children(
    stage: Delegates,
    line: tuple[Agent, Agent, Agent],
    monkeypatch: pytest.MonkeyPatch,
    slow: bool,
) -> None:
    """Those that wait for the disk count already, and a call-out lets none slip by."""
    first, second, _ = line
    parent = await stage.token(first, "read:calendar")

    async def slowly(*args: Any, **more: Any) -> Verdict:
        verdict = await decide(*args, **more)
        await asyncio.sleep(0.01)  # as a call-out takes
        return verdict

    if slow:
        monkeypatch.setattr(delegate, "decide", slowly)
    replies = await asyncio.gather(
        *(stage.exchange(first, parent, second) for _ in range(64))
    )
    assert sum(reply.status_code == 200 for reply in replies) == 20
    refused = [reply.json()["reason"] for reply in replies if reply.status_code != 200]
    assert set(refused) == {"too_many"}


async def test_only_its_holder_ends_it_and_it_authenticates_no_evaluation(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """Who passed it on knows it too: that gives no say over it, nor its holder's."""
    first, second, third = line
    parent = await stage.token(first, "read:calendar")
    token = await stage.passed(first, parent, second)
    for stranger in (first, third):
        reply = await stage.post(stranger, "/oauth/revoke", token=token)
        assert reply.status_code == 200
        assert (await stage.exchange(stranger, token, third)).status_code == 400
    assert (await stage.seen(second, token))["active"]
    asked = {
        "subject": {"type": "agent", "id": second.id},
        "action": {"name": "read:contacts"},
        "resource": {"type": "resource", "id": ""},
    }
    bearer = {"Authorization": f"Bearer {token}"}
    reply = await stage.client.post("/access/v1/evaluation", json=asked, headers=bearer)
    assert reply.status_code == 401
    assert (await stage.post(second, "/oauth/revoke", token=token)).status_code == 200
    assert not (await stage.seen(second, token))["active"]


@pytest.mark.parametrize(
    "more",
    [
        {"resource": "calendar:primary/x"},
        {"resource": "calendar:Primary"},
        {"resource": "calendar:prim\u0430ry"},
        {"resource": "calendar:primary/../other"},
        {"authorization_details": [{"type": "agentvault:action", "parameters": {}}]},
        {
            "authorization_details": [
                {"type": "agentvault:action", "parameters": {"count": 2, "Count": 1}}
            ]
        },
        {
            "authorization_details": [
                {"type": "agentvault:action", "parameters": {"count": 6}}
            ]
        },
        {"authorization_details": [{"type": "other", "count": 2}]},
    ],
)
async def test_what_is_wider_is_refused_however_it_is_spelt(
    stage: Delegates, line: tuple[Agent, Agent, Agent], more: dict[str, Any]
) -> None:
    """A path below, a case, a look-alike, a parameter left out, added or larger."""
    first, second, _ = line
    whole = {"type": "agentvault:action", "resource": "calendar:primary"}
    details = [{**whole, "parameters": {"count": 5}}]
    parent = await stage.token(first, "read:calendar", authorization_details=details)
    reply = await stage.exchange(first, parent, second, **more)
    assert (reply.status_code, reply.json()["reason"]) == (403, "wider_than_parent")


async def test_less_of_one_action_is_passed_on_as_a_resource_server_reads_it(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """A smaller count goes through, with the parent's resource; twice it is a 400."""
    first, second, _ = line
    whole = {"type": "agentvault:action", "resource": "calendar:primary"}
    details = [{**whole, "parameters": {"count": 5}}]
    parent = await stage.token(first, "read:calendar", authorization_details=details)
    less = [{"type": "agentvault:action", "parameters": {"count": 4}}]
    token = await stage.passed(first, parent, second, authorization_details=less)
    seen = (await stage.seen(second, token))["authorization_details"]
    assert seen[0]["parameters"] == {"count": 4}
    assert seen[0]["resource"] == "calendar:primary"
    twice = '[{"type":"agentvault:action","parameters":{"count":4,"count":9}}]'
    reply = await stage.exchange(first, parent, second, authorization_details=twice)
    assert reply.status_code == 400


@pytest.mark.parametrize(
    ("own", "asked", "beyond"),
    [
        ({"resource": f"{ISSUER}/gw/api"}, {}, None),
        (
            {"resource": f"{ISSUER}/gw/api"},
            {"resource": f"{ISSUER}/gw/other"},
            "resource",
        ),
        ({}, {"authorization_details": [{"type": "bank", "account": "1"}]}, "details"),
    ],
)
async def test_no_other_audience_and_no_details_of_another_type_are_added(
    stage: Delegates,
    line: tuple[Agent, Agent, Agent],
    own: dict[str, Any],
    asked: dict[str, Any],
    beyond: str | None,
) -> None:
    """Nobody here reads what less of them would be."""
    first, second, _ = line
    parent = await stage.token(first, "read:calendar", **own)
    reply = await stage.exchange(first, parent, second, **asked)
    if beyond is None:
        assert reply.status_code == 200
        return
    told = reply.json()
    assert (reply.status_code, told["reason"]) == (403, "wider_than_parent")
    assert beyond in told["error_description"]


async def test_what_policy_wants_a_person_for_is_not_passed_on(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """Its first agent could do it alone; for another it would have to be approved."""
    first, second, _ = line
    passed = (
        '@id("passed")\n@why("It was passed on.")\n@obligation("step_up")\n'
        "permit (principal, action, resource) when { context.delegated };\n"
    )
    stage.bench.home.policy_file.write_text(passed + shipped_policy())
    await reload_policy(stage.bench.broker)
    parent = await stage.token(first, "read:calendar")
    reply = await stage.exchange(first, parent, second)
    assert (reply.status_code, reply.json()["reason"]) == (403, "stepup_required")
    assert stage.bench.broker.stepups.open() == []


async def test_what_is_taken_from_one_ends_its_tokens_of_that_scope_alone(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """Tokens of another agent, or of another scope, live on."""
    first, second, third = line
    await stage.let(first, third, *SCOPES)
    parent = await stage.token(first, " ".join(SCOPES))
    read, write = [
        await stage.passed(first, parent, second, scope=scope) for scope in SCOPES
    ]
    other = await stage.passed(first, parent, third, scope="read:calendar")
    assert await stage.let(first, second, "write:calendar") == 1
    seen = [
        (await stage.seen(who, token))["active"]
        for who, token in ((second, read), (second, write), (third, other))
    ]
    assert seen == [False, True, True]


@pytest.mark.parametrize("ended", ["the delegation", "the token"])
async def test_what_ends_while_an_exchange_is_recorded_gives_no_token(
    stage: Delegates,
    line: tuple[Agent, Agent, Agent],
    monkeypatch: pytest.MonkeyPatch,
    ended: str,
) -> None:
    """It was decided before, and is void."""
    first, second, _ = line
    parent = await stage.token(first, "read:calendar")
    record = stage.bench.broker.record

    async def during(*drafts: Draft, **more: Any) -> Any:
        written = await record(*drafts, **more)
        monkeypatch.setattr(stage.bench.broker, "record", record)
        if ended == "the delegation":
            await stage.let(first, second)
        else:
            await stage.post(first, "/oauth/revoke", token=parent)
        return written

    monkeypatch.setattr(stage.bench.broker, "record", during)
    reply = await stage.exchange(first, parent, second)
    assert reply.status_code == 403
    assert stage.bench.broker.registry.tokens_of(second.id) == []


async def test_less_of_a_token_for_one_action_is_good_for_one_action(
    stage: Delegates,
) -> None:
    """Also where what is left of it could be done any number of times."""
    both = ("read:calendar", "send:email")
    first = await stage.agent("first", *both)
    second = await stage.agent("second", "read:contacts")
    await stage.let(first, second, *both)
    people = {"type": "agentvault:action", "parameters": {"recipients": ["a@x.test"]}}
    parent = await stage.token(first, " ".join(both), authorization_details=[people])
    token = await stage.passed(first, parent, second, scope="read:calendar")
    (held,) = stage.bench.broker.registry.tokens_of(second.id)
    assert held.single_use
    assert held.sha256 == sha256_hex(token)


async def test_an_agent_passes_on_no_more_than_so_many(
    stage: Delegates, line: tuple[Agent, Agent, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all its tokens together; one that ends makes room."""
    monkeypatch.setattr(delegate, "MOST_PASSED_ON", 2)
    first, second, _ = line
    parents = [await stage.token(first, "read:calendar") for _ in range(3)]
    given = [await stage.passed(first, parent, second) for parent in parents[:2]]
    reply = await stage.exchange(first, parents[2], second)
    assert (reply.status_code, reply.json()["reason"]) == (403, "too_many")
    await stage.post(second, "/oauth/revoke", token=given[0])
    await stage.passed(first, parents[2], second)


async def test_a_single_use_is_one_use_of_the_whole_tree(stage: Delegates) -> None:
    """What is good for one action is used by whoever of the tree comes first."""
    first = await stage.agent("first", "send:email")
    second = await stage.agent("second", "read:contacts")
    await stage.let(first, second, "send:email")
    wanted = AgentRequest(
        name="mail-api", owner="olga", purpose="tests", resource_server=True
    )
    server = await register(stage.bench.broker, wanted, OPERATOR)
    assert server.client_secret is not None
    stage.secrets[server.agent.id] = server.client_secret
    action = {"type": "agentvault:action", "parameters": {"recipients": ["a@x.test"]}}
    parent = await stage.token(first, "send:email", authorization_details=[action])
    tokens = [await stage.passed(first, parent, second) for _ in range(3)]
    seen = [stage.seen(server.agent, token) for token in (*tokens, parent)]
    answers = await asyncio.gather(*seen)
    assert sum(answer["active"] for answer in answers) == 1
    assert len(stage.bench.broker.registry.delegations) == 0
    assert not stage.bench.broker.registry.tokens_of(first.id)


LIMIT = """
[[limits]]
id = "reads"
scopes = ["read:calendar"]
within = "1h"
count = 3
over = "deny"
"""


async def test_a_use_of_a_passed_on_token_counts_for_everyone_above(
    stage: Delegates, line: tuple[Agent, Agent, Agent]
) -> None:
    """A limit on the first agent holds for what it passed on, over a restart too."""
    first, second, third = line
    (stage.bench.home.config / "limits.toml").write_text(LIMIT)
    await reload_policy(stage.bench.broker)
    token = await stage.token(first, "read:calendar")
    token = await stage.passed(first, token, second)
    await stage.passed(second, token, third)

    async def counts(bench: Bench) -> dict[str, int]:
        return {one.key: one.used for one in await bench.broker.deciding.limits.all()}

    expected = {first.id: 3, second.id: 2, third.id: 1}
    assert await counts(stage.bench) == expected
    refused = await stage.exchange(second, token, third)
    assert refused.json()["reason"] == "limit_reached"
    assert refused.json()["retry_after"] == 3600
    (*_, last) = [
        e for e in await stage.bench.events("token.decision") if e.detail.get("counted")
    ]
    assert last.agent_id == third.id
    used = last.detail["counted"]["limits"]["reads"]
    assert used == {"count": 1, "agents": [third.id, first.id, second.id]}
    async with stage.bench.restarted() as after:
        assert await counts(after) == expected
