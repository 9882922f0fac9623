"""The schemas of tools: what a call may have, and which headers repeat it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gateway_stand import Received, Stand
from support.mcp_stand import Client, McpStand, messages

from agentvault_tui.gateway.mcp import tool_schemas
from agentvault_tui.gateway.mcp.errors import INVALID_PARAMS, McpError
from agentvault_tui.gateway.mcp.tool_schemas import read_schema

OPEN = {"type": "object", "properties": {"path": {"type": "string"}}}
CLOSED = {**OPEN, "additionalProperties": False}
NESTED = {
    "type": "object",
    "properties": {
        "to": CLOSED,
        "all": {"type": "array", "items": CLOSED},
        "any": {"anyOf": [CLOSED]},
        "ref": {"$ref": "#/$defs/x", "additionalProperties": False},
        "pattern": {"patternProperties": {"^a": {}}, "additionalProperties": False},
    },
}


@pytest.mark.parametrize(
    ("schema", "arguments", "undeclared"),
    [
        (OPEN, {"path": "/a", "other": 1}, None),
        (CLOSED, {"path": "/a"}, None),
        (CLOSED, {"path": {"x": 1}}, None),
        (CLOSED, {"path": "/a", "other": 1}, "/other"),
        (CLOSED, {"Path": "/a"}, "/Path"),
        ({"additionalProperties": False}, {"a": 1}, "/a"),
        (NESTED, {"to": {"path": 1}, "new": {"x": 1}}, None),
        (NESTED, {"to": {"x": 1}}, "/to/x"),
        (NESTED, {"all": [{"path": 1}, {"path": 1, "x": 2}]}, "/all/x"),
        (NESTED, {"any": {"x": 1}, "ref": {"x": 1}, "pattern": {"x": 1}}, None),
        (None, {"x": 1}, None),
        ([], {"x": 1}, None),
        ({"properties": [], "additionalProperties": False}, {"x": 1}, None),
        ({**OPEN, "additionalProperties": {"type": "string"}}, {"x": 1}, None),
    ],
)
def test_a_closed_schema_refuses_what_it_does_not_declare(
    schema: Any, arguments: dict[str, Any], undeclared: str | None
) -> None:
    """At every level; what is no readable object, or is behind a reference, is open."""
    read = read_schema(schema)
    if undeclared is None:
        read.check(arguments)
        return
    with pytest.raises(McpError) as refused:
        read.check(arguments)
    assert refused.value.code == -32602
    assert refused.value.text.endswith(undeclared)


WORDS = ["properties", "items", "additionalProperties", "x-mcp-header", "$ref", "a"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(WORDS), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(JSON, st.dictionaries(st.text(), JSON))
def test_no_schema_of_a_server_breaks_anything(schema: Any, arguments: Any) -> None:
    """It lets a call pass, or refuses an argument."""
    read = read_schema(schema)
    headers = dict(read.headers_for(arguments))
    assert {name.encode() for name in headers} <= read.headers.keys()
    code = INVALID_PARAMS
    try:
        read.check(arguments)
    except McpError as refused:
        code = refused.code
    assert code == INVALID_PARAMS


REGION = {
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "in": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
        "sure": {"type": "boolean", "x-mcp-header": "Sure"},
    }
}


@pytest.mark.parametrize(
    ("header", "value", "passes"),
    [
        (b"mcp-param-region", b"eu", True),
        (b"mcp-param-region", b"=?base64?ZXU=?=", True),
        (b"mcp-param-region", b"7", False),
        (b"mcp-param-n", b"7", True),
        (b"mcp-param-n", b"7.0", True),
        (b"mcp-param-n", b"eu", False),
        (b"mcp-param-sure", b"true", True),
        (b"mcp-param-sure", b"True", False),
        (b"mcp-param-other", b"eu", False),
        (b"mcp-param-path", b"eu", False),
    ],
)
def test_a_header_is_compared_with_its_own_argument(
    header: bytes, value: bytes, passes: bool
) -> None:
    """And with no other one of the same value; numbers are compared as numbers."""
    arguments = {"region": "eu", "in": {"n": 7}, "sure": True, "path": "eu"}
    read, headers = read_schema(REGION), [(b"accept", b"x"), (header, value)]
    if passes:
        read.check_headers(headers, arguments)
        headers.append((header, value))  # twice is none
    with pytest.raises(McpError) as refused:
        read.check_headers(headers, arguments)
    assert refused.value.code == -32020


def test_headers_are_written_from_the_arguments() -> None:
    """As 2026-07-28 encodes them; null, absent and composed values have none."""
    arguments = {"region": "ä", "in": {"n": 42.0}, "sure": {"x": 1}, "other": "z"}
    written = dict(read_schema(REGION).headers_for(arguments))
    assert written == {"mcp-param-region": "=?base64?w6Q=?=", "mcp-param-n": "42.0"}
    assert read_schema(REGION).headers_for({"region": None}) == []


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"x-mcp-header": "N"}, "b": {"x-mcp-header": "n"}},
        {"a": {"x-mcp-header": ""}},
        {"a": {"x-mcp-header": "a b"}},
        {"a": {"x-mcp-header": "a\r\nb: c"}},
        {"a": {"x-mcp-header": 7}},
        {"a": {"items": {"x-mcp-header": "N"}}},
        {"a": {"anyOf": [{"x-mcp-header": "N"}]}},
    ],
)
def test_annotations_that_clients_refuse_have_no_header(
    properties: dict[str, Any],
) -> None:
    """2026-07-28, transports: none that is no token, not unique or not reachable."""
    assert read_schema({"properties": properties}).headers == {}


class Server:
    """An MCP server by URL whose list of tools a test changes."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = []
        self.pages = 1
        self.lists = True
        self.changed = False
        self.asked = 0

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        message = json.loads(request.body)
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        kind, before = b"application/json", b""
        if message["method"] != "tools/list":
            reply["result"] = {"content": []}
            if self.changed:
                note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
                kind = b"text/event-stream"
                before = b"data: " + json.dumps(note).encode() + b"\n\ndata: "
        elif self.lists:
            self.asked += 1
            page = int(message["params"].get("cursor", "1"))
            more = {"nextCursor": str(page + 1)} if page < self.pages else {}
            reply["result"] = {"tools": self.tools if not more else [], **more}
        else:
            self.asked += 1
            reply["error"] = {"code": -32601, "message": "no lists"}
        content = before + json.dumps(reply).encode() + (b"\n\n" if before else b"")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (kind, len(content)) + content)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def mcp(stand: Stand, server: Server) -> McpStand:
    stand.upstream.answer = server
    mcp = McpStand(stand, stand.bench.home.data / "none")
    await mcp.remote()
    return mcp


