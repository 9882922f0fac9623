"""Answers at the operators' socket: refusals, faults of ours, clients that leave."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from support.bench import Bench

from agentvault_tui.broker.authority import Authority, Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.operators_api.long_work import AnswerTurns
from agentvault_tui.broker.operators_api.streams import is_urgent
from agentvault_tui.broker.operators_api.wire import guarded, refuse_grant, route
from agentvault_tui.operator_api.calls import ACCESS, CALLS, Access, ApiCall
from agentvault_tui.operator_api.shapes import HeadInfo
from agentvault_tui.web import Server
from agentvault_tui.web.exchange import RESERVED
from agentvault_tui.web.places import Limits
from agentvault_tui.web.sockets import unix_socket


async def test_a_fault_of_ours_is_a_problem_document_and_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer follows RFC 9457 and tells no detail; the log has the traceback."""

    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.ledger, "events", broken)
    with caplog.at_level(logging.ERROR):
        answer = await bench.read("/api/audit")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 500
    assert "secret" not in answer.text
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info


async def test_damage_is_a_problem_document_that_says_so(bench: Bench) -> None:
    """A hash that is text is damage of the ledger, with a remedy."""
    await bench.agent()
    db = sqlite3.connect(bench.home.database)
    db.execute("DROP TRIGGER events_are_not_changed")
    db.execute("UPDATE events SET hash = 'text'")
    db.commit()
    db.close()
    answer = await bench.read("/api/audit")
    assert answer.status_code == 500
    assert answer.json()["error"] == "LedgerDamagedError"
    assert answer.json()["title"] == "Internal Server Error"
    assert answer.json()["detail"]
    assert answer.json()["remedy"]


@pytest.mark.parametrize("path", ["/api/agents/agt_nobody", "/api/nothing"])
async def test_the_title_of_a_refusal_is_its_status_and_the_detail_says_why(
    bench: Bench, path: str
) -> None:
    """With the type about:blank RFC 9457 section 4.2.1 leaves the title no choice."""
    told = (await bench.read(path)).json()
    assert (told["type"], told["status"]) == ("about:blank", 404)
    assert told["title"] == "Not Found"
    assert told["detail"]


async def test_a_body_that_breaks_off_is_no_fault_of_ours(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that leaves before its request is whole is not logged as an error."""
    path = bench.home.socket
    async with Server(bench.clock) as server:
        app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))
        listener = await server.listen(app, unix_socket(path))
        _, writer = await asyncio.open_unix_connection(path)
        head = b"POST /api/agents/revoke HTTP/1.1\r\nHost: b\r\nContent-Length: 50\r\n"
        writer.write(head + b"\r\n{")
        await bench.until(lambda: bool(listener.tasks))
        writer.close()
        await bench.until(lambda: not listener.tasks)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_reserved_connection_carries_no_approval() -> None:
    """It is for ending rights: what grants is 503 there, and passes on any other."""
    state: dict[str, object] = {}
    request = Request({"type": "http", "state": state})
    assert refuse_grant(request) is None
    state[RESERVED] = True
    refusal = refuse_grant(request)
    assert refusal is not None
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")


async def test_a_grant_takes_no_place_that_is_for_ending_rights(bench: Bench) -> None:
    """One path gives and takes: over a reserved connection the body decides."""
    agent = await bench.agent("a", "read:calendar", "read:email")
    other = await bench.agent("b")
    bounds, path = Limits(connections=4), bench.home.socket
    async with Server(bench.clock) as server, AsyncExitStack() as stack:
        app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))
        listener = await server.listen(
            app, unix_socket(path), limits=bounds, urgent=is_urgent
        )
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://b")
        )
        for _ in range(4):
            await stack.enter_async_context(client.stream("GET", "/api/events"))
        await bench.until(lambda: len(listener.tasks) == 4)
        scopes, delegates = "/api/agents/scopes", "/api/agents/delegates"
        one, to = {"agent_id": agent.id}, {"agent_id": agent.id, "to": other.id}
        for call, body in (
            (scopes, {**one, "grant": ["read:finance"]}),
            (scopes, {**one, "grant": ["read:finance"], "ungrant": ["read:email"]}),
            (scopes, {**one, "serves": ["read:email"]}),
            (delegates, {**to, "scopes": ["read:email"]}),
        ):
            refused = await client.post(call, json=body)
            assert refused.status_code == 503, refused.text
            assert "for revoking and denying" in refused.json()["detail"]
        less = (scopes, {**one, "ungrant": ["read:email"]}), (delegates, to)
        for call, body in less:
            ended = await client.post(call, json=body)
            assert ended.status_code == 200, ended.text
    assert bench.broker.registry.agent(agent.id).scopes == ("read:calendar",)


def test_each_route_has_a_place_in_the_table(bench: Bench) -> None:
    """What is not in the table of routes and needs cannot be served."""
    sessions = Sessions(bench.broker)
    app = operators_app(bench.broker, bench.feed, sessions)
    for one in app.routes:
        (method,) = one.methods - {"HEAD"}  # type: ignore[attr-defined]
        assert (method, one.path) in ACCESS  # type: ignore[attr-defined]

    async def handler(_: Any) -> HeadInfo:
        return HeadInfo(head=1, hash="")

    new = route(ApiCall("POST", "/api/new", HeadInfo), handler)
    turns = AnswerTurns(bench.broker.admitting.answers)
    with pytest.raises(KeyError):
        guarded(new, Authority(bench.broker, sessions), turns)
    posts = [one for one in CALLS if one.method == "POST" and one.access is Access.READ]
    assert {one.path for one in posts} == {
        *("/api/policy/explain", "/api/policy/plan", "/api/presence"),
        "/api/services/try",
    }
