"""MCP on the agents' listener: decided, relayed as written, held, recorded, cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.mcp_stand import (
    HELD,
    TOOLS,
    Client,
    McpStand,
    finish,
    messages,
    refusal_of,
    text_of,
)

from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.gateway.body import IN_LOOP, BodyRoom, read_apart
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.mcp import toolcalls
from agentvault_tui.gateway.mcp.messages import LEGACY


@pytest.mark.parametrize("client", ["modern", *LEGACY], indirect=True)
async def test_an_allowed_call_has_two_records_and_its_result(
    mcp: McpStand, client: Client
) -> None:
    """In each era: attempt before, result after, of one decision, with the tool."""
    result = await client.call("read_file", path="/srv/a", n=1)
    assert json.loads(text_of(result)) == {"n": 1, "path": "/srv/a"}
    events = await mcp.stand.settled()
    attempt, ended = (e for e in events if e.type.startswith("gateway."))
    assert (attempt.type, ended.type) == ("gateway.attempt", "gateway.result")
    assert (attempt.action, attempt.resource) == ("read:files", "fs:/srv/a")
    canonical = b'{"n":1,"path":"/srv/a"}'
    digest = hashlib.sha256(canonical).hexdigest()
    for event in (attempt, ended):
        assert event.detail["server"] == "files"
        assert event.detail["tool"] == "read_file"
        assert event.detail["arguments_sha256"] == digest
        assert event.detail["call_id"] == attempt.detail["call_id"]
    assert ended.detail["ended"] == "done"
    assert ended.detail["bytes_in"] > 0
    assert len(mcp.received()) == 1


async def test_tools_are_listed_as_the_agents_scopes_allow(mcp: McpStand) -> None:
    """Of the server's tools those of granted scopes, ours, and for this agent alone."""
    modern = await mcp.client("modern", "read:files")
    legacy = await mcp.client("legacy", "delete:files", "read:files")
    result = (await modern.send("tools/list")).json()["result"]
    names = [tool["name"] for tool in result["tools"]]
    assert names == ["read_file", "wait", "crash", "ask", "shout", "agentvault_check"]
    assert result["cacheScope"] == "private"
    assert (result["resultType"], result["ttlMs"]) == ("complete", 0)
    result = (await legacy.send("tools/list")).json()["result"]
    assert "delete_file" in [tool["name"] for tool in result["tools"]]
    assert "cacheScope" not in result


async def test_of_a_token_that_was_passed_on_its_own_scopes_count(
    mcp: McpStand,
) -> None:
    """Its holder lists and calls tools by them, and its own grants add none."""
    _, client = await mcp.holder("delete:files")
    listed = messages(await client.send("tools/list"))[-1]["result"]["tools"]
    names = {tool["name"] for tool in listed}
    assert {"read_file", "wait"} <= names
    assert names.isdisjoint({"write_file", "delete_file"})
    assert "isError" not in await client.call("read_file", path="a")
    refused = await client.call("delete_file", path="a")
    assert "scope_not_granted" in json.dumps(refused)
    assert [one["params"]["name"] for one in mcp.received()] == ["read_file"]
    attempt = (await mcp.stand.bench.events("gateway.attempt"))[-1]
    assert attempt.agent_id == client.agent.id
    assert attempt.detail["facts"]["delegated"] is True


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("nothing", "no_route"),
        ("Read_file", "no_route"),
        ("READ_FILE", "no_route"),
        ("read_file\u200b", "no_route"),
        ("resources/read", "no_route"),
    ],
)
async def test_a_tool_that_nothing_maps_is_refused(
    mcp: McpStand, tool: str, reason: str
) -> None:
    """Also in a spelling a lenient server may take for another; nothing is sent."""
    client = await mcp.client("legacy")
    result = await client.call(tool, path="/a")
    assert refusal_of(result)["reason"] == reason
    assert "maps none. This agent may call" in text_of(result)
    assert "read_*" in text_of(result)
    assert mcp.received() == []
    assert await mcp.stand.records() == [("refused", reason)]


async def test_a_scope_that_was_not_granted_is_refused_in_the_result(
    mcp: McpStand,
) -> None:
    """No challenge for it: no token could ever carry it."""
    client = await mcp.client("modern", "read:files")
    result = await client.call("delete_file", path="/a")
    assert refusal_of(result)["reason"] == "scope_not_granted"
    assert "whether to grant it. This agent may call" in text_of(result)
    assert "agentvault agents" not in text_of(result)
    assert mcp.received() == []


