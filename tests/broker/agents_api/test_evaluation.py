"""AuthZEN: an agent asks whether it may act; nothing is issued for the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agents_http import Caller, Live, live_broker
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock

from agentvault_tui.broker.usecases.revoke import panic, restore_agent, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.model import EventType, StepUpStatus
from agentvault_tui.web.shares import SharedPlaces

ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
READ: dict[str, Any] = {
    "action": {"name": "read:calendar"},
    "resource": {"type": "calendar", "id": "primary"},
}
PAY: dict[str, Any] = {
    "action": {
        "name": "send:payment",
        "properties": {"amount": 4200, "currency": "USD"},
    },
    "resource": {"type": "stripe", "id": "acct_42"},
    "context": {"reason": "Invoice 1881"},
}


async def post(
    caller: Caller, body: Any, path: str = ONE, **headers: str
) -> httpx.Response:
    basic = (caller.agent.client_id, caller.secret)
    return await caller.http.post(path, json=body, auth=basic, headers=headers)


async def ask(caller: Caller, body: Any = PAY, **headers: str) -> dict[str, Any]:
    answer = await post(caller, body, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def test_an_allowed_evaluation_is_true_and_recorded(
    caller: Caller, bench: Bench
) -> None:
    """The decision says outcome, reason and message; one access.decision, no token."""
    told = await ask(caller, READ | {"context": {"reason": "looking up", "x": 1}})
    context = told["context"]
    assert told["decision"] is True
    assert context.keys() == {"decision_id", "outcome", "reason", "message"}
    assert (context["outcome"], context["reason"]) == ("allowed", "granted")
    (event,) = await bench.events("access.decision")
    assert event.decision_id == context["decision_id"]
    assert (event.action, event.resource) == ("read:calendar", "calendar:primary")
    assert event.detail["agent_says"] == "looking up"
    assert not await bench.events("token.decision")
    assert not bench.broker.registry.tokens_of(caller.agent.id)
    assert bench.broker.registry.counts(caller.agent.id).allowed == 1


async def test_what_was_not_granted_is_false(caller: Caller) -> None:
    """A denial is a decision with status 200, and says why."""
    told = await ask(caller, READ | {"action": {"name": "delete:records"}})
    assert told["decision"] is False
    assert told["context"]["outcome"] == "denied"
    assert told["context"]["reason"] == "scope_not_granted"


async def test_an_approved_evaluation_is_true_once(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """An escalated one opens a step-up; approved, the same is true once."""
    held = await ask(caller)
    context = held["context"]
    assert (held["decision"], context["outcome"]) == (False, "escalated")
    stepup = bench.broker.stepups.get(context["auth_req_id"])
    assert (stepup.resource, stepup.reason) == ("stripe:acct_42", "Invoice 1881")
    assert stepup.parameters == PAY["action"]["properties"]
    again = (await ask(caller))["context"]
    assert again["auth_req_id"] == stepup.id, "the same request collapses"
    assert again["decision_id"] != context["decision_id"]
    await live.approve(stepup.id)
    told = await ask(caller)
    assert (told["decision"], told["context"]["reason"]) == (True, "stepup_approved")
    assert bench.broker.stepups.get(stepup.id).status is StepUpStatus.REDEEMED
    later = await ask(caller)
    assert later["decision"] is False
    assert later["context"]["auth_req_id"] != stepup.id
    assert [e.reason for e in await bench.events("token.redeemed")] == [None]
    allowed = [
        e for e in await bench.events("access.decision") if e.outcome == "allowed"
    ]
    assert [e.detail["stepup_id"] for e in allowed] == [stepup.id]


async def test_no_token_is_issued_for_an_approved_evaluation(
    live: Live, caller: Caller
) -> None:
    """Its auth_req_id gets no token at the token endpoint, and is not spent there."""
    stepup_id = (await ask(caller))["context"]["auth_req_id"]
    assert (await caller.poll(stepup_id)).json()["error"] == "authorization_pending"
    await live.approve(stepup_id)
    assert (await caller.poll(stepup_id)).json()["error"] == "invalid_grant"
    assert (await ask(caller))["decision"] is True


async def test_a_token_request_and_an_evaluation_are_not_the_same(
    caller: Caller, bench: Bench
) -> None:
    """An approval of one opens nothing for the other: a person sees which it is."""
    asked = await caller.payment()
    held = await ask(caller)
    assert asked.json()["auth_req_id"] != held["context"]["auth_req_id"]
    assert bench.broker.stepups.get(held["context"]["auth_req_id"]).evaluation


@pytest.mark.parametrize(
    "change",
    [
        {"resource": {"type": "stripe", "id": "acct_43"}},
        {"action": {"name": "send:payment", "properties": {"amount": 4200}}},
        {
            "action": {
                "name": "send:payment",
                "properties": {"amount": 4200.0, "currency": "USD", "x": None},
            }
        },
    ],
)
async def test_another_evaluation_spends_nothing(
    live: Live, caller: Caller, change: dict[str, Any]
) -> None:
    """What differs in resource or parameters waits for a person of its own."""
    stepup_id = (await ask(caller))["context"]["auth_req_id"]
    await live.approve(stepup_id)
    assert (await ask(caller, PAY | change))["decision"] is False
    assert (await ask(caller))["decision"] is True


@pytest.mark.slow
async def test_of_64_evaluations_at_once_one_is_true(
    live: Live, caller: Caller
) -> None:
    """However many ask at the same moment, an approval is spent once."""
    stepup_id = (await ask(caller))["context"]["auth_req_id"]
    await live.approve(stepup_id)
    answers = await asyncio.gather(*(ask(caller) for _ in range(64)))
    assert [one["decision"] for one in answers].count(True) == 1


async def test_an_approval_outlives_a_restart_and_so_does_its_use(
    short: Path, clock: ManualClock
) -> None:
    """Approved before a restart it is true once after it, and not after another."""
    home = Home.locate(short / "home")
    bench = await Bench.open(home, clock)
    async with live_broker(bench) as live:
        caller = await live.caller("payer")
        await live.approve((await ask(caller))["context"]["auth_req_id"])
    await bench.close()
    seen = []
    for _ in range(2):
        bench = await Bench.open(home, clock)
        async with live_broker(bench) as live:
            agent = bench.broker.registry.agent(caller.agent.id)
            seen.append(
                (await ask(Caller(live.http, agent, caller.secret)))["decision"]
            )
        await bench.close()
    assert seen == [True, False]


async def test_a_revocation_ends_an_approved_evaluation(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """Revoked, nothing is true; restored, the approval of before counts no more."""
    await live.approve((await ask(caller))["context"]["auth_req_id"])
    await revoke_agent(bench.broker, caller.agent.id, "test", OPERATOR)
    told = await ask(caller, READ)
    assert (told["decision"], told["context"]["reason"]) == (False, "agent_revoked")
    await restore_agent(bench.broker, caller.agent.id, OPERATOR)
    assert (await ask(caller))["decision"] is False


async def test_a_revocation_while_a_yes_is_recorded_makes_it_a_no(
    caller: Caller, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided before a revocation does not leave after it."""
    commit = bench.ledger.commit

    def overtaken(*drafts: Any, **more: Any) -> Any:
        if drafts and drafts[0].type is EventType.ACCESS_DECISION:
            bench.broker.registry.void_decisions(caller.agent.id)
            monkeypatch.setattr(bench.ledger, "commit", commit)
        return commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", overtaken)
    told = await ask(caller, READ)
    assert (told["decision"], told["context"]["outcome"]) == (False, "denied")
    outcomes = [e.outcome for e in await bench.events("access.decision")]
    assert outcomes == ["allowed", "denied"]


