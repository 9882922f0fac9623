"""Requests of servers by URL: each is answered, and no client is asked."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.gateway_stand import SECRET, Received, Stand
from support.mcp_by_url import Server, plain, result, stand_of
from support.patience import PATIENT


@pytest.mark.parametrize(
    ("method", "member", "code"),
    [
        ("ping", "result", None),
        *((one, "error", -32601) for one in ("roots/list", "elicitation/create")),
        ("sampling/createMessage", "error", -32601),
    ],
)
async def test_a_request_of_a_server_is_answered_in_its_session(
    stand: Stand, method: str, member: str, code: int | None
) -> None:
    """Else the server waits for ever, and with it the call that it works on."""
    asked = json.dumps({"jsonrpc": "2.0", "id": "own-7", "method": method}).encode()

    async def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        writer.write(head + b"data: " + asked + b"\n\n")
        reply = await server.replies.get()
        done = result(request, reply=reply)
        writer.write(b"data: " + json.dumps(done).encode() + b"\n\n")
        writer.close()

    server = Server()
    mcp = await stand_of(stand, server)
    server.respond = respond
    client = await mcp.client("legacy")
    async with asyncio.timeout(PATIENT):
        told = await client.call("read_file", path="/a")
    assert told["reply"]["id"] == "own-7"
    assert member in told["reply"]
    assert told["reply"].get("error", {}).get("code") == code
    sent = mcp.stand.upstream.received[-1]
    assert sent.header("mcp-session-id") == "upstream-1"
    assert sent.header("authorization") == f"Bearer {SECRET}"
    assert (await mcp.stand.records())[-1] == ("result", "done")


async def test_a_server_that_asks_without_end_gets_a_hundred_replies(
    stand: Stand,
) -> None:
    """Each reply is a request of its own; the answer still counts."""
    asked = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "roots/list"}).encode()

    def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        last = json.dumps(result(request)).encode()
        text = (b"data: " + asked + b"\n\n") * 150 + b"data: " + last + b"\n\n"
        writer.write(plain(text, Content_Type="text/event-stream"))

    server = Server()
    mcp = await stand_of(stand, server)
    server.respond = respond
    client = await mcp.client("legacy")
    assert "isError" not in await client.call("read_file", path="/a")
    assert server.replies.qsize() == 100
