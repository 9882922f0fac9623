"""Answers at the operators' socket: refusals, faults of ours, clients that leave."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import pytest
from starlette.requests import Request
from support.bench import Bench

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.operators_api.wire import denies_only
from agentvault_tui.web import Server
from agentvault_tui.web.exchange import RESERVED
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
    """It is for denying: an approval over it is 503, and not one over any other."""
    state: dict[str, object] = {}
    request = Request({"type": "http", "state": state})
    assert denies_only(request) is None
    state[RESERVED] = True
    refusal = denies_only(request)
    assert refusal is not None
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
