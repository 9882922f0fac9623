"""Calls through ``/gw/``: who may, what is decided, what is sent and recorded."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.call_kit import BEARER, OCTETS, PAY, ROUTES, bearer, paying
from support.gateway_stand import SECRET, Received, Stand, endless, ok, operators_http
from support.patience import PATIENT

from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    revoke_agent,
    revoke_ended,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.clock import iso
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway import calls as calls_module
from agentvault_tui.model import Agent, Draft

NOTES = """
[[routes]]
method = "POST"
path = "/notes/{id}"
scope = "read:calendar"
"""


async def test_an_allowed_call_goes_out_with_the_credential(
    stand: Stand, token: str
) -> None:
    """What is allowed leaves as it came, but for the credential; two events tell it."""
    reply = await stand.client.get(
        "/gw/api/events/e1%402?x=1&y=%20z", headers=bearer(token, Accept="a/b")
    )
    assert (reply.status_code, reply.text) == (200, "ok")
    assert reply.headers["x-kept"] == "yes"
    (sent,) = stand.upstream.received
    assert (sent.method, sent.target) == ("GET", "/events/e1@2?x=1&y=%20z")
    assert sent.header("authorization") == f"Bearer {SECRET}"
    assert sent.header("accept") == "a/b"
    assert sent.header("accept-encoding") == "identity"
    assert token not in str(sent.headers)
    events = [e for e in await stand.settled() if e.type.startswith("gateway.")]
    attempt, result = events
    assert (attempt.type, attempt.outcome) == ("gateway.attempt", "allowed")
    assert attempt.decision_id == reply.headers["agentvault-decision"]
    assert attempt.detail["path"] == "/events/e1@2"
    assert attempt.detail["query"] == "x=1&y=%20z"
    assert attempt.detail["body_bytes"] == 0
    assert (result.type, result.detail["ended"]) == ("gateway.result", "done")
    assert (result.detail["status"], result.detail["bytes_in"]) == (200, 2)
    assert result.detail["call_id"] == attempt.detail["call_id"]


async def test_a_token_may_stand_where_a_client_puts_it(
    stand: Stand, token: str
) -> None:
    """Bearer, either half of Basic, or the credential's own place; it never leaves."""
    head = '[credential]\nkind = "header"\nname = "X-Api-Key"\nsecret = "key"\n'
    await stand.service(head + ROUTES, "header")
    head = '[credential]\nkind = "query"\nname = "api_key"\nsecret = "key"\n'
    await stand.service(head + ROUTES, "query")
    user = base64.b64encode(f"{token}:x".encode()).decode()
    word = base64.b64encode(f"x:{token}".encode()).decode()
    for service, query, headers in (
        ("api", "", {"Authorization": f"Basic {user}"}),
        ("api", "", {"Authorization": f"basic {word}"}),
        ("header", "", {"X-Api-Key": token, "Authorization": "Bearer dummy"}),
        ("query", f"?a=1&api%5fkey={token}&b=2", {}),
    ):
        reply = await stand.client.get(
            f"/gw/{service}/events/e1{query}", headers=headers
        )
        assert reply.status_code == 200, (service, reply.text)
        sent = stand.upstream.received[-1]
        assert token not in sent.target + str(sent.headers)
    assert sent.target == f"/events/e1?a=1&b=2&api_key={SECRET}"
    assert stand.upstream.received[-2].header("x-api-key") == SECRET
    assert all(token not in str(e) for e in await stand.settled())


