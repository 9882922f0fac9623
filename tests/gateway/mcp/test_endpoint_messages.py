"""Messages and headers as clients write them: one reading, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.mcp_stand import MODERN, Client, McpStand, messages, refusal_of


async def test_numbers_pass_both_ways_with_their_digits(
    mcp: McpStand, client: Client
) -> None:
    """Both ways as they were written; members MCP does not name stay here, and ids are
    the client's own."""
    body, headers = client.request(
        "tools/call", {"name": "read_file", "arguments": {"path": "/a", "x": 1.0}}
    )
    raw = (
        json.dumps(body).replace('"x": 1.0', '"x": 1.0e2').replace("{", '{"zz": 1, ', 1)
    )
    raw = raw.replace(f'"id": {body["id"]}', '"id": "sept-7"')
    answer = await client.post(raw.encode(), headers)
    assert '"kept" : 1.5' in answer.text
    assert '"unknown" : 1.0' in answer.text
    assert answer.json()["id"] == "sept-7"
    assert answer.json()["result"]["unknown"] == {"kept": 1.5}
    assert "zz" not in mcp.received()[0]
    assert '"x":1.0e2' in mcp.log.read_text()
    (attempt,) = await mcp.stand.bench.events("gateway.attempt")
    assert attempt.detail["dropped"] == ["zz"]


async def test_line_ends_in_a_body_make_no_second_message(
    mcp: McpStand, client: Client
) -> None:
    """What is white space in JSON can not end the line that a process reads."""
    body, headers = client.request(
        "tools/call",
        {"name": "read_file", "arguments": {"path": "/a", "x": 1, "y": "sep"}},
    )
    smuggled = (
        '{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"crash"}}'
    )
    raw = json.dumps(body).replace('"x": 1', f'"x": \n{smuggled}\r\n')
    raw = raw.replace('"sep"', '"\u2028\u0085"')
    answer = await client.post(raw.encode(), headers)
    assert answer.status_code == 200, answer.text
    assert [one["params"]["name"] for one in mcp.received()] == ["read_file"]
    assert mcp.received()[0]["params"]["arguments"]["y"] == "\u2028\u0085"


async def test_arguments_that_say_two_things_are_refused(mcp: McpStand) -> None:
    """One that is read and missing, or there in another spelling, is no clear call."""
    client = await mcp.client("modern")
    for arguments in ({"Path": "/b"}, {}, {"path": ["/a"]}, {"path": "é" * 8_500}):
        result = await client.call("read_file", **arguments)
        assert refusal_of(result)["reason"] == "unclear_call"
    assert mcp.received() == []


@pytest.mark.parametrize("number", ["420e-1", "42.0", "-0"])
async def test_a_resource_is_no_number_that_programs_read_apart(
    mcp: McpStand, number: str
) -> None:
    """JavaScript reads ``420e-1`` as 42."""
    client = await mcp.client("modern")
    body, headers = client.request("tools/call", {"name": "read_file"})
    body["params"]["arguments"] = {"path": 0}
    raw = json.dumps(body).replace('{"path": 0}', f'{{"path": {number}}}').encode()
    result = messages(await client.post(raw, headers))[-1]["result"]
    assert refusal_of(result)["reason"] == "unclear_call"
    assert mcp.received() == []


ODD = [None, True, 1, 1.5, "x", [], [[]], {}, {"a": [{}]}, -(2**70)]


@pytest.mark.parametrize("wrong", [[], {}, 1.0, True, None, [1]])
async def test_a_refused_notification_is_400_without_an_id(
    mcp: McpStand, client: Client, wrong: Any
) -> None:
    """The cancelled request's id is a text or an integer; anything else is -32602."""
    body, headers = client.request("notifications/cancelled", {"requestId": wrong})
    del body["id"]
    answer = await client.post(body, headers)
    assert answer.status_code == 400
    assert answer.json()["id"] is None
    assert answer.json()["error"]["code"] == -32602
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    body, headers = client.request("tools/call", params)
    del body["id"]
    answer = await client.post(body, headers)
    assert answer.status_code == 400
    assert (answer.json()["id"], answer.json()["error"]["code"]) == (None, -32600)
    assert mcp.received() == []