async def test_step_ups_are_capped_and_cool_down(caller: Caller, bench: Bench) -> None:
    """As at the token endpoint: three wait, and a denial makes the agent wait."""
    for number in range(4):
        resource = {"type": "stripe", "id": f"acct_{number}"}
        context = (await ask(caller, PAY | {"resource": resource}))["context"]
    assert (context["outcome"], context["reason"]) == ("denied", "too_many_pending")
    await deny(bench.broker, bench.broker.stepups.open()[0].id, "", OPERATOR)
    assert (await ask(caller))["context"]["reason"] == "cooling_down"


async def test_an_agent_that_floods_is_not_decided(
    caller: Caller, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 until it keeps still; each refusal of an evaluation counts."""
    refused: list[str] = []
    monkeypatch.setattr(bench.broker.admitting.floods, "refused", refused.append)
    no = READ | {"action": {"name": "delete:records"}}
    await post(caller, READ | {"evaluations": [{}, no, {"subject": 1}]}, MANY)
    assert refused == [caller.agent.id] * 2
    monkeypatch.setattr(bench.broker.admitting.floods, "limited", lambda _: True)
    answer = await post(caller, READ)
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")


async def test_under_panic_nothing_is_true(caller: Caller, bench: Bench) -> None:
    """A panic is a denial with its own reason."""
    await panic(bench.broker, "test", OPERATOR)
    told = await ask(caller, READ)
    assert (told["decision"], told["context"]["reason"]) == (False, "panic")


async def test_an_evaluation_that_cannot_be_recorded_is_no_decision(
    caller: Caller, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger cannot write it is 503, and an approval stays what it was."""

    async def latched(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", latched)
    answer = await post(caller, READ)
    assert answer.status_code == 503
    assert answer.json()["error"] == "temporarily_unavailable"


# Who asks


@pytest.mark.parametrize("kind", ["agent", "client", "user"])
async def test_the_subject_may_be_the_caller(caller: Caller, kind: str) -> None:
    """A subject that names the caller changes nothing."""
    subject = {"type": kind, "id": caller.agent.client_id}
    assert (await ask(caller, READ | {"subject": subject}))["decision"] is True


async def test_another_subject_is_forbidden(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """An agent asks about itself alone: 403, and nothing is decided."""
    other = await live.caller("other")
    for subject in ({"type": "agent", "id": other.agent.id}, {"type": "a", "id": "x"}):
        answer = await post(caller, READ | {"subject": subject})
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"] == "access_denied"
    assert not await bench.events("access.decision")


async def test_a_live_token_says_who_asks(live: Live, caller: Caller) -> None:
    """Any live token of the agent authenticates, as often as it likes."""
    token = (await caller.token("read:calendar")).json()["access_token"]
    header = {"Authorization": f"Bearer {token}"}
    for _ in range(2):
        answer = await live.http.post(ONE, json=READ, headers=header)
        assert answer.json()["decision"] is True, answer.text
    await caller.post("/oauth/revoke", token=token)
    answer = await live.http.post(ONE, json=READ, headers=header)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_token_for_another_resource_is_refused(
    live: Live, caller: Caller
) -> None:
    """A token is good for its audience alone (RFC 8707)."""
    asked = await caller.token("read:calendar", resource="calendar:primary")
    header = {"Authorization": f"Bearer {asked.json()['access_token']}"}
    answer = await live.http.post(ONE, json=READ, headers=header)
    assert answer.json()["decision"] is True
    elsewhere = READ | {"resource": {"type": "calendar", "id": "team"}}
    answer = await live.http.post(ONE, json=elsewhere, headers=header)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


async def test_a_token_for_one_action_is_for_nothing_else(
    live: Live, caller: Caller
) -> None:
    """What a person approved, once, authenticates no evaluation."""
    held = (await caller.payment()).json()["auth_req_id"]
    await live.approve(held)
    token = (await caller.poll(held)).json()["access_token"]
    header = {"Authorization": f"Bearer {token}"}
    answer = await live.http.post(ONE, json=READ, headers=header)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert (await caller.introspect(token))["active"] is True


async def test_nobody_asks_without_a_credential(live: Live) -> None:
    """401 as at the token endpoint, before anything is read."""
    answer = await live.http.post(ONE, json=READ)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    shown = {"client_secret": "x", "client_id": "y"}
    header = {"Authorization": "Bearer av_t_x"}
    answer = await live.http.post(ONE, json=READ | shown, headers=header)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


# What makes no sense

BAD = [
    ({}, "action"),
    (READ | {"resource": None}, "resource"),
    (READ | {"action": "read:calendar"}, "action must be an object"),
    (READ | {"action": {"name": 7}}, "action.name"),
    (READ | {"resource": {"type": "calendar"}}, "resource.id"),
    (READ | {"resource": {"type": "", "id": "x"}}, "resource.type"),
    (READ | {"subject": "me"}, "subject must be an object"),
    (READ | {"subject": {"type": "agent"}}, "subject.id"),
    (READ | {"context": []}, "context must be an object"),
    (READ | {"context": {"reason": 1}}, "reason must be a string"),
    (READ | {"action": {"name": "read:calendar", "properties": [1]}}, "properties"),
]


@pytest.mark.parametrize(("body", "said"), BAD)
async def test_what_makes_no_sense_is_400(
    caller: Caller, bench: Bench, body: dict[str, Any], said: str
) -> None:
    """Each fault is named, and nothing is decided."""
    answer = await post(caller, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert said in answer.json()["error_description"]
    assert not await bench.events("access.decision")


async def test_an_unknown_scope_is_400(caller: Caller) -> None:
    """As at the token endpoint, with the nearest one."""
    answer = await post(caller, READ | {"action": {"name": "raed:calendar"}})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert "read:calendar" in answer.json()["error_description"]


async def test_json_alone_is_read(caller: Caller) -> None:
    """A form is 415, a key said twice 400, another method 405."""
    basic = (caller.agent.client_id, caller.secret)
    form = await caller.http.post(ONE, data={"action": "x"}, auth=basic)
    assert form.status_code == 415
    twice = await caller.http.post(
        ONE,
        content=b'{"action":{"name":"a","name":"b"}}',
        headers={"content-type": "application/json"},
        auth=basic,
    )
    assert twice.status_code == 400
    assert (await caller.http.get(ONE, auth=basic)).status_code == 405


# Several at once


async def test_several_take_what_they_do_not_say_from_beside(caller: Caller) -> None:
    """Defaults are per member (section 7.1.1); answers come in order."""
    body = {
        **READ,
        "context": {"reason": "all"},
        "evaluations": [
            {},
            {"action": {"name": "delete:records"}},
            {"resource": {"type": "calendar", "id": "team"}},
        ],
    }
    answer = await post(caller, body, MANY, **{"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    told = answer.json()["evaluations"]
    assert [one["decision"] for one in told] == [True, False, True]


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_an_evaluation_ends_where_it_is_told_to(
    caller: Caller, bench: Bench, semantic: str, decisions: list[bool]
) -> None:
    """What comes after the deciding one is not evaluated (section 7.1.2)."""
    no = {"action": {"name": "delete:records"}}
    body = {
        **READ,
        "evaluations": [{}, no, {}, no],
        "options": {"evaluations_semantic": semantic},
    }
    told = (await post(caller, body, MANY)).json()["evaluations"]
    assert [one["decision"] for one in told] == decisions
    assert len(await bench.events("access.decision")) == len(decisions)


async def test_no_evaluations_are_one(caller: Caller) -> None:
    """Absent or empty, the request is one evaluation and so is its answer (7.1)."""
    for body in (READ, READ | {"evaluations": []}):
        told = (await post(caller, body, MANY)).json()
        assert told["decision"] is True


async def test_a_fault_of_one_is_its_own(caller: Caller) -> None:
    """Of several, one that makes no sense is false with its error (7.2.1)."""
    many = [{"action": {"name": "raed:x"}}, {"subject": {"type": "a", "id": "b"}}, {}]
    told = (await post(caller, READ | {"evaluations": many}, MANY)).json()
    first, second, third = told["evaluations"]
    assert (first["decision"], first["context"]["error"]["status"]) == (False, 400)
    assert (second["decision"], second["context"]["error"]["status"]) == (False, 403)
    assert third["decision"] is True


@pytest.mark.parametrize(
    "more",
    [
        {"evaluations": {}},
        {"evaluations": [1]},
        {"evaluations": [{}] * 65},
        {"evaluations": [{}], "options": {"evaluations_semantic": "all"}},
        {"evaluations": [{}], "options": []},
    ],
)
async def test_a_batch_that_makes_no_sense_is_400(
    caller: Caller, bench: Bench, more: dict[str, Any]
) -> None:
    """Nothing of it is evaluated."""
    assert (await post(caller, READ | more, MANY)).status_code == 400
    assert not await bench.events("access.decision")


# Waiting for the person


async def say_yes(bench: Bench, stepup_id: str) -> None:
    """Approve a step-up that somebody waits for, and so spends at once."""
    stepup = bench.broker.stepups.get(stepup_id)
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()


async def waiting(bench: Bench) -> str:
    await bench.until(lambda: bool(bench.broker.stepups.open()))
    return bench.broker.stepups.open()[0].id


async def test_a_client_may_wait_for_the_person(caller: Caller, bench: Bench) -> None:
    """With Prefer: wait (RFC 7240) the answer is the person's."""
    asked = asyncio.create_task(ask(caller, Prefer="respond-async, wait=60"))
    await say_yes(bench, await waiting(bench))
    assert (await asked)["decision"] is True
    asked = asyncio.create_task(ask(caller, Prefer="wait=60"))
    await deny(bench.broker, await waiting(bench), "not now", OPERATOR)
    context = (await asked)["context"]
    assert (context["outcome"], context["reason"]) == ("denied", "stepup_denied")
    assert "not now" in context["message"]


async def test_of_two_evaluations_that_wait_one_is_true(
    caller: Caller, bench: Bench
) -> None:
    """One approval answers one of them; the other waits for a person of its own."""
    asked = [asyncio.create_task(ask(caller, Prefer="wait=60")) for _ in range(2)]
    first = await waiting(bench)
    await bench.until(lambda: bench.broker.stepups.get(first).count == 2)
    await say_yes(bench, first)
    done, others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert [one.result()["decision"] for one in done] == [True]
    second = await waiting(bench)
    assert second != first
    await deny(bench.broker, second, "", OPERATOR)
    assert [(await one)["decision"] for one in others] == [False]


async def test_a_revocation_answers_those_who_wait(
    caller: Caller, bench: Bench
) -> None:
    """A cut cancels the step-up, and with it the wait."""
    asked = asyncio.create_task(ask(caller, Prefer="wait=60"))
    await waiting(bench)
    await revoke_agent(bench.broker, caller.agent.id, "test", OPERATOR)
    assert (await asked)["context"]["reason"] == "agent_revoked"


async def test_a_caller_that_left_spends_no_approval(
    live: Live, caller: Caller, bench: Bench
) -> None:
    """An approval for somebody who hung up stays, and is true for who asks again."""
    asked = asyncio.create_task(ask(caller, Prefer="wait=60"))
    stepup_id, awaited = await waiting(bench), bench.broker.stepups.awaited
    await bench.until(lambda: stepup_id in awaited)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await bench.until(lambda: stepup_id not in awaited)
    await live.approve(stepup_id)
    assert bench.broker.stepups.get(stepup_id).status is StepUpStatus.APPROVED
    assert (await ask(caller))["decision"] is True


async def test_discovery_names_the_endpoints(live: Live) -> None:
    """The metadata (section 9) names the decision point as the client reached it."""
    told = (await live.http.get("/.well-known/authzen-configuration")).json()
    base = live.url.rstrip("/")
    assert told == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": base + ONE,
        "access_evaluations_endpoint": base + MANY,
    }


async def test_evaluations_that_wait_leave_places_to_others(
    bench: Bench, live: Live, caller: Caller
) -> None:
    """One agent's waiting evaluations end for another's; its next is 503 at once."""
    bench.broker.admitting.waiting = waiting = SharedPlaces(4, bench.clock.boot)

    def wait(by: Caller) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(post(by, PAY, Prefer="wait=20"))

    mine = [wait(caller) for _ in range(4)]
    await bench.until(lambda: waiting.taken == 4)
    crowded = await post(caller, PAY, Prefer="wait=20")
    assert (crowded.status_code, crowded.headers["retry-after"]) == (503, "1")
    assert (await post(caller, READ)).status_code == 200
    other = await live.caller("other")
    others = wait(other)
    await bench.until(lambda: any(one.done() for one in mine))
    assert waiting.count(other.agent.id) == 1
    (early,) = [one.result() for one in mine if one.done()]
    assert early.json()["context"]["auth_req_id"]
    (stepup,) = bench.broker.stepups.open(other.agent.id)
    await say_yes(bench, stepup.id)
    assert (await others).json()["decision"] is True
    assert waiting.count(other.agent.id) == 0
    for one in mine:
        one.cancel()
    await asyncio.wait(mine)
    await bench.until(lambda: waiting.taken == 0)
