"""Calls that a person decides: held, shown, sent once, or ended."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.call_kit import BEARER, OCTETS, PAY, ROUTES, again, bearer, held, paying
from support.gateway_stand import SECRET, Stand, standing

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.usecases.issue_for import issue_unscoped
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.home import Home
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Agent, Draft
from agentvault_tui.web.shares import SharedPlaces


async def test_a_held_call_is_sent_when_a_person_approves_while_it_waits(
    stand: Stand, token: str
) -> None:
    """The token need not carry what always asks a person; approval sends it, once."""
    call = paying(stand, token, "/gw/api/transfers/acct_1")
    stepup = await stand.pending()
    assert stand.upstream.received == []
    assert stepup.request is not None
    assert stepup.request["method"] == "POST"
    assert stepup.request["url"].endswith("/transfers/acct_1")
    assert stepup.request["headers"] == {"accept": "*/*"}
    assert stepup.request["body_kind"] == "json"
    assert stepup.request["body_type"] == "application/json"
    body = stand.gateway.calls.bodies.of(stepup.id)
    assert body is not None
    assert json.loads(body) == PAY
    assert [c.state for c in stand.gateway.calls] == ["held"]
    await stand.approve(stepup.id)
    reply = await call
    assert reply.status_code == 200
    (sent,) = stand.upstream.received
    assert json.loads(sent.body) == PAY
    assert reply.headers["agentvault-decision"] == stepup.decision_id
    assert await stand.records() == [
        ("held", "stepup_required"),
        ("attempt", "stepup_approved"),
        ("result", "done"),
    ]
    assert stand.bench.broker.stepups.get(stepup.id).status == "redeemed"


async def test_a_retry_is_answered_by_how_its_step_up_stands(
    stand: Stand, token: str
) -> None:
    """Pending as before, approved sent once, then used; another byte spends it."""
    asked = await held(stand, token)
    assert asked["error"] == "insufficient_user_authentication"
    assert asked.keys() >= {"auth_req_id", "expires_in", "interval", "decision_id"}
    one = asked["auth_req_id"]
    reply = await again(stand, token, one)
    assert (reply.status_code, reply.json()["auth_req_id"]) == (403, one)
    reply = await again(stand, token, one, json={**PAY, "amount": 4201})
    assert reply.json()["error"] == "digest_mismatch"
    await stand.approve(one)
    reply = await again(stand, token, one)
    assert reply.status_code == 200
    reply = await again(stand, token, one)
    assert (reply.status_code, reply.json()["error"]) == (403, "already_used")
    assert len(stand.upstream.received) == 1

    two = (await held(stand, token, json={**PAY, "amount": 1}))["auth_req_id"]
    await stand.approve(two)
    reply = await again(stand, token, two, json={**PAY, "amount": 2})
    assert reply.json()["error"] == "digest_mismatch"
    reply = await again(stand, token, two, json={**PAY, "amount": 1})
    assert reply.json()["error"] == "already_used"
    assert len(stand.upstream.received) == 1


@pytest.mark.parametrize("change", ["origin", "credential", "gone"])
async def test_a_changed_service_file_voids_an_approval(
    stand: Stand, token: str, change: str
) -> None:
    """What was approved goes to the place and with the credential of then, or nowhere:
    neither a retry nor a call that waits is sent after an edit."""
    one = (await held(stand, token))["auth_req_id"]
    waiting = paying(stand, token, "/gw/api/transfers/acct_2")
    await stand.pending()
    (two,) = (s.id for s in stand.bench.broker.stepups.open() if s.id != one)
    await stand.approve(one)
    await stand.secret("other", "another-secret-value")
    if change == "origin":
        place = f"http://localhost:{stand.upstream.port}"
        await stand.secret("key", SECRET, place)
        await stand.service(BEARER + ROUTES, origin=place)
    elif change == "credential":
        await stand.service(BEARER.replace("key", "other") + ROUTES)
    else:
        (stand.bench.home.config / "services" / "api.toml").unlink()
        await stand.gateway.look()
    await stand.approve(two)
    reply = await waiting
    assert (reply.status_code, reply.json()["reason"]) == (403, "service_changed")
    reply = await again(stand, token, one)
    wanted = "unknown_service" if change == "gone" else "digest_mismatch"
    assert reply.json()["error"] == wanted
    assert stand.upstream.received == []


LIMIT = """
[[limits]]
id = "transfers"
scopes = ["write:calendar"]
per = "all"
within = "60s"
count = 1
over = "step_up"
"""


async def test_asking_again_for_a_held_call_uses_up_no_limit(
    stand: Stand, token: str
) -> None:
    """What a limit had a person decide, and would allow by now, is reserved by nothing
    but its own sending: polls of one agent do not shut others out."""
    bench = stand.bench
    bench.home.limits_file.write_text(LIMIT)
    await reload_policy(bench.broker)

    async def upload(name: str, **headers: str) -> httpx.Response:
        url = f"/gw/api/upload/{name}"
        headers = bearer(token, prefer="respond-async", **OCTETS, **headers)
        return await stand.client.put(url, headers=headers, content=b"x")

    assert (await upload("1")).status_code == 200
    one = (await upload("2")).json()["auth_req_id"]
    bench.clock.advance(61)
    for _ in range(3):
        again = await upload("2", **{"agentvault-request": one})
        assert again.json()["auth_req_id"] == one
    assert bench.broker.deciding.limits._held == {}
    await stand.approve(one)
    assert (await upload("2", **{"agentvault-request": one})).status_code == 200
    assert bench.broker.deciding.limits._held == {}
    assert sum(one.used for one in await bench.broker.deciding.limits.all()) == 1


async def test_a_token_without_a_scope_opens_what_asks_a_person(stand: Stand) -> None:
    """It says who asks: payments are held and sent, what a token must carry is not."""
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    agent = await stand.agent("send:payment", "read:calendar")
    granted = await issue_unscoped(stand.bench.broker, agent, None, None)
    assert isinstance(granted, Granted)
    token = granted.access_token
    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    assert (await again(stand, token, one)).status_code == 200
    reply = await stand.client.get("/gw/api/events/7", headers=bearer(token))
    assert (reply.status_code, reply.json()["error"]) == (403, "insufficient_scope")
    assert len(stand.upstream.received) == 1


async def test_a_foreign_or_unknown_step_up_spends_nothing(
    stand: Stand, token: str
) -> None:
    """Another agent's retry, or one of no held call, is unknown_request."""
    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    other = await stand.agent("send:payment", "read:calendar", name="other")
    theirs = await stand.token(other, "read:calendar")
    for secret, stepup in ((theirs, one), (token, "sup_none"), (token, "\u20ac")):
        reply = await stand.client.post(
            "/gw/api/transfers/acct_1?memo=x",
            headers={
                b"authorization": f"Bearer {secret}".encode(),
                b"agentvault-request": stepup.encode(),
            },
            json=PAY,
        )
        assert reply.json()["reason"] == "unknown_request", stepup
    assert (await again(stand, token, one)).status_code == 200


