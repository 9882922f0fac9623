"""No answer of a service or server holds the event loop, whatever it consists of.

Each test has the largest input that the bounds let in. A revocation waits for the turn
of the loop in which such an answer is read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway_stand import SECRET, Received, Stand, Upstream
from support.mcp_stand import SCOPES, Client, McpStand
from support.short_turns import short_turns
from support.tls_front import trusted

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles

MANY = b",".join(b'"a%d":0' % at for at in range(90_000))
HALF = MANY[: len(MANY) // 2].rpartition(b",")[0]
TINY = b"data:1\n\n"


LONG = {
    "links": b"Link: " + b",".join([b"<>"] * 20_000),
    "escaped links": b"Link: " + b",".join([b"</a%20b?x=%41>"] * 4_000),
    "link headers": b"\r\n".join([b"Link: </a%20b>"] * 64),
    "a location": b"Location: /" + b"a%20" * 15_000,
    "a refresh": b"Refresh: 0; url=/" + b"a/../" * 12_000,
    "charsets": b"Content-Type: text/html"
    + b"".join(b"; charset=qa%d" % at for at in range(3_500)),
    "a type": b"Content-Type: text/html; " + b"charset " * 7_500,
    "codings": b"Content-Encoding: " + b"a," * 30_000,
    "connection": b"Connection: " + b",".join(b"a%d" % at for at in range(10_000)),
    "cookies": b"\r\n".join([b"Set-Cookie: a=%41"] * 90),
    "escapes": b"X-Escapes: " + b"%2541\\u0041&amp;" * 3_500,
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_head_of_a_service_is_read_in_short_turns(
    stand: Stand, name: str
) -> None:
    """Most of them are refused before the work; any other one is passed on."""
    await stand.secret("key", SECRET, f"http://127.0.0.1:{stand.upstream.port}")
    route = '[[routes]]\nmethod = "GET"\npath = "/x"\nscope = "read:calendar"\n'
    await stand.service('[credential]\nkind = "bearer"\nsecret = "key"\n' + route)
    agent = await stand.agent("read:calendar")
    token = await stand.token(agent, "read:calendar")

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        line = LONG[name] if len(stand.upstream.received) > 1 else b"X-First: yes"
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % line)

    stand.upstream.answer = answer
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    await stand.client.get("/gw/api/x", **ask)
    async with short_turns():
        replies = await asyncio.gather(
            *(stand.client.get("/gw/api/x", **ask) for _ in range(4))
        )
    assert {reply.status_code for reply in replies} <= {200, 502}


HEAD = b"HTTP/1.1 200 OK\r\n"
ESCAPES = b"".join(b"%%%02x" % one for one in SECRET[:-1].encode()) * 800
AT_ONCE = {
    "tiny chunks": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"1\r\na\r\n" * 15_000
    + b"0\r\n\r\n",
    "escapes of a part of the credential": HEAD
    + b"X-Escapes: %b\r\nContent-Length: 0\r\n\r\n" % ESCAPES[:60_000],
}


@pytest.mark.parametrize("name", AT_ONCE)
async def test_many_answers_at_once_are_read_in_short_turns(
    stand: Stand, name: str
) -> None:
    """All of them arrive whole: the services wait until their bytes are read."""
    await stand.secret("key", SECRET, f"http://127.0.0.1:{stand.upstream.port}")
    route = '[[routes]]\nmethod = "GET"\npath = "/x"\nscope = "read:calendar"\n'
    await stand.service('[credential]\nkind = "bearer"\nsecret = "key"\n' + route)
    agent = await stand.agent("read:calendar")
    token = await stand.token(agent, "read:calendar")
    writers: list[asyncio.StreamWriter] = []

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if len(writers) == 48:
            for one in writers:  # all in one turn
                one.write(AT_ONCE[name])

    stand.upstream.answer = answer
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    async with short_turns():
        replies = await asyncio.gather(
            *(stand.client.get("/gw/api/x", **ask) for _ in range(48))
        )
    size = AT_ONCE[name].count(b"1\r\na\r\n")
    assert {reply.content for reply in replies} == {b"a" * size}


async def test_answers_that_end_with_their_connection_arrive_whole(
    stand: Stand, short: Path
) -> None:
    """TLS reports the end at once, also while bytes before it wait for their turn."""
    home = Home.locate(short / "tls")
    home.prepare()
    tls, _, _ = trusted(home)
    secure = Upstream()
    await secure.start(tls.context())
    head = f'origin = "https://127.0.0.1:{secure.port}"\nallow_private = true\n'
    head += f'ca_file = "{CaFiles.of(home).ca}"\n'
    route = '[[routes]]\nmethod = "GET"\npath = "/x"\nscope = "read:calendar"\n'
    await stand.service(route, head=head)
    agent = await stand.agent("read:calendar")
    token = await stand.token(agent, "read:calendar")
    writers: list[asyncio.StreamWriter] = []

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if len(writers) == 24:
            for one in writers:
                one.write(AT_ONCE["tiny chunks"])
                one.close()

    secure.answer = answer
    ask = {"headers": {"Authorization": f"Bearer {token}"}}
    replies = await asyncio.gather(
        *(stand.client.get("/gw/api/x", **ask) for _ in range(24))
    )
    await secure.stop()
    assert {reply.content for reply in replies} == {b"a" * 15_000}


def listing(*tools: dict[str, Any]) -> bytes:
    return json.dumps({"tools": tools}, separators=(",", ":")).encode()


RESULTS = {
    "members": ("tools/call", b"{%b}" % MANY),
    "tools": ("tools/list", listing(*({"name": f"a{n}"} for n in range(52_000)))),
    "members of a tool": ("tools/list", b'{"tools":[{"name":"read_a",%b}]}' % MANY),
    "cursors": ("tools/list", b'{"tools":[],%b}' % MANY),
    "arguments": (
        "tools/list",
        listing(
            *(
                {"name": f"read_{n}", "inputSchema": {"properties": {"a": {}, "b": 0}}}
                for n in range(15_000)
            )
        ),
    ),
    "an argument": (
        "tools/list",
        b'{"tools":[{"name":"read_a","inputSchema":{"properties":{%b}}}]}'
        % HALF.replace(b":0", b":{}"),
    ),
    "a greeting": ("initialize", b'{"capabilities":{%b},%b}' % (HALF, HALF)),
    "prompts": ("prompts/list", b'{"prompts":[{%b}]}' % MANY),
}


class Server:
    """An MCP server by URL whose every answer to one method is the given one."""

    def __init__(self, method: str, answer: bytes) -> None:
        self.method, self.answer = method, answer

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        message = json.loads(request.body)
        method, id_ = message["method"], message.get("id")
        if id_ is None:
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return
        result = b'{"protocolVersion":"2025-06-18","capabilities":{},"tools":[]}'
        body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (id_, result)
        kind = b"application/json"
        if method == self.method:
            body = self.answer % id_
            if body.startswith(b"data"):
                kind = b"text/event-stream"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % kind
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


async def ask(stand: Stand, server: Server) -> httpx.Response:
    """Return a server's answer to its method, which is read in short turns."""
    stand.upstream.answer = server
    mcp = McpStand(stand, stand.bench.home.config / "none")
    url = f"http://127.0.0.1:{stand.upstream.port}/mcp"
    head = f'url = "{url}"\nallow_http = true\nallow_private = true\n'
    file = '[tools."read_*"]\nscope = "read:files"\n'
    await mcp.write('unmatched = "read:files"\n' + file, head=head)
    agent = await stand.agent(*SCOPES)
    client = Client(stand, agent, await stand.token(agent, "read:files"), modern=False)
    method, server.method = server.method, ""
    await client.begin()
    await client.call("read_a")  # starts the worker process
    server.method = method
    params: dict[str, Any] = {}
    if method == "initialize":
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}}
        params["clientInfo"] = info
    elif method == "tools/call":
        params = {"name": "read_a", "arguments": {}}
    async with short_turns():
        await client.send(method, params)
    async with short_turns():
        return await client.send(method, params)