async def code_of(client: Client, **arguments: Any) -> int | None:
    params = {"name": "read_file", "arguments": {"path": "/a", **arguments}}
    told = messages(await client.send("tools/call", params))[-1]
    return told["error"]["code"] if "error" in told else None


def sent(mcp: McpStand, method: str) -> list[Received]:
    received = mcp.stand.upstream.received
    return [one for one in received if json.loads(one.body)["method"] == method]


async def test_the_gateway_asks_a_server_for_its_schemas(
    mcp: McpStand, server: Server
) -> None:
    """Over all pages, by itself, and again when they may have changed."""
    server.tools = [{"name": "read_file", "inputSchema": CLOSED}]
    server.pages = 3
    client = await mcp.client("modern")
    assert await code_of(client, other=1) == -32602
    assert await code_of(client) is None
    assert server.asked == 3
    assert len(sent(mcp, "tools/call")) == 1
    server.tools, server.pages = [{"name": "read_file", "inputSchema": OPEN}], 1
    assert await code_of(client, other=1) == -32602
    mcp.stand.bench.clock.advance(tool_schemas.AGE_S)
    assert tool_schemas.AGE_S == 60
    assert await code_of(client, other=1) is None
    assert server.asked == 4
    server.tools, server.changed = [{"name": "read_file", "inputSchema": CLOSED}], True
    assert await code_of(client, other=1) is None  # in whose answer it says so
    assert await code_of(client, other=1) == -32602
    server.tools = [{"name": "read_file", "inputSchema": OPEN}]
    await client.send("tools/list")  # what a client is shown counts as well
    assert await code_of(client, other=1) is None