async def test_a_no_reaches_who_retries(stand: Stand, token: str, agent: Agent) -> None:
    """Denied, expired and cancelled have their reasons; nothing is sent."""
    broker, operator = stand.bench.broker, stand.bench.broker.actor(agent)
    one = (await held(stand, token))["auth_req_id"]
    await stand.deny(one, "not today")
    reply = await again(stand, token, one)
    assert reply.json()["reason"] == "stepup_denied"
    assert "not today" in reply.json()["error_description"]
    stand.bench.clock.advance(60)
    two = (await held(stand, token, json={**PAY, "amount": 2}))["auth_req_id"]
    stand.bench.clock.advance(301)
    token = await stand.token(agent, "read:calendar")
    reply = await again(stand, token, two, json={**PAY, "amount": 2})
    assert reply.json()["reason"] == "stepup_expired"
    three = (await held(stand, token, json={**PAY, "amount": 3}))["auth_req_id"]
    await stand.approve(three)
    cut = await revoke_agent(broker, agent.id, "gone", operator)
    assert cut.stepups == 1
    assert broker.stepups.get(three).status == "cancelled"
    await stand.restore(agent)
    token = await stand.token(agent, "read:calendar")
    reply = await again(stand, token, three, json={**PAY, "amount": 3})
    assert (reply.status_code, reply.json()["reason"]) == (403, "agent_revoked")
    assert stand.upstream.received == []


async def test_a_held_call_whose_agent_left_is_not_sent(
    stand: Stand, token: str
) -> None:
    """Approval sends a call only while its connection is open; a retry still can."""
    call = paying(stand, token, "/gw/api/transfers/acct_1?memo=x")
    stepup = await stand.pending()
    call.cancel()
    await asyncio.wait([call])
    await stand.bench.until(lambda: not list(stand.gateway.calls))
    await stand.approve(stepup.id)
    assert stand.upstream.received == []
    assert (await again(stand, token, stepup.id)).status_code == 200


async def test_waiting_ends_by_what_the_agent_prefers(stand: Stand, token: str) -> None:
    """``Prefer: wait`` bounds the wait; then the answer names the step-up."""
    reply = await stand.client.post(
        "/gw/api/transfers/a",
        headers=bearer(token, Prefer="wait=0, return=minimal"),
        json=PAY,
    )
    assert reply.json()["error"] == "insufficient_user_authentication"
    (stepup,) = stand.bench.broker.stepups.open()
    await stand.approve(stepup.id)
    reply = await stand.client.post(
        "/gw/api/transfers/a",
        headers=bearer(
            token, Prefer="wait=1, return=minimal", **{"AgentVault-Request": stepup.id}
        ),
        json=PAY,
    )
    assert reply.status_code == 200
    assert stand.upstream.received[0].header("prefer") == "return=minimal"