async def head_of_answer(stand: Stand, path: str, token: str, lines: bytes) -> bytes:
    """Send the head of a POST alone, as a client that waits for 100 Continue does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.listener.port)
    host = b"127.0.0.1:%d" % stand.listener.port
    head = b"POST %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n"
    writer.write(head % (path.encode(), host, token.encode()) + lines + b"\r\n")
    async with asyncio.timeout(PATIENT):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def test_what_is_refused_reaches_no_service(stand: Stand, agent: Agent) -> None:
    """Each refusal has its status, code and reason, is recorded, and sends nothing."""
    token = await stand.token(agent, "read:calendar")
    other = await stand.token(agent, "read:calendar", resource="calendar:other")
    less = await stand.agent("send:payment", "read:files", name="less")
    reads = await stand.token(less, "read:files")
    path = "/gw/api/events/e1"
    pays = "/gw/api/transfers/a"
    large = b"Content-Type: application/json\r\nContent-Length: 10485761\r\n"
    assert b" 413 " in await head_of_answer(stand, pays, token, large)
    assert (await stand.bench.events("gateway.refused"))[-1].reason == "body_too_large"
    for method, url, secret, more, status, error, reason in (
        ("GET", path, "", {}, 401, "invalid_token", "no_token"),
        ("GET", path, "av_t_nothing", {}, 401, "invalid_token", "invalid_token"),
        ("GET", path, other, {}, 401, "invalid_token", "invalid_token"),
        ("GET", path, reads, {}, 403, "access_denied", "scope_not_granted"),
        ("PUT", "/gw/api/upload/x", token, {}, 403, *["insufficient_scope"] * 2),
        ("GET", "/gw/none/x", token, {}, 404, *["unknown_service"] * 2),
        ("GET", "/gw/api/a/%2e%2e/b", token, {}, 400, *["bad_path"] * 2),
        ("GET", "/gw/api//x", token, {}, 400, *["bad_path"] * 2),
        ("GET", "/gw/api", token, {}, 403, "access_denied", "no_route"),
        ("DELETE", path, token, {}, 403, "access_denied", "no_route"),
        ("POST", pays, token, {"content": b"{"}, 400, *["unreadable_body"] * 2),
    ):
        headers = bearer(secret) if secret else {}
        if "content" in more:
            headers["content-type"] = "application/json"
        request = stand.client.build_request(method, "/", headers=headers, **more)
        request.url = request.url.copy_with(raw_path=url.encode())
        reply = await stand.client.send(request)
        body = reply.json()
        assert (reply.status_code, body["error"], body["reason"]) == (
            status,
            error,
            reason,
        ), (url, body)
        assert reply.headers["agentvault-error"] == error
        assert body["error_description"]
        if reason == "no_route":
            named = f"services/api.toml matches {method} /"
            assert named in body["error_description"]
        recorded = await stand.bench.events("gateway.refused")
        if reason != "no_token" and secret != "av_t_nothing":
            assert recorded[-1].decision_id == body["decision_id"], url
            assert recorded[-1].outcome == "denied"
        if status == 401:
            assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    wanted = 'Bearer error="insufficient_scope", scope="write:calendar"'
    reply = await stand.client.put("/gw/api/upload/x", headers=bearer(token))
    assert reply.headers["www-authenticate"] == wanted
    assert stand.upstream.received == []


async def test_a_cut_agents_token_says_why_it_is_none(
    stand: Stand, agent: Agent, token: str
) -> None:
    """A revoked agent hears agent_revoked, everybody under panic hears panic: 401."""
    broker, operator = stand.bench.broker, stand.bench.broker.actor(agent)
    await panic(broker, "stop", operator)
    reply = await stand.client.get("/gw/api/events/e1", headers=bearer(token))
    assert (reply.status_code, reply.json()["reason"]) == (401, "panic")
    await lift_panic(broker, operator)
    fresh = await stand.token(agent, "read:calendar")
    await revoke_agent(broker, agent.id, "gone", operator)
    for _ in broker.registry.forget_cut():
        pass
    reply = await stand.client.get("/gw/api/events/e1", headers=bearer(fresh))
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    assert stand.upstream.received == []


# Held calls


async def test_a_token_for_a_service_is_good_there_alone(stand: Stand) -> None:
    """RFC 8707: the URL of a service is the audience, and no resource of an action."""
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    await stand.service(BEARER + ROUTES, name="other")
    stand.bench.broker.admitting.url = stand.url
    agent = await stand.agent("read:calendar")
    granted = await issue_for(
        stand.bench.broker, agent, (), f"{stand.url}/gw/api", OPERATOR
    )
    here = await stand.client.get(
        "/gw/api/events/7", headers=bearer(granted.access_token)
    )
    assert here.status_code == 200
    there = await stand.client.get(
        "/gw/other/events/7", headers=bearer(granted.access_token)
    )
    assert (there.status_code, there.json()["error"]) == (401, "invalid_token")


async def test_an_elevated_token_opens_its_own_action_once(
    stand: Stand, agent: Agent
) -> None:
    """What CIBA gave opens exactly the approved action; another one burns it."""
    path = "/gw/api/transfers/acct_1"
    elevated = await stand.elevated(agent, "stripe:acct_1", PAY)
    reply = await stand.client.post(path, headers=bearer(elevated), json=PAY)
    assert reply.status_code == 200, reply.text
    reply = await stand.client.post(path, headers=bearer(elevated), json=PAY)
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
    elevated = await stand.elevated(agent, "stripe:acct_1", {**PAY, "amount": 7})
    reply = await stand.client.post(path, headers=bearer(elevated), json=PAY)
    assert (reply.status_code, reply.json()["error"]) == (403, "digest_mismatch")
    reply = await stand.client.post(
        path, headers=bearer(elevated), json={**PAY, "amount": 7}
    )
    assert reply.status_code == 401
    assert len(stand.upstream.received) == 1


# Cut in flight


async def test_the_end_of_an_agents_time_cuts_its_calls(
    stand: Stand, gate: asyncio.Event
) -> None:
    """As its revocation would: what is in flight ends with it, and is in the record."""
    bench = stand.bench
    until = bench.clock.now() + timedelta(seconds=60)
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    agent = await bench.agent("brief", "read:calendar", until=iso(until))
    token = await stand.token(agent, "read:calendar")
    waits = asyncio.create_task(
        stand.client.get("/gw/api/events/waits", headers=bearer(token))
    )
    await bench.until(lambda: len(stand.upstream.received) == 1)
    bench.clock.advance(60)
    await revoke_ended(bench.broker)
    reply = await waits
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    gate.set()
    (revoked,) = await bench.events("agent.revoked")
    assert (revoked.reason, revoked.detail["calls_cut"]) == ("ended", 1)


async def test_a_revocation_cuts_calls_in_flight(
    stand: Stand, agent: Agent, token: str
) -> None:
    """It counts what was cut and already sent; no byte moves after it."""
    broker = stand.bench.broker
    gate = asyncio.Event()
    stopped = asyncio.Event()

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == "/events/waits":
            await gate.wait()
            await ok(request, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        await endless(writer, b"x" * 1000)
        stopped.set()

    stand.upstream.answer = slow
    waits = asyncio.create_task(
        stand.client.get("/gw/api/events/waits", headers=bearer(token))
    )

    async def body() -> Any:
        yield b"begun"
        await gate.wait()
        yield b"never"

    sends = asyncio.create_task(
        stand.client.put(
            "/gw/api/upload/x",
            headers=bearer(token, **OCTETS, **{"Content-Length": "10"}),
            content=body(),
        )
    )
    async with stand.client.stream(
        "GET", "/gw/api/events/streams", headers=bearer(token)
    ) as reply:
        stream = reply.aiter_raw()
        await anext(stream)
        await stand.bench.until(lambda: len(stand.upstream.received) == 3)
        await stand.bench.until(lambda: stand.upstream.bytes_read == 5)
        cut = await revoke_agent(broker, agent.id, "stop", broker.actor(agent))
        assert tuple(cut.calls) == (3, 2)
        sent = len(stand.upstream.received)
        with pytest.raises(httpx.TransportError):
            async for _ in stream:
                pass
    await asyncio.wait_for(stopped.wait(), 5)
    gate.set()
    one = await waits
    assert (one.status_code, one.json()["reason"]) == (401, "agent_revoked")
    two = await sends
    assert (two.status_code, two.json()["reason"]) == (401, "agent_revoked")
    assert stand.upstream.bytes_read == 5
    assert len(stand.upstream.received) == sent
    results = [e for e in await stand.settled() if "result" in e.type]
    assert [one.detail["ended"] for one in results] == ["cut", "cut", "cut"]
    assert {one.reason for one in results} == {"agent_revoked"}
    # Of the upload a part had left, and of the two others all.
    whole = [one.detail["request_whole"] for one in results]
    assert (whole.count(True), whole.count(False)) == (2, 1)
    by = broker.actor(agent)
    said = {"kind": by.kind.value, "id": by.id, "name": by.name}
    assert all(one.detail["cut_by"] == said for one in results)


async def test_a_cancelled_call_says_whether_its_body_had_left(
    stand: Stand, agent: Agent
) -> None:
    """A service that has not taken the whole body cannot act on it."""
    big = '[[routes]]\nmethod = "POST"\npath = "/big"\nscope = "write:calendar"\n'
    await stand.service(f"{BEARER}{big}max_body = {10 * 2**20}\n")
    token = await stand.token(agent, "write:calendar")
    stand.upstream.reads = asyncio.Event()
    body = {"text": "x" * (9 * 2**20)}
    sends = asyncio.create_task(
        stand.client.post("/gw/api/big", headers=bearer(token), json=body)
    )
    await stand.bench.until(lambda: len(stand.upstream.received) == 1)
    (call,) = stand.gateway.calls
    async with operators_http(stand.bench) as http:
        told = (await http.post(f"/api/calls/{call.id}/cut")).json()
    assert (await sends).json()["reason"] == "call_cut"
    assert told["request_whole"] is False
    assert 0 < told["bytes_out"] < 9 * 2**20
    assert told["cut_by"]["name"] == "uid 1000"
    result = await stand.result()
    assert result.detail["bytes_out"] == told["bytes_out"]


async def test_a_panic_and_a_scope_taken_cut_what_they_are_about(
    stand: Stand, agent: Agent, token: str, gate: asyncio.Event
) -> None:
    """A scope that is taken cuts calls under it alone; a panic cuts everybody's."""
    headers = bearer(token)
    reads = asyncio.create_task(stand.client.get("/gw/api/events/a", headers=headers))
    writes = asyncio.create_task(
        stand.client.put("/gw/api/upload/a", headers=headers | OCTETS, content=b"abc")
    )
    await stand.bench.until(lambda: len(stand.upstream.received) == 2)
    broker, operator = stand.bench.broker, stand.bench.broker.actor(agent)
    gone = frozenset({"write:calendar"})
    changed = await change_scopes(broker, agent.id, frozenset(), gone, operator)
    assert tuple(changed.calls) == (1, 1)
    reply = await writes
    assert (reply.status_code, reply.json()["reason"]) == (403, "scope_not_granted")
    assert not reads.done()
    stopped = await panic(broker, "stop", operator)
    assert tuple(stopped.calls) == (1, 1)
    reply = await reads
    assert (reply.status_code, reply.json()["reason"]) == (401, "panic")
    gate.set()
    (on,) = await stand.bench.events("panic.on")
    assert (on.detail["calls_cut"], on.detail["calls_sent"]) == (1, 1)