async def test_a_token_without_the_scope_is_challenged_where_clients_know_how(
    mcp: McpStand,
) -> None:
    """403 from 2025-11-25 on, with scope and metadata; before, a result."""
    text = (
        '[tools."read_*"]\nscope = "read:files"\n[tools.mail]\nscope = "read:email"\n'
    )
    await mcp.write(text)
    for era in ("modern", "2025-11-25", "2025-06-18"):
        agent = await mcp.stand.agent("read:files", "read:email", name=era)
        token = await mcp.stand.token(agent, "read:email")
        client = Client(mcp.stand, agent, token, era == "modern", version=era)
        await client.begin()
        params = {"name": "read_file", "arguments": {}}
        answer = await client.send("tools/call", params)
        if era == "2025-06-18":
            assert refusal_of(answer.json()["result"])["error"] == "insufficient_scope"
            continue
        assert answer.status_code == 403
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="read:files"' in challenge
        metadata = f"{mcp.stand.url}/.well-known/oauth-protected-resource/mcp/files"
        assert f'resource_metadata="{metadata}"' in challenge


async def test_no_token_is_answered_with_where_to_get_one(mcp: McpStand) -> None:
    """A call names its scope; a list those that are issued at once to who has any."""
    client = await mcp.client("modern")
    client.token = "av_t_none"
    call = await client.send("tools/call", HELD)
    listing = await client.send("tools/list")
    body, headers = client.request("tools/list")
    del headers["authorization"]
    bare = await client.post(body, headers)
    assert [one.status_code for one in (call, listing, bare)] == [401, 401, 401]
    assert 'scope="delete:files"' in call.headers["www-authenticate"]
    assert 'scope="read:files"' in listing.headers["www-authenticate"]
    assert 'error="invalid_token"' in listing.headers["www-authenticate"]
    assert "error=" not in bare.headers["www-authenticate"]
    assert mcp.received("tools/list") == []


async def test_metadata_says_which_server_issues_tokens(mcp: McpStand) -> None:
    """RFC 9728, at the name that was asked; the authorization server names itself."""
    await mcp.client("modern")
    path = "/.well-known/oauth-protected-resource/mcp/files"
    answer = await mcp.stand.client.get(path)
    assert answer.json() == {
        "resource": f"{mcp.stand.url}/mcp/files",
        "authorization_servers": [mcp.stand.url],
        "scopes_supported": ["read:files"],
        "bearer_methods_supported": ["header"],
        "resource_name": "files, through AgentVault",
    }
    issuer = await mcp.stand.client.get("/.well-known/oauth-authorization-server")
    asked = await mcp.stand.client.get(
        issuer.json()["authorization_endpoint"], params={"response_type": "code"}
    )
    assert asked.json()["error"] == "unsupported_response_type"
    assert (await mcp.stand.client.get(path + "x")).status_code == 404


async def test_a_token_for_another_server_is_refused(mcp: McpStand) -> None:
    """One for this server's URL is taken; for another's, or of other resources, not."""
    agent = await mcp.stand.agent("read:files")
    for resource, status in (
        (f"{mcp.stand.url}/mcp/files", 200),
        (f"{mcp.stand.url}/mcp/other", 401),
        ("fs:/b", 401),
        ("fs:/a", 200),
    ):
        token = await mcp.stand.token(agent, "read:files", resource=resource)
        client = Client(mcp.stand, agent, token, modern=True)
        params = {"name": "read_file", "arguments": {"path": "/a"}}
        answer = await client.send("tools/call", params)
        assert answer.status_code == status, resource
    assert len(mcp.received()) == 2


# Held calls


async def test_parameters_are_read_from_the_arguments(mcp: McpStand) -> None:
    """A list counts its members: two files may be written without a person."""
    client = await mcp.client("legacy")
    client.extra = {"prefer": "wait=0"}
    await client.call("write_file", path="/a", files=["x", "y"])
    told = refusal_of(await client.call("write_file", path="/a", files="many"))
    assert "auth_req_id" in told
    events = await mcp.stand.settled()
    attempt = next(e for e in events if e.type == "gateway.attempt")
    assert attempt.detail["parameters"] == {"count": 2}


async def test_no_call_goes_on_as_a_task(mcp: McpStand, client: Client) -> None:
    """What a server would do after its answer, no revocation could cut."""
    params = {"name": "read_file", "arguments": {"path": "/a"}}
    answer = await client.send("tools/call", {**params, "task": {"ttl": 1000}})
    assert answer.json()["error"]["code"] == -32602
    assert mcp.received() == []
    name = "io.modelcontextprotocol/clientCapabilities"
    offered = {"extensions": {"io.modelcontextprotocol/tasks": {}, "x": {}}, "y": {}}
    await client.send("tools/call", params, **{name: offered})
    (sent,) = mcp.received()
    assert sent["params"]["_meta"][name] == {"extensions": {"x": {}}, "y": {}}


