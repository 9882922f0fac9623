"""Servers by URL: the credential is attached, answers of both kinds are relayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.gateway_stand import SECRET, Received, Stand, endless
from support.mcp_by_url import Server, plain, result, stand_of
from support.mcp_stand import (
    MODERN,
    SCOPES,
    TOOLS,
    Client,
    McpStand,
    error_of,
    messages,
)
from support.patience import PATIENT
from support.short_turns import short_turns

from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.gateway.echo import next_turn
from agentvault_tui.gateway.mcp.streamable import _events
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.web.admission import AdmissionQueue
from agentvault_tui.web.service_connection import UpstreamError


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def mcp(stand: Stand, server: Server) -> McpStand:
    return await stand_of(stand, server)


@pytest.fixture(params=["modern", "legacy"])
async def client(request: pytest.FixtureRequest, mcp: McpStand) -> Client:
    return await mcp.client(request.param)


def calls(mcp: McpStand) -> list[Received]:
    received = mcp.stand.upstream.received
    return [r for r in received if json.loads(r.body).get("method") == "tools/call"]


async def test_the_credential_goes_out_and_the_agents_token_does_not(
    mcp: McpStand, client: Client
) -> None:
    """Path and query of the URL, headers of MCP, and the server's own session."""
    client.extra = {"cookie": "a=b", "x-other": "1", "accept-encoding": "gzip"}
    told = await client.call("read_file", path="/a")
    assert told["unknown"] == 1
    (request,) = calls(mcp)
    assert request.target == "/mcp?team=1"
    assert request.header("authorization") == f"Bearer {SECRET}"
    names = {name for name, _ in request.headers}
    assert not names & {"cookie", "x-other", "agentvault-request"}
    assert request.header("accept-encoding") == "identity"
    if client.modern:
        assert request.header("mcp-protocol-version") == MODERN
        assert request.header("mcp-name") == "read_file"
        assert request.header("mcp-session-id") is None
    else:
        assert client.session != "upstream-1"
        assert request.header("mcp-session-id") == "upstream-1"
        assert client.version == "2025-06-18"
    for one in mcp.stand.upstream.received:
        assert client.token not in one.body.decode() + str(one.headers)
    events = await mcp.stand.settled()
    assert events[-1].detail["status"] == 200
    assert events[-1].detail["bytes_out"] == len(request.body)