async def test_identical_calls_share_a_step_up_and_not_all_wait(
    stand: Stand, agent: Agent, token: str
) -> None:
    """That many wait with an open connection; further calls are told to retry."""
    calls = stand.gateway.calls
    calls.held = SharedPlaces(16, stand.bench.clock.boot)
    asking = [paying(stand, token) for _ in range(18)]
    await stand.bench.until(lambda: sum(one.done() for one in asking) == 2)
    assert calls.held.count(agent.id) == 16
    early = [one.result() for one in asking if one.done()]
    assert {reply.status_code for reply in early} == {403}
    (stepup,) = stand.bench.broker.stepups.open()
    await stand.approve(stepup.id)
    replies = await asyncio.gather(*asking)
    assert sorted(reply.status_code for reply in replies) == [200] + [403] * 17
    assert len(stand.upstream.received) == 1


async def test_held_calls_of_one_agent_make_room_for_another(
    stand: Stand, agent: Agent, token: str
) -> None:
    """The latest beyond its share is answered at once, and the other one waits."""
    calls = stand.gateway.calls
    calls.held = SharedPlaces(4, stand.bench.clock.boot)
    asking = [paying(stand, token) for _ in range(4)]
    await stand.bench.until(lambda: calls.held.count(agent.id) == 4)
    scopes = "read:calendar", "send:payment"
    other = await stand.agent(*scopes, name="other")
    others = paying(stand, await stand.token(other, "read:calendar"))
    await stand.bench.until(lambda: calls.held.count(other.id) == 1)
    await stand.bench.until(lambda: any(one.done() for one in asking))
    (early,) = [one.result() for one in asking if one.done()]
    assert early.status_code == 403
    assert early.json()["auth_req_id"]
    assert not others.done()
    for stepup in stand.bench.broker.stepups.open():
        await stand.approve(stepup.id)
    assert (await others).status_code == 200
    assert calls.held.taken == 0
    assert sorted(one.status_code for one in await asyncio.gather(*asking)) == [
        *(200, 403, 403, 403)
    ]


async def test_concurrent_retries_send_once(stand: Stand, token: str) -> None:
    """Of sixteen retries of one approved call exactly one is sent."""
    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    replies = await asyncio.gather(*(again(stand, token, one) for _ in range(16)))
    assert sorted(r.status_code for r in replies) == [200] + [403] * 15
    assert {r.json()["error"] for r in replies if r.status_code == 403} == {
        "already_used"
    }
    assert len(stand.upstream.received) == 1


async def test_a_held_body_is_shown_byte_for_byte(stand: Stand, token: str) -> None:
    """Operators read what is held; once it is decided, that it is there no more."""
    one = (await held(stand, token))["auth_req_id"]
    shown = (await stand.bench.read(f"/api/agents/stepup/{one}/body")).json()
    assert json.loads(base64.b64decode(shown["base64"])) == PAY
    stepup = (await stand.bench.read(f"/api/agents/stepup/{one}")).json()
    assert stepup["request"]["body_sha256"] == shown["sha256"]
    await stand.deny(one, "no")
    await stand.gateway.look()
    assert stand.gateway.calls.bodies.of(stepup["id"]) is None
    shown = (await stand.bench.read(f"/api/agents/stepup/{one}/body")).json()
    assert shown["base64"] is None
    assert (await stand.bench.read("/api/calls")).json() == {"calls": []}


async def test_a_step_up_is_never_seen_without_its_body(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read from the moment on at which the step-up is in the lists."""
    broker, shown = stand.bench.broker, []
    record = broker.record

    async def recorded(*drafts: Draft, **more: Any) -> Any:
        for stepup in broker.registry.stepups.open():
            path = f"/api/agents/stepup/{stepup.id}/body"
            shown.append((await stand.bench.read(path)).json()["base64"])
        return await record(*drafts, **more)

    monkeypatch.setattr(broker, "record", recorded)
    await held(stand, token)
    assert [json.loads(base64.b64decode(body)) for body in shown] == [PAY]


async def test_approvals_and_records_hold_over_a_restart(short: Path) -> None:
    """What was spent stays spent, what was approved can be sent, and all verifies."""
    async with standing(short) as stand:
        await stand.service(ROUTES)
        agent = await stand.agent("read:calendar", "send:payment")
        token = await stand.token(agent, "read:calendar")
        one = (await held(stand, token))["auth_req_id"]
        await stand.approve(one)
        assert (await again(stand, token, one)).status_code == 200
        two = (await held(stand, token, json={**PAY, "amount": 2}))["auth_req_id"]
        await stand.approve(two)
        three = (await held(stand, token, json={**PAY, "amount": 3}))["auth_req_id"]
        await stand.approve(three)
        await again(stand, token, three, json={**PAY, "amount": 4})
        await stand.settled()
    async with standing(short) as stand:
        broker = stand.bench.broker
        assert broker.health.state_problem is None
        every = (one, two, three)
        states = [broker.stepups.get(each).status for each in every]
        assert states == ["redeemed", "approved", "redeemed"]
        live = [broker.registry.elevated(each) is not None for each in every]
        assert live == [False, True, False]
        assert broker.stepups.get(two).request["method"] == "POST"
        assert stand.gateway.calls.bodies.of(two) is None
        results = await stand.bench.events("gateway.result")
        assert [event.detail["ended"] for event in results] == ["done"]
        now = stand.bench.clock.now()
    verified = verify_ledger(Home.locate(short / "home"), now=now)
    assert verified.ok, verified
