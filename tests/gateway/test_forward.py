"""What reaches a service is what policy saw: smuggling, framing, sizes, streams."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.bench import OPERATOR
from support.call_kit import bearer
from support.gateway_stand import Received, Stand, answers, endless
from support.patience import PATIENT
from support.web_kit import talk

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.model import Agent, Draft, EventType, Outcome

SERVICE = """
[credential]
kind = "bearer"
secret = "key"
[[routes]]
method = "POST"
path = "/read/{x}"
scope = "write:calendar"
[routes.parameters]
count = "body:/count"
[[routes]]
method = "PUT"
path = "/{file}"
scope = "write:calendar"
body = "opaque"
types = ["application/octet-stream"]
[[routes]]
method = "*"
path = "/{rest*}"
scope = "write:calendar"
"""
OCTETS = "application/octet-stream"


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    await stand.service(SERVICE)
    return await stand.agent("read:calendar", "write:calendar")


@pytest.fixture
async def token(stand: Stand, agent: Agent) -> str:
    return await stand.token(agent, "write:calendar")


def request(line: bytes, token: str, *headers: bytes, body: bytes = b"") -> bytes:
    head = [line, b"Host: @", b"Authorization: Bearer " + token.encode(), *headers]
    return b"\r\n".join([*head, b"", body])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((b"Content-Length: 3", b"Transfer-Encoding: chunked"), b"0\r\n\r\nGET /x"),
        ((b"Content-Length: 3", b"Content-Length: 4"), b"abcd"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), b"abc"),
        ((b"Transfer-Encoding: xchunked",), b"0\r\n\r\n"),
        ((b"Content-Length: +3",), b"abc"),
        ((b"Content-Length: 3 ", b"X : y"), b"abc"),
        ((b"X-Folded: a\r\n b",), b""),
        ((b"X-Bare: a\nContent-Length: 3",), b"abc"),
        ((b"Transfer-Encoding: chunked",), b"3\nabc\r\n0\r\n\r\n"),
        ((b"X-Feed: a\x0bb",), b""),
        ((b"X-Rub: a\x7fb",), b""),
        ((b"Authorization: Bearer another",), b""),
        ((b"Accept: \xff\xfe",), b""),
    ],
)
async def test_what_two_readers_could_read_differently_is_refused(
    stand: Stand, token: str, headers: tuple[bytes, ...], body: bytes
) -> None:
    """Ambiguous framing and headers that are no text reach no service."""
    asked = request(b"POST /gw/api/x HTTP/1.1", token, *headers, body=body)
    replies = await talk(
        stand.listener, asked.replace(b"Host", b"Connection: close\r\nHost")
    )
    assert replies.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), replies
    assert stand.upstream.received == []


async def test_a_type_that_connection_takes_away_is_none(
    stand: Stand, token: str
) -> None:
    """A service that is sent no type may read JSON as the form that is in it."""
    body = b'{"amount": 1, "x": "&amount=9000&"}'
    headers = (
        b"Connection: close, content-type",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    )
    asked = request(b"POST /gw/api/pay HTTP/1.1", token, *headers, body=body)
    reply = await talk(stand.listener, asked)
    assert b"agentvault-error: unsupported_body" in reply
    assert stand.upstream.received == []


@pytest.mark.parametrize(
    "target",
    [
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/a%2fb",
        b"/a%5cb",
        b"/a\\b",
        b"//a",
        b"/a//b",
        b"/a;b",
        b"/a%00",
        b"/a%c0%ae",
        b"/a%zz",
        b"/a%",
        b"/./a",
    ],
)
async def test_a_path_that_is_read_in_several_ways_is_bad(
    stand: Stand, token: str, target: bytes
) -> None:
    """Each is 400 bad_path with a record, and reaches no service."""
    line = b"GET /gw/api" + target + b" HTTP/1.1"
    reply = await talk(stand.listener, request(line, token, b"Connection: close"))
    assert reply.startswith(b"HTTP/1.1 400"), reply
    assert b"agentvault-error: bad_path" in reply
    assert stand.upstream.received == []
    (refused,) = await stand.bench.events("gateway.refused")
    assert refused.reason == "bad_path"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"/a%21b%20c", "/a!b%20c"),
        (b"/a?b=%2e&c=//;\\..", "/a?b=.&c=%2F%2F%3B%5C.."),
        (b"/%c3%BC/", "/%C3%BC/"),
        (b"/a?", "/a"),
    ],
)
async def test_any_other_target_leaves_as_it_was_read(
    stand: Stand, token: str, target: bytes, sent: str
) -> None:
    """The service gets the one encoding of the call, and so does the record."""
    line = b"GET /gw/api" + target + b" HTTP/1.1"
    reply = await talk(stand.listener, request(line, token, b"Connection: close"))
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert stand.upstream.received[0].target == sent
    (attempt,) = await stand.bench.events("gateway.attempt")
    path, _, query = sent.partition("?")
    assert (attempt.detail["path"], attempt.detail["query"]) == (path, query or None)


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
@pytest.mark.parametrize("body", [b"", b"GET /gw/api/x HTTP/1.1\r\n\r\n"])
async def test_methods_that_no_service_is_sent_are_refused(
    stand: Stand, token: str, method: bytes, body: bytes
) -> None:
    """TRACE would show the credential (RFC 9110 section 9.3.8); what follows a CONNECT
    is no request."""
    line = method + b" /gw/api/x HTTP/1.1"
    lines = [b"Connection: close", *([b"Content-Length: %d" % len(body)] * bool(body))]
    reply = await talk(stand.listener, request(line, token, *lines, body=body))
    assert reply.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"), reply
    assert reply.count(b"HTTP/1.1") == 1
    assert b"\r\nagentvault-error: method_not_allowed\r\n" in reply
    assert b"\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in reply
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"] == (
        "method_not_allowed"
    )
    assert stand.upstream.received == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
async def test_a_body_where_none_is_expected_reaches_no_service(
    stand: Stand, token: str, method: bytes
) -> None:
    """A service that leaves it unread would take it for the next request."""
    hidden = b"POST /pay HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    for framing, body in (
        (b"Content-Length: %d" % len(hidden), hidden),
        (
            b"Transfer-Encoding: chunked",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden),
        ),
    ):
        lines = (framing, b"Content-Type: application/json", b"Connection: close")
        line = method + b" /gw/api/x HTTP/1.1"
        reply = await talk(stand.listener, request(line, token, *lines, body=body))
        assert reply.startswith(b"HTTP/1.1 400"), reply
        assert b"agentvault-error: unexpected_body" in reply
    assert stand.upstream.received == []


async def test_an_empty_chunked_body_is_dropped(stand: Stand, token: str) -> None:
    """It leaves without a body and without a type, for every method."""
    for method in (b"GET", b"POST"):
        asked = request(
            method + b" /gw/api/x HTTP/1.1",
            token,
            b"Transfer-Encoding: chunked",
            b"Content-Type: text/json",
            b"Connection: close",
            body=b"0\r\n\r\n",
        )
        reply = await talk(stand.listener, asked)
        assert reply.startswith(b"HTTP/1.1 200"), reply
    for sent in stand.upstream.received:
        assert sent.body == b""
        assert sent.header("transfer-encoding") is None
        assert sent.header("content-type") is None


async def test_headers_that_leave_are_recorded_and_the_others_named(
    stand: Stand, token: str
) -> None:
    """The row has what was sent; row and answer name what was dropped."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = await stand.client.get(
        "/gw/api/x",
        headers={
            "Authorization": f"Bearer {token}",
            "X-Mine": "1",
            "Idempotency-Key": "k",
            "traceparent": parent,
        },
    )
    assert reply.headers["agentvault-dropped"] == "x-mine"
    (sent,) = stand.upstream.received
    assert sent.header("x-mine") is None
    assert (sent.header("user-agent") or "").startswith("AgentVault/")
    assert sent.header("traceparent") == parent
    (attempt,) = await stand.bench.events("gateway.attempt")
    key = sent.header("idempotency-key")
    assert attempt.detail["headers"] == {"accept": "*/*", "idempotency-key": key}
    assert attempt.detail["dropped"] == ["x-mine"]
    assert attempt.detail["trace"] == {"traceparent": parent}