async def test_a_server_without_a_list_has_open_schemas(
    mcp: McpStand, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undeclared arguments are carried; a list that was read before counts on."""
    server.lists = False
    client = await mcp.client("modern")
    assert await code_of(client, other=1) is None
    assert json.loads(sent(mcp, "tools/call")[0].body)["params"]["arguments"] == {
        "path": "/a",
        "other": 1,
    }
    server.lists, server.tools = True, [{"name": "read_file", "inputSchema": CLOSED}]
    mcp.stand.bench.clock.advance(60)
    assert await code_of(client, other=1) == -32602
    server.lists = False
    mcp.stand.bench.clock.advance(60)
    assert await code_of(client, other=1) == -32602
    server.lists, server.tools = True, [{"name": "read_file", "inputSchema": 7}]
    mcp.stand.bench.clock.advance(60)
    assert await code_of(client, other=1) is None


async def test_headers_for_a_server_are_written_by_the_gateway(
    mcp: McpStand, server: Server
) -> None:
    """From the arguments, whether the client sent them or not; others are refused."""
    schema = {"properties": {"path": {"type": "string", "x-mcp-header": "Where"}}}
    server.tools = [{"name": "read_file", "inputSchema": schema}]
    client = await mcp.client("modern")
    assert await code_of(client) is None
    for extra, code in (
        ({"mcp-param-where": "=?base64?L2E=?="}, None),
        ({"mcp-param-where": "/b"}, -32020),
        ({"mcp-param-path": "/a"}, -32020),
    ):
        client.extra = extra
        assert await code_of(client) == code
    calls = sent(mcp, "tools/call")
    assert [one.header("mcp-param-where") for one in calls] == ["/a", "/a"]
    client.extra = {"mcp-param-where": "/a"}
    listed = await client.send("tools/list")
    assert (listed.status_code, listed.json()["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ('{"cc": []}', True),
        ('{"bcc": []}', False),
        ('[{"bcc": []}]', True),
        ("bcc", True),
        ("[" * 100_000, False),
    ],
)
def test_a_text_is_checked_as_the_object_that_a_tool_takes(
    options: str, passes: bool
) -> None:
    """Servers read it as that; where the tool takes a text, it stays one."""
    inner = {"properties": {"cc": {}}, "additionalProperties": False}
    schema = read_schema({"properties": {"options": inner, "text": {"type": "string"}}})
    schema.check({"text": options})
    if passes:
        schema.check({"options": options})
        return
    with pytest.raises(McpError):
        schema.check({"options": options})


@pytest.mark.parametrize(
    ("schema", "arguments", "path", "passes"),
    [
        (OPEN, {"path": "/a", "other": 1}, ("path",), True),
        (OPEN, {"path": "/a", "other": 1}, ("other",), False),
        (OPEN, {"path": "/a"}, ("other",), True),
        ({**OPEN, "additionalProperties": True}, {"other": 1}, ("other",), False),
        ({"properties": {}}, {"other": 1}, ("other",), False),
        ({"properties": {}, "additionalProperties": True}, {"o": 1}, ("o",), True),
        ({"type": "object"}, {"other": 1}, ("other",), True),
        ({**OPEN, "anyOf": [{"properties": {"o": {}}}]}, {"o": 1}, ("o",), True),
        ({**OPEN, "$ref": "#/$defs/x"}, {"other": 1}, ("other",), True),
        (None, {"other": 1}, ("other",), True),
        ({"properties": {"to": OPEN}}, {"to": {"x": 1}}, ("to", "x"), False),
        ({"properties": {"to": OPEN}}, {"to": {"path": 1}}, ("to", "path"), True),
        ({"properties": {"l": {"items": OPEN}}}, {"l": [{"x": 1}]}, (*"l0x",), False),
    ],
)
def test_an_argument_that_decides_is_one_that_the_tool_declares(
    schema: Any, arguments: dict[str, Any], path: tuple[str, ...], passes: bool
) -> None:
    """The tool would act on another one; where the schema is unclear, it is open."""
    read = read_schema(schema)
    read.check(arguments)
    if passes:
        read.check(arguments, [path])
        return
    with pytest.raises(McpError) as refused:
        read.check(arguments, [path])
    assert refused.value.code == -32602


async def test_a_decoy_for_a_pattern_of_tools_is_refused(
    mcp: McpStand, server: Server
) -> None:
    """The pattern's ``{path}`` is no argument of this tool, which reads ``paths``."""
    many = {"type": "object", "properties": {"paths": {"type": "array"}}}
    server.tools = [{"name": "read_file", "inputSchema": many}]
    client = await mcp.client("modern")
    assert await code_of(client, paths=["/secret"]) == -32602
    assert not sent(mcp, "tools/call")