async def test_strangers_are_told_scopes_that_no_agent_is_refused_for(
    mcp: McpStand,
) -> None:
    """Of agents with different scopes those all have, else what most have."""
    await mcp.write(
        '[tools.a]\nscope = "read:files"\n[tools.b]\nscope = "read:email"\n'
        '[tools.c]\nscope = "send:payment"\n'
    )
    path = "/.well-known/oauth-protected-resource/mcp/files"

    async def told() -> list[str]:
        mcp.stand.bench.clock.advance(3)
        answer = await mcp.stand.client.get(path)
        return list(answer.json()["scopes_supported"])

    assert await told() == []
    await mcp.stand.agent("read:files", "read:email", "send:payment", name="a")
    assert await told() == ["read:files", "read:email"]
    await mcp.stand.agent("read:email", name="b")
    assert await told() == ["read:email"]
    await mcp.stand.agent("read:files", name="c")
    await mcp.stand.agent("read:files", name="d")
    assert await told() == ["read:files"]


async def test_the_names_of_a_large_call_are_compared_in_a_worker(
    mcp: McpStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To fold thousands of names takes a second, in which nothing else would be
    served; what is found is the same."""
    ran: list[str] = []

    async def noted(agent_id: str, size: int, function: Any, *args: Any) -> Any:
        if size > IN_LOOP:
            ran.append(function.__name__)
        return await read_apart(agent_id, size, function, *args)

    monkeypatch.setattr(toolcalls, "read_apart", noted)
    client = await mcp.client("modern")
    many = {f"é{number}": "x" * 10 for number in range(900)}
    assert "isError" not in await client.call("read_file", path="/a", **many)
    refused = await client.call("read_file", path="/a", pаth="/b", **many)
    assert "which is read as path" in refused["content"][0]["text"]
    assert ran.count("doubts") == 2


# Cut


@pytest.mark.parametrize("how", ["revoke", "panic", "scope", "leave"])
async def test_a_call_in_flight_is_cut(mcp: McpStand, client: Client, how: str) -> None:
    """Revoked, stopped, its scope taken or its client gone: the process is told."""
    never = str(mcp.log) + ".never"
    body, headers = client.request(
        "tools/call", {"name": "wait", "arguments": {"until": never}}
    )
    asked = asyncio.ensure_future(client.post(body, headers))
    await mcp.stand.bench.until(lambda: len(mcp.received()) == 1)
    broker, agent = mcp.stand.bench.broker, client.agent
    if how == "leave":
        asked.cancel()
    elif how == "revoke":
        cut = await revoke_agent(broker, agent.id, "stolen", OPERATOR)
        assert (cut.calls.cut, cut.calls.sent) == (1, 1)
    elif how == "panic":
        assert (await panic(broker, "all", OPERATOR)).calls.cut == 1
    else:
        taken = frozenset({"read:files"})
        await change_scopes(broker, agent.id, frozenset(), taken, OPERATOR)
    if how != "leave":
        try:
            answer = await asked
        except httpx.RemoteProtocolError:
            pass
        else:
            assert b"until" not in answer.content
    await mcp.stand.bench.until(
        lambda: len(mcp.received("notifications/cancelled")) == 1
    )
    ended = "unknown" if how == "leave" else "cut"
    assert (await mcp.stand.records())[-1] == ("result", ended)
    finish(never)


async def test_cancelling_stops_the_call_and_no_other(mcp: McpStand) -> None:
    """By its id, in its own session; another client's of the same id goes on."""
    until = str(mcp.log) + ".done"
    one, two = (
        await mcp.client("legacy", name="a"),
        await mcp.client("legacy", name="b"),
    )
    params = {"name": "wait", "arguments": {"until": until}}
    asked = []
    for client in (one, two):
        client.number = 40
        body, headers = client.request("tools/call", params)
        asked.append(asyncio.ensure_future(client.post(body, headers)))
    await mcp.stand.bench.until(lambda: len(mcp.received()) == 2)
    body, headers = one.request("notifications/cancelled", {"requestId": 41})
    del body["id"]
    assert (await one.post(body, headers)).status_code == 202
    assert (await asked[0]).json()["error"]["code"] == 4990
    finish(until)
    assert "result" in (await asked[1]).json()
    await mcp.stand.bench.until(lambda: mcp.received("notifications/cancelled"))
    assert len(mcp.received("notifications/cancelled")) == 1


async def test_an_attempt_that_a_crash_left_has_a_result_that_names_the_tool(
    mcp: McpStand,
) -> None:
    """At the next start: unknown, with server, tool and arguments; nothing is sent."""
    client = await mcp.client("modern")
    until = str(mcp.log) + ".crash"
    params = {"name": "wait", "arguments": {"until": until}}
    asked = asyncio.ensure_future(client.send("tools/call", params))
    await mcp.stand.bench.until(lambda: len(mcp.received()) == 1)
    await Calls(mcp.stand.bench.broker).recover()
    (attempt,) = await mcp.stand.bench.events("gateway.attempt")
    (result,) = await mcp.stand.bench.events("gateway.result")
    assert result.detail["ended"] == "unknown"
    for name in ("server", "tool", "arguments_sha256", "call_id"):
        assert result.detail[name] == attempt.detail[name]
    assert len(mcp.received()) == 1
    finish(until)
    await asked


# Eras


@pytest.mark.slow
async def test_one_process_an_era_serves_all_agents(mcp: McpStand) -> None:
    """Four clients of two eras: two processes; each agent its own with per_agent."""
    for era in ("modern", "legacy"):
        for name in ("a", "b"):
            client = await mcp.client(era, name=f"{era}-{name}")
            await client.call("read_file", path="/a")
    assert len(mcp.processes()) == 2
    mcp.log.unlink()
    await mcp.write("per_agent = true\n" + TOOLS)
    for name in ("c", "d"):
        client = await mcp.client("modern", name=name)
        await client.call("read_file", path="/a")
    assert len(mcp.processes()) == 2


async def test_a_server_of_the_handshake_alone_sends_clients_there(
    mcp: McpStand,
) -> None:
    """The error names the versions by which official clients fall back."""
    await mcp.write(eras="legacy")
    client = await mcp.client("modern")
    for method in ("server/discover", "tools/list"):
        answer = await client.send(method)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == -32022
        assert error["data"]["supported"] == ["2025-11-25", "2025-06-18"]
    legacy = await mcp.client("legacy")
    assert "isError" not in await legacy.call("read_file", path="/a")


async def test_a_session_is_its_agents_alone(mcp: McpStand) -> None:
    """404 for another agent's, for one that ended, and at another server."""
    one, two = (
        await mcp.client("legacy", name="a"),
        await mcp.client("legacy", name="b"),
    )
    await mcp.write(name="other")
    stolen = one.session
    two.session, mine = stolen, two.session
    assert (await two.send("tools/list")).status_code == 404
    two.session = mine
    two.name = "other"
    assert (await two.send("tools/list")).status_code == 404
    _, headers = one.request("ping")
    ended = await mcp.stand.client.delete("/mcp/files", headers=headers)
    assert ended.status_code == 200
    assert (await one.send("tools/list")).status_code == 404


async def test_an_agents_messages_in_memory_are_bounded(mcp: McpStand) -> None:
    """Past its share a message is 503, and what was read of it is let go of."""
    client = await mcp.client("modern")
    mcp.stand.gateway._mcp._room = BodyRoom(4_000, 0)
    body, headers = client.request("tools/list", None)
    large = await client.post({**body, "padding": "x" * 4_000}, headers)
    assert large.status_code == 503
    for _ in range(30):
        assert (await client.post(body, headers)).status_code == 200


async def test_other_methods_are_decided_or_not_served(mcp: McpStand) -> None:
    """resources/read needs a rule of its own name; logging is not passed on."""
    client = await mcp.client("modern")
    params = {"uri": "file:///a"}
    for method in ("resources/read", "logging/setLevel", "subscriptions/listen"):
        body, headers = client.request(method, params if method[0] == "r" else None)
        if method == "resources/read":
            headers["mcp-name"] = "file:///a"
        answer = await client.post(body, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    rule = '[tools."resources/read"]\nscope = "delete:files"\nresource = "{uri}"\n'
    await mcp.write(rule)
    client.extra = {"mcp-name": "file:///a", "prefer": "wait=0"}
    error = (await client.send("resources/read", params)).json()["error"]
    assert error["code"] == 4030
    await mcp.stand.approve(error["data"]["auth_req_id"])
    assert "result" in (await client.send("resources/read", params)).json()
    assert len(mcp.received("resources/read")) == 1