@pytest.mark.parametrize("name", RESULTS)
async def test_a_long_result_of_a_server_is_read_in_short_turns(
    stand: Stand, name: str
) -> None:
    """A list is filtered in a worker process; of a result, only marks are read."""
    method, result = RESULTS[name]
    answer = b'{"jsonrpc":"2.0","id":%d,"result":' + result.replace(b"%", b"%%") + b"}"
    assert len(answer) < 2**20
    reply = await ask(stand, Server(method, answer))
    assert reply.status_code == 200


OTHERS = {
    "other members": b'{"jsonrpc":"2.0","id":%d,"result":{},' + MANY + b"}",
    "an error": b'{"jsonrpc":"2.0","id":%d,"error":{"code":1,' + MANY + b"}}",
    "tiny events": TINY * 100_000 + b"%%%d",
    "empty lines": b"data:\n\n" + b"\n" * 900_000 + b"%%%d",
    "brief messages": b"data:{}\n\n" * 100_000 + b"%%%d",
    "comments": b":\n" * 400_000 + b"%%%d",
    "answers to others": b'data:{"result":1}\n\n' * 40_000 + b"%%%d",
    "progress": b'data:{"method":"notifications/progress","params":{%b}}\n\n' % MANY
    + b"%%%d",
}


@pytest.mark.parametrize("name", OTHERS)
async def test_a_long_message_of_a_server_is_read_in_short_turns(
    stand: Stand, name: str
) -> None:
    """Neither its number of members nor the number of events holds the loop."""
    reply = await ask(stand, Server("tools/call", OTHERS[name]))
    assert reply.status_code == 200


PROGRAM = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "tools": []}
    if message["method"] == "tools/call":
        print(sys.argv[1] * 200_000)
        result = {"content": []}
    if "id" in message:
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        print(json.dumps(answer), flush=True)
"""


@pytest.mark.parametrize("line", ["1\n", "{}\n", "\n"])
async def test_short_lines_of_a_program_are_read_in_short_turns(
    stand: Stand, line: str
) -> None:
    """Many print what their tools print."""
    mcp = McpStand(stand, stand.bench.home.config / "none")
    head = f"command = {json.dumps([sys.executable, '-c', PROGRAM, line])}\n"
    await mcp.write(head=head)
    client = await mcp.client("legacy")
    async with short_turns():
        assert (await client.call("read_file", path="/a"))["content"] == []