async def test_no_type_of_a_member_is_a_fault(mcp: McpStand, client: Client) -> None:
    """Every member of every method as every type of JSON: answered, and never 500."""
    members = {
        "tools/call": ("name", "arguments", "requestState", "inputResponses", "task"),
        "tools/list": ("cursor",),
        "initialize": ("protocolVersion", "capabilities", "clientInfo"),
        "notifications/cancelled": ("requestId", "reason"),
        "notifications/initialized": ("x",),
        "completion/complete": ("ref", "argument", "context"),
    }
    metas = ("progressToken", "traceparent", "clientInfo", "clientCapabilities")
    bodies = []
    for method, names in members.items():
        for odd in ODD:
            good = {"name": "read_file", "arguments": {"path": "/a"}}
            given = good if method == "tools/call" else {}
            bodies += [(method, {**given, name: odd}, {}) for name in names]
            bodies += [
                (method, given, {name if name[0] in "pt" else f"{META}{name}": odd})
                for name in metas
            ]
    for method, params, meta in bodies:
        body, headers = client.request(method, params, **meta)
        if method.startswith("notifications"):
            del body["id"]
        if not isinstance(headers.get("mcp-name", ""), str):
            del headers["mcp-name"]
        answer = await client.post(body, headers)
        assert answer.status_code < 500, (body, answer.text)
    for name in ("jsonrpc", "id", "method", "params", "result"):
        for odd in ODD:
            body, headers = client.request("tools/list")
            answer = await client.post({**body, name: odd}, headers)
            assert answer.status_code < 500, (name, odd)


META = "io.modelcontextprotocol/"


async def test_discovery_says_what_is_served_here(mcp: McpStand) -> None:
    """The server's own words, of which what ends at the gateway is left out."""
    client = await mcp.client("modern")
    answer = await client.send("server/discover")
    assert answer.json()["result"]["supportedVersions"] == [MODERN]
    legacy = await mcp.client("legacy")
    body, headers = legacy.request(
        "initialize",
        {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}},
    )
    result = (await legacy.post(body, headers)).json()["result"]
    assert result["capabilities"] == {"tools": {}}
    assert result["protocolVersion"] == "2025-11-25"
    assert result["unknown"] == {"kept": 1.5}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("mcp-method", "tools/list"),
        ("mcp-method", None),
        ("mcp-name", "write_file"),
        ("mcp-name", None),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-param-path", "/b"),
        ("mcp-param-path", "=?base64?L2I=?="),
    ],
)
async def test_headers_that_differ_from_the_body_are_refused(
    mcp: McpStand, header: str, value: str | None
) -> None:
    """400 and -32020 before anything is decided or sent."""
    client = await mcp.client("modern")
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    body, headers = client.request("tools/call", params)
    if value is None:
        del headers[header]
    else:
        headers[header] = value
    answer = await client.post(body, headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    assert mcp.received() == []


async def test_headers_that_agree_in_another_spelling_pass(mcp: McpStand) -> None:
    """Base64 is decoded before it is compared (2026-07-28, transports)."""
    client = await mcp.client("modern")
    params = {"name": "read_file", "arguments": {"path": "/ä"}}
    body, headers = client.request("tools/call", params)
    headers |= {"mcp-name": "=?base64?cmVhZF9maWxl?="}
    assert (await client.post(body, headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":1}}', -32600),
        (b"[" * 70 + b"]" * 70, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(
    mcp: McpStand, body: bytes, code: int
) -> None:
    """400 with the code of JSON-RPC; the process hears of none."""
    client = await mcp.client("modern")
    _, headers = client.request("ping")
    for name in ("mcp-protocol-version", "mcp-method"):
        del headers[name]
    answer = await client.post(body, headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert not mcp.log.exists()


async def test_other_requests_than_post_are_refused(mcp: McpStand) -> None:
    """GET opens no stream; an unknown server is 404; a page of another site 403."""
    client = await mcp.client("modern")
    _, headers = client.request("ping")
    got = await mcp.stand.client.get("/mcp/files", headers=headers)
    assert (got.status_code, got.headers["allow"]) == (405, "POST, DELETE")
    deleted = await mcp.stand.client.delete("/mcp/files", headers=headers)
    assert deleted.status_code == 405
    unknown = await mcp.stand.client.post("/mcp/none", headers=headers)
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_service")
    headers["origin"] = "https://evil.test"
    foreign = await mcp.stand.client.post("/mcp/files", headers=headers)
    assert foreign.status_code == 403