async def test_an_upgrade_is_not_passed_on(stand: Stand, token: str) -> None:
    """Expect is answered here, and an offer of another protocol goes no further."""
    asked = request(
        b"POST /gw/api/x HTTP/1.1",
        token,
        b"Connection: Upgrade, close",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Content-Type: application/json",
        b"Content-Length: 3",
        body=b"123",
    )
    reply = await talk(stand.listener, asked)
    assert b"HTTP/1.1 200 OK" in reply
    (sent,) = stand.upstream.received
    assert sent.body == b"123"
    headers = dict(sent.headers)
    assert not {"upgrade", "expect"} & headers.keys()
    assert headers["connection"] == "close"  # ours: the request has a body


async def test_another_host_is_misdirected(stand: Stand, token: str) -> None:
    """A page elsewhere that rebinds its name is 421, one that sends its Origin 403."""
    asked = request(b"GET /gw/api/x HTTP/1.1", token, b"Connection: close")
    reply = await talk(stand.listener, asked.replace(b"@", b"evil.test"), host=False)
    assert b"421" in reply.split(b"\r\n")[0]
    assert b"agentvault-error" in reply
    page = asked.replace(b"Host", b"Origin: https://evil.test\r\nHost")
    assert (await talk(stand.listener, page)).startswith(b"HTTP/1.1 403")
    assert stand.upstream.received == []