async def test_an_agent_has_so_many_calls_at_once(
    stand: Stand, token: str, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its cap it is 503, another agent is not, and an ended call makes room."""
    monkeypatch.setattr(calls_module, "MOST_OPEN", 2)

    def ask(secret: str) -> asyncio.Task[httpx.Response]:
        asked = stand.client.get("/gw/api/events/a", headers=bearer(secret))
        return asyncio.create_task(asked)

    first = [ask(token) for _ in range(2)]
    await stand.bench.until(lambda: len(stand.upstream.received) == 2)
    reply = await ask(token)
    assert (reply.status_code, reply.json()["reason"]) == (503, "too_many_calls")
    other = await stand.agent("read:calendar", name="other")
    theirs = ask(await stand.token(other, "read:calendar"))
    await stand.bench.until(lambda: len(stand.upstream.received) == 3)
    gate.set()
    assert [(await one).status_code for one in (*first, theirs)] == [200] * 3
    await stand.settled()
    assert (await ask(token)).status_code == 200


async def test_a_token_that_ended_while_a_body_came_sends_nothing(
    stand: Stand, agent: Agent
) -> None:
    """Its agent was revoked and restored meanwhile: the token is not back."""
    broker = stand.bench.broker
    token = await stand.token(agent, "read:calendar")
    ended = asyncio.Event()

    async def body() -> Any:
        yield b'{"amount": 1,'
        await revoke_agent(broker, agent.id, "now", broker.actor(agent))
        await stand.restore(agent)
        ended.set()
        yield b' "currency": "USD"}'

    headers = bearer(token, **{"Content-Type": "application/json"})
    url = "/gw/api/notes/a"
    await stand.service(BEARER + ROUTES + NOTES)
    reply = await stand.client.post(url, headers=headers, content=body())
    assert ended.is_set()
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    assert stand.upstream.received == []


async def test_a_revocation_that_overtakes_a_decision_sends_nothing(
    stand: Stand, agent: Agent, token: str
) -> None:
    """Revoked while the attempt is being recorded: a result says cut, none is sent."""
    broker = stand.bench.broker
    record = broker.record

    async def overtaken(*drafts: Any, **more: Any) -> Any:
        written = await record(*drafts, **more)
        if any(draft.type == "gateway.attempt" for draft in drafts):
            await revoke_agent(broker, agent.id, "now", broker.actor(agent))
        return written

    broker.record = overtaken  # type: ignore[assignment]
    reply = await stand.client.get("/gw/api/events/a", headers=bearer(token))
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    assert stand.upstream.connections == 0
    broker.record = record  # type: ignore[method-assign]
    assert await stand.records() == [("attempt", "granted"), ("result", "cut")]


async def test_consoles_see_each_call_as_it_goes(stand: Stand, token: str) -> None:
    """A call is told whole when it is held and when it has ended, sent or denied."""
    told: list[Any] = []
    stand.gateway.calls._tell = lambda _, info: told.append(info())
    asking = paying(stand, token)
    stepup = await stand.pending()
    await stand.bench.until(lambda: [one.state for one in told] == ["held"])
    await stand.approve(stepup.id)
    await asking
    await stand.bench.until(lambda: told[-1].state == "ended")
    last = told[-1]
    assert (last.ended, last.status, last.bytes_in) == ("done", 200, 2)
    assert (last.service, last.method, last.path) == ("api", "POST", "/transfers/a")
    assert (last.stepup_id, last.decision_id) == (stepup.id, stepup.decision_id)
    asking = paying(stand, token)
    stepup = await stand.pending()
    await stand.bench.until(lambda: told[-1].state == "held")
    await stand.deny(stepup.id, "no")
    assert (await asking).status_code == 403
    await stand.bench.until(lambda: told[-1].state == "ended")


async def test_an_attempt_whose_record_failed_and_is_there_did_not_go_out(
    stand: Stand, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is reported lost and found later is no call of unknown end."""
    broker, record = stand.bench.broker, stand.bench.broker.record

    async def lost(*drafts: Draft, **more: Any) -> Any:
        await record(*drafts, **more)
        raise LedgerUnwritableError("the disk did not say")

    monkeypatch.setattr(broker, "record", lost)
    reply = await stand.client.get("/gw/api/events/1", headers=bearer(token))
    assert (reply.status_code, reply.json()["error"]) == (
        503,
        "temporarily_unavailable",
    )
    monkeypatch.undo()
    await stand.gateway.look()
    assert await stand.records() == [("attempt", "granted"), ("result", "failed")]
    assert stand.upstream.received == []
    await stand.gateway.calls.recover()
    assert len(await stand.records()) == 2


async def test_an_agent_that_floods_is_not_decided_about(
    stand: Stand, token: str
) -> None:
    """Refused over and over it is 429, and no record is made of each."""
    for _ in range(1001):
        stand.bench.broker.admitting.floods.refused(
            stand.bench.broker.registry.agents()[0].id
        )
    reply = await stand.client.get("/gw/api/events/a", headers=bearer(token))
    assert (reply.status_code, reply.json()["error"]) == (429, "slow_down")
    assert stand.upstream.received == []