async def test_a_client_is_asked_nothing_by_a_server(mcp: McpStand) -> None:
    """The server is told that a client can neither sample nor be asked."""
    await mcp.client("legacy")
    begun = json.loads(mcp.stand.upstream.received[0].body)
    assert begun["method"] == "initialize"
    assert begun["params"]["capabilities"] == {}
    assert begun["params"]["clientInfo"] == {"name": "test", "version": "1"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_a_stream_is_relayed_however_it_is_cut_up(
    mcp: McpStand, server: Server, client: Client, end: str
) -> None:
    """Progress comes under the client's own token, then the result; byte by byte."""

    async def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        message = json.loads(request.body)
        token = message["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1, "unknown": 2}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        text = f": hello{end}{end}id: 1{end}data:{end}{end}"
        spread = json.dumps(result(request), indent=1).splitlines()
        for data in ([json.dumps(note)], spread):
            text += "event: message" + end
            text += "".join(f"data: {line}{end}" for line in data) + end
        kind = b"Content-Type: text/event-stream; charset=utf-8\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % kind)
        for byte in text.encode():
            writer.write(b"1\r\n%c\r\n" % byte)
        writer.write(b"0\r\n\r\n")

    server.respond = respond
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    told = messages(await client.send("tools/call", params, progressToken="mine"))
    assert told[0]["params"] == {"progressToken": "mine", "progress": 1, "unknown": 2}
    assert told[-1]["id"] == client.number
    assert told[-1]["result"]["content"][0]["text"] == "done"


EVENTS = (
    *(b"data:1\n\n", b":\n\n", b":\n", b"\n", b"data:{\n\n", b"data:{}\n\n"),
    b'data:{"id":1}\n\n',
)


@pytest.mark.parametrize("event", EVENTS)
async def test_a_stream_of_events_that_are_no_messages_ends(event: bytes) -> None:
    """A server could go on for ever, and each event costs time of the event loop."""

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield event * 10_000

    answer: Any = SimpleNamespace(status=200, chunks=chunks)
    posted: Any = SimpleNamespace(max_answer=2**20)
    with pytest.raises(UpstreamError):
        [one async for one in _events(answer, posted, next_turn)]


async def test_a_long_stream_of_messages_leaves_turns_to_others() -> None:
    """All of them come in few pieces of the connection."""
    message = b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield message * 2_000

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    answer: Any = SimpleNamespace(status=200, chunks=chunks)
    posted: Any = SimpleNamespace(max_answer=2**20)
    others = asyncio.create_task(count())
    assert len([one async for one in _events(answer, posted, next_turn)]) == 20_000
    others.cancel()
    assert turns > 20


async def test_streams_of_several_servers_are_read_in_turns() -> None:
    """A turn of the event loop reads the events of one of them, however many there are.

    It is the turn for parts of answers that are slow to search.
    """
    message = b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield message * 500

    line = AdmissionQueue(1)

    async def read() -> int:
        answer: Any = SimpleNamespace(status=200, chunks=chunks)
        posted: Any = SimpleNamespace(max_answer=2**20)
        events = _events(answer, posted, partial(line.enter, large=True))
        return len([one async for one in events])

    reading = asyncio.gather(*(read() for _ in range(160)))
    await asyncio.sleep(0)  # each of them has begun
    async with short_turns():
        assert await reading == [1_500] * 160


@pytest.mark.parametrize(
    ("answer", "code", "ended"),
    [
        (plain({"token": SECRET}), "credential_echoed", "unknown"),
        (plain(b"rubbish"), "upstream_reset", "unknown"),
        (plain(b"[]"), "upstream_reset", "unknown"),
        (plain(b"x" * (2**20 + 1), "400 Bad Request"), "upstream_reset", "unknown"),
        (plain({"jsonrpc": "2.0", "id": 1}), "upstream_reset", "unknown"),
        (
            plain(b"<html>", "502 Bad Gateway", Content_Type="text/html"),
            "upstream_reset",
            "unknown",
        ),
        (plain({}, "401 Unauthorized"), "upstream_unreachable", "unknown"),
        (plain({}, "404 Not Found"), "upstream_reset", "unknown"),
        (plain({}, "408 Request Timeout"), "upstream_reset", "unknown"),
        (
            plain({}, "303 See Other", Location="http://127.0.0.1/"),
            "upstream_reset",
            "unknown",
        ),
        (
            plain({}, "200 OK", Content_Type="text/event-stream"),
            "upstream_reset",
            "unknown",
        ),
        (
            b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
            "upstream_reset",
            "unknown",
        ),
        (b"\x00\x01\r\n\r\n", "upstream_reset", "unknown"),
    ],
)
async def test_an_answer_that_is_none_leaves_open_what_was_done(
    mcp: McpStand, server: Server, answer: bytes, code: str, ended: str
) -> None:
    """The model reads why; the credential never reaches it; sent once. Whatever the
    status is, the server had it whole and may have done it."""
    server.respond = lambda _, writer: writer.write(answer)
    client = await mcp.client("modern")
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    told = await client.send("tools/call", params)
    assert SECRET not in told.text
    assert error_of(told.json()["result"]) == code
    assert (await mcp.stand.records())[-1] == ("result", ended)
    assert (await mcp.stand.settled())[-1].detail["request_whole"] is True
    assert len(calls(mcp)) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("other", [999, "1", None, 1.5, "absent"])
async def test_an_answer_to_another_request_is_none(
    mcp: McpStand, server: Server, client: Client, kind: str, other: object
) -> None:
    """In a stream, the one with the request's id counts, which comes later."""

    def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        right = result(request)
        wrong = {**right, "id": other, "result": {"content": [{"text": "wrong"}]}}
        if other == "absent":
            del wrong["id"]
        text = json.dumps(wrong).encode()
        if kind == "text/event-stream":
            text = b"data: %b\n\ndata: %b\n\n" % (text, json.dumps(right).encode())
        writer.write(plain(text, Content_Type=kind))

    server.respond = respond
    told = await client.call("read_file", path="/a")
    if kind == "text/event-stream":
        assert told["content"][0]["text"] == "done"
    else:
        assert error_of(told) == "upstream_reset"


@pytest.mark.parametrize(
    "more",
    [
        '"result":{"content":[{"type":"text","text":"second"}]}',
        '"id":7',
        '"re\\u0073ult":{}',
        '"error":{"code":1,"message":"x"}, "error" : {"code":2,"message":"y"}',
    ],
)
async def test_a_message_with_a_member_twice_is_none(
    mcp: McpStand, server: Server, client: Client, more: str
) -> None:
    """Readers differ on which of the two counts (RFC 8259 section 4)."""

    def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        text = json.dumps(result(request), indent=2)[:-1] + f",{more}}}"
        writer.write(plain(text.encode()))

    server.respond = respond
    assert error_of(await client.call("read_file", path="/a")) == "upstream_reset"


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_is_read_up_to_1_mib(
    mcp: McpStand, server: Server, kind: str
) -> None:
    """A longer one would block the event loop; the result names the key that helps."""
    size = 2**20

    def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        text = json.dumps(result(request, much="x" * size)).encode()
        if kind != "application/json":
            text = b"data: " + text + b"\n\n"
        writer.write(plain(text, Content_Type=kind))

    server.respond = respond
    client = await mcp.client("modern")
    answer = await client.call("read_file", path="/a")
    assert error_of(answer) == "upstream_reset"
    assert "max_body in mcp/files.toml" in answer["content"][0]["text"]
    size -= 300
    assert len((await client.call("read_file", path="/a"))["much"]) == size


async def test_errors_of_a_server_are_relayed(
    mcp: McpStand, server: Server, client: Client
) -> None:
    """With their code and data; a call that was answered so is done."""
    error = {"code": -32602, "message": "no such file", "data": {"kept": 1.5}}

    def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        told = {"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "error": error}
        writer.write(plain(told, "400 Bad Request"))

    server.respond = respond
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    answer = await client.send("tools/call", params)
    assert answer.json()["error"] == error
    assert answer.status_code == (400 if client.modern else 200)
    assert (await mcp.stand.records())[-1] == ("result", "done")


async def test_a_session_the_server_has_ended_is_begun_anew(
    mcp: McpStand, server: Server
) -> None:
    """404, as the server said it: official clients initialize again."""
    client = await mcp.client("legacy")
    server.gone = True
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    assert (await client.send("tools/call", params)).status_code == 404
    assert (await mcp.stand.records())[-1] == ("result", "unknown")
    server.gone = False
    assert (await client.send("tools/call", params)).status_code == 404
    client.session = None
    await client.begin()
    assert "isError" not in await client.call("read_file", path="/a")
    assert calls(mcp)[-1].header("mcp-session-id") == "upstream-2"


async def test_two_clients_have_sessions_of_their_own(mcp: McpStand) -> None:
    """Of the server's too: nothing of one's state is another's."""
    one = await mcp.client("legacy", name="a")
    two = await mcp.client("legacy", name="b")
    await one.call("read_file", path="/a")
    await two.call("read_file", path="/b")
    sessions = [request.header("mcp-session-id") for request in calls(mcp)]
    assert sessions == ["upstream-1", "upstream-2"]


async def test_a_private_address_needs_to_be_allowed(mcp: McpStand) -> None:
    """A server's name or address is judged as a service's is."""
    url = f"http://127.0.0.1:{mcp.stand.upstream.port}/mcp"
    await mcp.write(head=f'url = "{url}"\nallow_http = true\n')
    client = await mcp.client("modern")
    assert error_of(await client.call("read_file", path="/a")) == "upstream_refused"
    assert mcp.stand.upstream.connections == 0


async def test_a_revocation_cuts_a_stream(
    mcp: McpStand, server: Server, client: Client
) -> None:
    """The server's connection is gone, and nothing more reaches the client."""
    closed = asyncio.Event()

    async def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        kind = b"Content-Type: text/event-stream\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % kind)
        meta = json.loads(request.body)["params"]["_meta"]
        params = {"progressToken": meta["progressToken"], "progress": 1}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        writer.write(f"data: {json.dumps(note)}\n\n".encode())
        await endless(writer, b": alive\n\n")
        closed.set()

    server.respond = respond
    body, headers = client.request(
        "tools/call",
        {"name": "read_file", "arguments": {"path": "/a"}},
        progressToken=1,
    )
    lines = []

    async def read() -> None:
        http = mcp.stand.client
        async with http.stream(
            "POST", "/mcp/files", json=body, headers=headers
        ) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)
                if line.startswith("data:"):
                    broker = mcp.stand.bench.broker
                    cut = await revoke_agent(broker, client.agent.id, "x", OPERATOR)
                    assert (cut.calls.cut, cut.calls.sent) == (1, 1)

    with pytest.raises(httpx.ReadError):
        await read()
    assert not any("result" in line for line in lines)
    async with asyncio.timeout(30):
        await closed.wait()
    assert (await mcp.stand.records())[-1] == ("result", "cut")


async def test_nothing_of_a_list_reaches_a_revoked_agent(
    mcp: McpStand, server: Server
) -> None:
    """What was asked before the revocation is not answered after it."""
    client = await mcp.client("modern")
    asked, go = asyncio.Event(), asyncio.Event()

    async def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go.wait()
        writer.write(plain(result(request, tools=[{"name": "read_all"}])))

    server.lists = respond
    listing = asyncio.ensure_future(client.send("tools/list"))
    await asked.wait()
    await revoke_agent(mcp.stand.bench.broker, client.agent.id, "x", OPERATOR)
    go.set()
    answer = await listing
    assert (answer.status_code, answer.json()["reason"]) == (401, "agent_revoked")


@pytest.mark.parametrize("how", ["revoke", "remove"])
async def test_a_list_in_flight_ends_with_the_token_that_was_passed_on(
    mcp: McpStand, server: Server, how: str
) -> None:
    """Its client is told at once, and the server is hung up on before it answers."""
    first, client = await mcp.holder()
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def respond(_: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        kind = b"Content-Type: application/json"
        writer.write(
            b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 99999999\r\n\r\n" % kind
        )
        await endless(writer, b" ")
        stopped.set()

    server.lists = respond
    listing = asyncio.ensure_future(client.send("tools/list"))
    await asked.wait()
    broker = mcp.stand.bench.broker
    if how == "revoke":
        await revoke_agent(broker, first.id, "x", OPERATOR)
    else:
        none = frozenset[str]()
        await change_delegates(broker, first.id, client.agent.id, none, OPERATOR)
    answer = await asyncio.wait_for(listing, PATIENT)
    assert (answer.status_code, answer.json()["reason"]) == (401, "invalid_token")
    await asyncio.wait_for(stopped.wait(), PATIENT)


async def test_a_connected_account_is_used_for_its_agent_alone(mcp: McpStand) -> None:
    """Without an account connected there is no credential, and nothing is sent."""
    url = f"http://127.0.0.1:{mcp.stand.upstream.port}/mcp"
    head = f'url = "{url}"\nallow_http = true\nallow_private = true\n'
    credential = '[credential]\nkind = "connection"\nconnection = "google-oauth2"\n'
    client, broker = await mcp.client("modern", *SCOPES), mcp.stand.bench.broker
    for origin, code in (
        ("https://other.test", "secret_not_for_origin"),
        (url.removesuffix("/mcp"), "upstream_unreachable"),
    ):
        listed = ConnectionSettings(("read:files",), for_=(origin,))
        known = {"google-oauth2": listed}
        broker.settings = replace(broker.settings, connections=known)
        if code == "upstream_unreachable":
            await mcp.write(TOOLS + credential, head=head)
        else:
            with pytest.raises(AssertionError, match="The MCP server"):
                await mcp.write(TOOLS + credential, head=head)
        assert error_of(await client.call("read_file", path="/a")) == code
    assert mcp.stand.upstream.received == []


async def test_headers_are_made_anew_from_what_the_body_says(mcp: McpStand) -> None:
    """None of the client's passes; not one for an argument of a tool without schema."""
    legacy = await mcp.client("legacy")
    legacy.extra = {"mcp-name": "other", "mcp-method": "x", "mcp-param-path": "/b"}
    await legacy.call("read_file", path="/a")
    modern = await mcp.client("modern")
    modern.extra = {"mcp-param-path": "/b", "mcp-other": "1"}
    await modern.call("read_file", path="/a")
    first, second = (dict(one.headers) for one in calls(mcp))
    assert {n for n in first if n.startswith("mcp-")} == {
        "mcp-protocol-version",
        "mcp-session-id",
    }
    assert first["mcp-protocol-version"] == "2025-06-18"
    assert {n: v for n, v in second.items() if n.startswith("mcp-")} == {
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "read_file",
    }