@pytest.mark.slow
async def test_a_body_that_nobody_reads_streams_with_flat_memory(
    stand: Stand, token: str
) -> None:
    """48 MiB up and down hold no more than buffers; the result knows the hash."""
    size, piece = 48 * 2**20, b"p" * 65_536

    async def back(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    stand.upstream.answer = back
    stand.upstream.keep = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    length = {"Content-Length": str(size)}
    headers = bearer(token, **{"Content-Type": OCTETS}, **length)
    got = 0
    async with stand.client.stream(
        "PUT", "/gw/api/up", headers=headers, content=body()
    ) as reply:
        async for part in reply.aiter_raw():
            got += len(part)
    assert (got, stand.upstream.bytes_read) == (size, size)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 24 * 1024, f"{grown} KiB"
    (attempt,) = await stand.bench.events("gateway.attempt")
    assert attempt.detail["body_sha256"] is None
    result = await stand.result()
    whole = hashlib.sha256(piece * (size // len(piece))).hexdigest()
    assert result.detail["body_sha256"] == whole
    assert (result.detail["bytes_out"], result.detail["bytes_in"]) == (size, size)


async def test_the_record_has_the_hash_of_what_left_of_a_body(
    stand: Stand, token: str
) -> None:
    """The agent leaves amid its upload: what the service had is in the row."""
    host = b"127.0.0.1:%d" % stand.listener.port
    _, writer = await asyncio.open_connection("127.0.0.1", stand.listener.port)
    lines = b"Content-Type: " + OCTETS.encode(), b"Content-Length: 1000000"
    writer.write(request(b"PUT /gw/api/x HTTP/1.1", token, *lines).replace(b"@", host))
    writer.write(b"secret rows")
    await stand.bench.until(lambda: stand.upstream.bytes_read == 11)
    writer.transport.abort()
    result = await stand.result()
    assert result.detail["ended"] == "failed"
    assert result.detail["body_bytes"] == result.detail["bytes_out"] == 11
    assert result.detail["body_sha256"] == hashlib.sha256(b"secret rows").hexdigest()


async def test_a_stream_begins_before_its_first_piece(stand: Stand, token: str) -> None:
    """A service that sends its head and waits is not held back, piece by piece."""
    go = asyncio.Event()

    async def events(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            await go.wait()
            go.clear()
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")

    stand.upstream.answer = events
    async with stand.client.stream("GET", "/gw/api/x", headers=bearer(token)) as reply:
        assert reply.status_code == 200
        stream = reply.aiter_raw()
        go.set()
        assert await anext(stream) == b"data: 1\n\n"
        go.set()
        assert await anext(stream) == b"data: 2\n\n"
    result = await stand.result()
    assert result.detail["ended"] == "done"


async def test_an_agent_that_leaves_ends_its_call(stand: Stand, token: str) -> None:
    """The service's connection is closed, and the result says failed."""
    ended = asyncio.Event()

    async def stream(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await endless(writer, b"x" * 1000)
        ended.set()

    stand.upstream.answer = stream
    async with stand.client.stream("GET", "/gw/api/x", headers=bearer(token)) as reply:
        await anext(reply.aiter_raw())
    await asyncio.wait_for(ended.wait(), 5)
    result = await stand.result()
    assert result.detail["ended"] == "failed"


async def test_a_body_over_its_cap_is_refused(stand: Stand, token: str) -> None:
    """One MiB where it is read, one GiB where it is opaque."""
    for line, kind, length, sent in (
        (b"POST /gw/api/read/x HTTP/1.1", b"application/json", 2**20 + 1, 0),
        (b"PUT /gw/api/x HTTP/1.1", OCTETS.encode(), 2**30 + 1, 0),
    ):
        asked = request(
            line,
            token,
            b"Content-Type: " + kind,
            b"Content-Length: %d" % length,
            b"Connection: close",
        )
        reply = await talk(stand.listener, asked)
        assert reply.startswith(b"HTTP/1.1 413"), reply
        assert b'"body_too_large"' in reply
        assert len(stand.upstream.received) == sent


async def test_a_body_that_breaks_off_is_no_short_one(stand: Stand, token: str) -> None:
    """The service never sees a whole request, and the result says failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.listener.port)
    host = b"127.0.0.1:%d" % stand.listener.port
    kind = b"Content-Type: " + OCTETS.encode()
    asked = request(b"PUT /gw/api/x HTTP/1.1", token, kind, b"Content-Length: 100")
    writer.write(asked.replace(b"@", host) + b"half")
    await writer.drain()
    await stand.bench.until(lambda: stand.upstream.bytes_read == 4)
    writer.close()
    result = await stand.result()
    assert result.detail["ended"] == "failed"
    assert result.detail["bytes_out"] == 4
    del reader


async def test_bytes_behind_a_body_are_no_part_of_it(stand: Stand, token: str) -> None:
    """What follows on the wire is another request, and is refused as one."""
    asked = request(
        b"POST /gw/api/read/x HTTP/1.1",
        token,
        b"Content-Type: application/json",
        b"Content-Length: 11",
        body=b'{"count":1}{"count":999}',
    )
    reply = await talk(stand.listener, asked)
    assert reply.startswith(b"HTTP/1.1 200")
    assert [r.body for r in stand.upstream.received] == [b'{"count":1}']


# The ledger


async def test_without_a_record_nothing_leaves(stand: Stand, token: str) -> None:
    """While the ledger cannot write a call is 503, and no service hears of it."""
    stand.bench.ledger.distrust("was changed")
    reply = await stand.client.get("/gw/api/x", headers=bearer(token))
    assert (reply.status_code, reply.json()["error"]) == (
        503,
        "temporarily_unavailable",
    )
    assert reply.headers["retry-after"]
    assert stand.upstream.received == []


async def test_a_result_the_ledger_cannot_take_is_recorded_later(
    stand: Stand, token: str
) -> None:
    """It fails after the attempt: the answer passes, and the record follows."""
    ledger = stand.bench.ledger

    async def failing(_: Received, writer: asyncio.StreamWriter) -> None:
        ledger.fault = "was changed"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    stand.upstream.answer = failing
    reply = await stand.client.get("/gw/api/x", headers=bearer(token))
    assert (reply.status_code, reply.text) == (200, "ok")
    await stand.bench.until(lambda: bool(stand.gateway.calls._unrecorded))
    with pytest.raises(LedgerUnwritableError):
        await stand.gateway.calls.look()
    ledger.fault = None
    await stand.gateway.calls.look()
    assert await stand.records() == [("attempt", "granted"), ("result", "done")]


async def test_an_attempt_without_a_result_becomes_unknown_at_a_start(
    stand: Stand, agent: Agent, token: str
) -> None:
    """Only those that have none, once, however often the broker starts."""
    assert (
        await stand.client.get("/gw/api/x", headers=bearer(token))
    ).status_code == 200
    await stand.settled()
    lost: dict[str, Any] = {"service": "api", "method": "POST", "call_id": "call_lost"}
    await stand.bench.broker.record(
        Draft(
            EventType.GATEWAY_ATTEMPT,
            stand.bench.broker.actor(agent),
            agent_id=agent.id,
            action="write:calendar",
            outcome=Outcome.ALLOWED,
            detail=lost,
        )
    )
    for _ in range(2):
        await Calls(stand.bench.broker).recover()
    results = await stand.bench.events("gateway.result")
    assert [e.detail["ended"] for e in results] == ["done", "unknown"]
    assert results[1].detail["call_id"] == "call_lost"
    assert results[1].agent_id == agent.id
    assert len(stand.upstream.received) == 1


# Shapes of answers


@pytest.mark.parametrize(
    ("method", "head", "status"),
    [
        ("HEAD", b"200 OK\r\nContent-Length: 1234", 200),
        ("GET", b"304 Not Modified\r\nContent-Length: 99\r\nETag: x", 304),
        ("DELETE", b"204 No Content", 204),
        ("OPTIONS", b"200 OK\r\nContent-Length: 0\r\nAllow: GET", 200),
        (
            "PATCH",
            b"520 Web Server Returned an Unknown Error\r\nContent-Length: 0",
            520,
        ),
        ("GET", b"203 Non-Authoritative\r\nContent-Length: 0\r\nContent-Range: x", 203),
    ],
)
async def test_answers_of_every_shape_pass(
    stand: Stand, token: str, method: str, head: bytes, status: int
) -> None:
    """Without a body, with a length and none, of statuses nobody registered; twice
    over one connection of the agent.
    """
    stand.upstream.answer = answers(head)
    for _ in range(2):
        reply = await stand.client.request(method, "/gw/api/x", headers=bearer(token))
        assert (reply.status_code, reply.content) == (status, b"")
    if method == "HEAD":
        assert reply.headers["content-length"] == "1234"
    assert [r.method for r in stand.upstream.received] == [method] * 2
    results = [e for e in await stand.settled() if e.type == "gateway.result"]
    assert [e.detail["ended"] for e in results] == ["done", "done"]


async def test_a_request_without_a_route_has_the_scope_of_its_service(
    stand: Stand, agent: Agent
) -> None:
    """``unmatched`` names a scope: on the path, and asked of the token."""
    await stand.service('unmatched = "read:calendar"\n')
    token = await stand.token(agent, "read:calendar")
    reply = await stand.client.get("/gw/api/any/where?x=1", headers=bearer(token))
    assert reply.status_code == 200
    (attempt,) = await stand.bench.events("gateway.attempt")
    assert (attempt.action, attempt.resource) == ("read:calendar", "api:/any/where")


@pytest.mark.slow
async def test_a_thousand_slow_clients_delay_nobody(
    stand: Stand, agent: Agent, token: str
) -> None:
    """Half of them silent and half dripping a body: another agent is answered."""
    host = b"127.0.0.1:%d" % stand.listener.port
    lines = b"Content-Type: " + OCTETS.encode(), b"Content-Length: 1000000"
    dripping = request(b"PUT /gw/api/x HTTP/1.1", token, *lines)
    writers = []
    for number in range(1_000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", stand.listener.port)
        except OSError:
            break  # the test has no more files
        writers.append(writer)
        writer.write(dripping.replace(b"@", host) if number % 2 else b"GET /gw/a")
    other = await stand.agent("write:calendar", name="other")
    headers = {"Authorization": f"Bearer {await stand.token(other, 'write:calendar')}"}
    for _ in range(5):
        for writer in writers:
            if not writer.is_closing():
                writer.write(b"x")
        reply = await stand.client.get("/gw/api/y", headers=headers)
        assert reply.status_code == 200
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


HELD = """
[[routes]]
method = "PUT"
path = "/{file}"
scope = "send:payment"
body = "opaque"
types = ["application/octet-stream"]
"""


@pytest.mark.parametrize("held", [False, True], ids=["json", "spooled"])
async def test_an_upload_of_a_revoked_agent_is_answered_at_its_next_byte(
    stand: Stand, held: bool
) -> None:
    """Nobody has decided about it yet, so there is no call in flight to be cut."""
    await stand.secret()
    credential = SERVICE.partition("[[routes]]")[0]
    await stand.service(credential + HELD if held else SERVICE)
    agent = await stand.agent("write:calendar", "send:payment")
    token = await stand.token(agent, "write:calendar")
    kind = OCTETS if held else "application/json"
    line = b"PUT /gw/api/file" if held else b"POST /gw/api/read/x"
    head = request(
        line + b" HTTP/1.1",
        token,
        b"Content-Type: " + kind.encode(),
        b"Content-Length: 1000000",
    )
    port = stand.listener.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace(b"@", b"127.0.0.1:%d" % port) + b" " * 1_000)
    forwarder = stand.gateway.forwarder
    began = forwarder._spools._places if held else forwarder._room._bytes
    await stand.bench.until(lambda: began.taken > 0)
    await revoke_agent(stand.bench.broker, agent.id, "", OPERATOR)
    writer.write(b" ")
    async with asyncio.timeout(PATIENT):
        reply = await reader.readuntil(b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 401 ")
    writer.close()
    (refused,) = await stand.bench.events("gateway.refused")
    assert refused.reason == "agent_revoked"
