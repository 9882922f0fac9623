"""Members of messages: only those that MCP's schema names reach a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import lenient_mcp_peer
from support.gateway_stand import Received, standing
from support.mcp_stand import Client, McpStand, messages

from agentvault_tui.gateway.mcp.errors import McpError
from agentvault_tui.gateway.mcp.members import TOP, build_params
from agentvault_tui.gateway.mcp.messages import read_message
from agentvault_tui.gateway.names import fold_name

RULES = """
[tools.read_file]
scope = "read:files"
"""
META = "io.modelcontextprotocol/"
KNOWN = {
    "top": ("jsonrpc", "id", "method", "params", "result", "error"),
    "params": ("name", "arguments", "_meta", "requestState", "inputResponses", "task"),
    "meta": (
        *("progressToken", "traceparent", "tracestate", "baggage"),
        *(f"{META}protocolVersion", f"{META}clientCapabilities", f"{META}clientInfo"),
        *(f"{META}logLevel", f"{META}related-task"),
    ),
}
OTHER = {"s": "\u017f", "k": "\u212a", "S": "\u017f", "K": "\u212a"}


@st.composite
def spellings(draw: st.DrawFn, name: str) -> str:
    """Spell a name as lenient programs accept it."""
    found = ""
    for letter in name:
        kinds = [letter, letter.upper(), letter.lower(), OTHER.get(letter, letter)]
        if letter.isascii() and letter.isalnum():
            kinds.append(chr(ord(letter) + 0xFEE0))  # its full width
        found += draw(st.sampled_from(kinds)) + draw(
            st.sampled_from(["", "", "", "", "_", "-", " "])
        )
    return found


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[str, str]:
    level = draw(st.sampled_from(sorted(KNOWN)))
    name = draw(st.sampled_from(KNOWN[level]))
    other = draw(spellings(name).filter(lambda one: one != name))
    return level, other


def body_with(level: str, name: str, value: object) -> dict[str, Any]:
    """Return a good call with one more member."""
    meta: dict[str, Any] = {
        f"{META}protocolVersion": "2026-07-28",
        f"{META}clientCapabilities": {},
    }
    params: dict[str, Any] = {
        "name": "read_file",
        "arguments": {"path": "/a"},
        "_meta": meta,
    }
    body: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": params,
    }
    {"top": body, "params": params, "meta": meta}[level][name] = value
    return body


VALUES = st.sampled_from(
    [None, "tools/call", "format_disk", {"name": "format_disk"}, {"path": "/etc"}, 1]
)


@settings(max_examples=300)
@given(misspelt(), VALUES)
def test_no_other_spelling_of_a_known_member_is_a_message(
    spelt: tuple[str, str], value: object
) -> None:
    """Case, ``_``, ``-``, blanks, full width, U+017F and U+212A, at each level."""
    body = body_with(*spelt, value)
    with pytest.raises(McpError) as refused:
        read_message(json.dumps(body).encode())
    assert refused.value.code == -32600


@settings(max_examples=200)
@given(st.sampled_from(sorted(KNOWN)), st.text(min_size=1, max_size=12), VALUES)
def test_a_lenient_server_reads_the_call_that_was_decided(
    level: str, name: str, value: object
) -> None:
    """Whatever member is added: the message is refused, or reads as if it were not
    there."""
    if name in KNOWN[level]:
        return
    body = body_with(level, name, value)
    with contextlib.suppress(McpError):
        message = read_message(json.dumps(body).encode())
        seen = lenient_mcp_peer.read(json.loads(message.encoded(1)))
        assert seen["method"] == message.method == "tools/call"
        assert seen["name"] == message.named == "read_file"
        assert seen["arguments"] == message.arguments == {"path": "/a"}
        assert seen["token"] is None


@pytest.mark.parametrize(
    ("method", "given", "built"),
    [
        ("tools/list", {"cursor": "c", "x": 1}, {"cursor": "c"}),
        ("resources/read", {"uri": "u", "name": "n"}, {"uri": "u"}),
        (
            "prompts/get",
            {"name": "n", "arguments": {"x": "1"}, "uri": "u"},
            {"name": "n", "arguments": {"x": "1"}},
        ),
        (
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "n", "x": 1},
                "argument": {"name": "a", "value": "v", "x": 1},
                "context": {"arguments": {"b": "c"}, "x": 1},
            },
            {
                "ref": {"type": "ref/prompt", "name": "n"},
                "argument": {"name": "a", "value": "v"},
                "context": {"arguments": {"b": "c"}},
            },
        ),
        (
            "initialize",
            {"protocolVersion": "v", "capabilities": {}, "clientInfo": {}, "x": 1},
            {"protocolVersion": "v", "capabilities": {}, "clientInfo": {}},
        ),
        ("notifications/initialized", {"x": 1}, {}),
        ("tools/call", {"name": "n", "requestState": "s"}, {"name": "n"}),
        ("other/method", {"x": 1}, {}),
    ],
)
def test_parameters_are_built_from_the_schema_of_their_method(
    method: str, given: dict[str, Any], built: dict[str, Any]
) -> None:
    """In the eras before 2026-07-28 no request is made again with its answers."""
    found, _ = build_params(method, given, modern=False)
    assert (found, list(found)) == (built, list(built))


def test_what_a_client_can_do_leaves_without_tasks() -> None:
    """In any spelling: a task goes on where no revocation cuts it."""
    name = f"{META}clientCapabilities"
    extensions = {f"{META}tasks": {}, f"{META}Ta-sks": {}, "com.example/x": {}}
    body = body_with("meta", name, {"tasks": {}, "own": {}, "extensions": extensions})
    with pytest.raises(McpError):  # two that fold alike
        read_message(
            json.dumps(
                body_with("meta", name, {"extensions": {"a_b": 1, "a-b": 2}})
            ).encode()
        )
    message = read_message(json.dumps(body).encode())
    assert message.meta[name] == {"own": {}, "extensions": {"com.example/x": {}}}
    for other in ("Extensions", "Tasks", "elici-tation"):
        with pytest.raises(McpError) as refused:
            read_message(json.dumps(body_with("meta", name, {other: {}})).encode())
        assert refused.value.code == -32600


# Against real servers, which note the bytes that they were given


def attacks() -> Iterator[tuple[str, str, object]]:
    """Yield members to add: each known one in some other spellings."""
    chance = random.Random(7)  # noqa: S311 - the same ones each time
    for level, names in KNOWN.items():
        for name in names:
            odd = "".join(OTHER.get(letter, letter) for letter in name)
            ways = {name.capitalize(), name.upper(), f"{name}_", f" {name}", odd}
            cut = chance.randrange(1, len(name))
            ways |= {f"{name[:cut]}-{name[cut:]}"}
            for other in sorted(ways - {name}):
                yield level, other, chance.choice(["format_disk", {"name": "x"}, 1])


@pytest.fixture
async def mcp(short: Path) -> AsyncIterator[McpStand]:
    async with standing(short) as stand:
        mcp = McpStand(stand, short / "received")
        program = [sys.executable, lenient_mcp_peer.__file__, str(mcp.log)]
        await mcp.write(RULES, head=f"command = {json.dumps(program)}\n")
        await mcp.remote(RULES, name="remote")
        stand.upstream.answer = answer_by_url
        yield mcp


async def answer_by_url(request: Received, writer: asyncio.StreamWriter) -> None:
    message = json.loads(request.body)
    tools = [{"name": name} for name in lenient_mcp_peer.TOOLS]
    listed = message["method"] == "tools/list"
    result = {"tools": tools} if listed else {"content": []}
    reply = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    content = json.dumps(reply).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d"
    writer.write(head % len(content) + b"\r\n\r\n" + content)


@pytest.mark.parametrize("name", ["files", "remote"])
async def test_servers_receive_the_built_message_and_nothing_of_an_attack(
    mcp: McpStand, name: str
) -> None:
    """Byte for byte, on standard input and by URL: a refused message leaves no byte,
    and a member that MCP does not name leaves none of its own."""
    client = await mcp.client("modern")
    client.name = name
    _, headers = client.request("tools/call", {"name": "read_file"})
    sent = 0
    for level, other, value in attacks():
        answer = await client.post(body_with(level, other, value), headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)
        sent += 1
    assert sent > 100
    assert received(mcp, name) == []
    for level in KNOWN:
        body = body_with(level, "com.example/Method", {"Name": "format_disk"})
        answer = await client.post(body, headers)
        assert "result" in messages(answer)[-1], answer.text
    calls = [one for one in received(mcp, name) if b"tools/call" in one]
    ids = [json.loads(one)["id"] for one in calls]
    assert calls == [
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"read_file",'
        b'"arguments":{"path":"/a"},"_meta":{"io.modelcontextprotocol/protocolVersion":'
        b'"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}' % id_
        for id_ in ids
    ]
    assert b"format_disk" not in b"".join(received(mcp, name))


def received(mcp: McpStand, name: str) -> list[bytes]:
    """Return the bytes of each message that a server was given."""
    if name == "remote":
        return [one.body for one in mcp.stand.upstream.received]
    return mcp.log.read_bytes().splitlines() if mcp.log.exists() else []


async def test_numbers_and_order_reach_a_server_as_a_person_saw_them(
    mcp: McpStand,
) -> None:
    """The held bytes are the parameters that leave."""
    client: Client = await mcp.client("modern")
    await mcp.write(
        '[tools.format_disk]\nscope = "delete:files"\n',
        head=(mcp.stand.bench.home.config / "mcp" / "files.toml")
        .read_text()
        .splitlines()[0]
        + "\n",
    )
    params = {"name": "format_disk", "arguments": {"z": 1, "a": 2}}
    body, headers = client.request("tools/call", params, progressToken="t")
    raw = json.dumps(body).replace('"z": 1', '"z": 1.50').encode()
    asked = asyncio.ensure_future(client.post(raw, headers))
    stepup = await mcp.stand.pending()
    assert stepup.request is not None
    assert stepup.request["body_kind"] == "json"
    assert stepup.request["body_type"] == "application/json"
    held = mcp.stand.gateway.calls.bodies.of(stepup.id)
    assert held is not None
    assert held.startswith(b'{"name":"format_disk","arguments":{"z":1.50,"a":2},')
    await mcp.stand.approve(stepup.id)
    assert "result" in messages(await asked)[-1]
    (call,) = [one for one in received(mcp, "files") if b"format_disk" in one]
    params_sent = call.partition(b',"params":')[2]
    id_ = json.loads(call)["id"]
    assert params_sent == held[:-2] + b',"progressToken":%d}}}' % id_


def test_names_of_the_tests_are_those_of_the_product() -> None:
    """All that the product knows at the top is tried above."""
    assert set(KNOWN["top"]) == set(TOP)
    assert all(fold_name(name) for names in KNOWN.values() for name in names)
