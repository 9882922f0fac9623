"""MCP on the agents' listener: decided, relayed as written, held, recorded, cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.mcp_stand import MODERN, TOOLS, Client, McpStand, messages

from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.gateway.body import IN_LOOP, BodyRoom, read_apart
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.mcp import toolcalls

HELD = {"name": "delete_file", "arguments": {"path": "/a"}}


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def finish(until: str) -> None:
    """Let a call of the tool ``wait`` have its answer."""
    Path(until).touch()


def refusal_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True
    said = dict(json.loads(result["content"][1]["text"]))
    assert said == result["_meta"]["agentvault.dev/refusal"]
    return said


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


async def test_arguments_that_say_two_things_are_refused(mcp: McpStand) -> None:
    """One that is read and missing, or there in another spelling, is no clear call."""
    client = await mcp.client("modern")
    for arguments in ({"Path": "/b"}, {}, {"path": ["/a"]}):
        result = await client.call("read_file", **arguments)
        assert refusal_of(result)["reason"] == "unclear_call"
    assert mcp.received() == []


@pytest.mark.parametrize("number", ["420e-1", "42.0", "-0", "9007199254740993"])
async def test_a_resource_is_no_number_that_programs_read_apart(
    mcp: McpStand, number: str
) -> None:
    """JavaScript reads ``420e-1`` as 42, and 2^53 + 1 as 2^53."""
    client = await mcp.client("modern")
    body, headers = client.request("tools/call", {"name": "read_file"})
    body["params"]["arguments"] = {"path": 0}
    raw = json.dumps(body).replace('{"path": 0}', f'{{"path": {number}}}').encode()
    result = messages(await client.post(raw, headers))[-1]["result"]
    assert refusal_of(result)["reason"] == "unclear_call"
    assert mcp.received() == []


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


async def test_a_held_call_reports_progress_and_goes_out_when_approved(
    mcp: McpStand, client: Client
) -> None:
    """The client hears that a person is waited for, then has the server's result."""
    body, headers = client.request("tools/call", HELD, progressToken="t")
    meta = dict(body["params"]["_meta"])
    del meta["progressToken"]
    told: list[dict[str, Any]] = []
    http = mcp.stand.client
    async with http.stream("POST", "/mcp/files", json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            told.append(json.loads(line.removeprefix("data: ")))
            if len(told) == 1:
                (call,) = mcp.stand.gateway.calls
                assert (call.service, call.path) == ("mcp/files", "delete_file")
                assert (call.state, mcp.received()) == ("held", [])
                stepup = await mcp.stand.pending()
                assert stepup.request is not None
                assert stepup.request["url"] == "mcp://files/delete_file"
                held = mcp.stand.gateway.calls.bodies.of(stepup.id)
                assert json.loads(held or b"") == {
                    name: one for name, one in body["params"].items() if name != "_meta"
                } | ({"_meta": meta} if meta else {})
                await mcp.stand.approve(stepup.id)
    progress = [one["params"] for one in told if "params" in one]
    assert progress[0]["progressToken"] == "t"
    assert stepup.id in progress[0]["message"]
    assert progress[-1]["unknown"] is True
    assert json.loads(text_of(told[-1]["result"])) == {"path": "/a"}
    assert [kind for kind, _ in await mcp.stand.records()] == [
        "held",
        "attempt",
        "result",
    ]


async def test_the_same_call_passes_once_after_the_wait(
    mcp: McpStand, client: Client
) -> None:
    """The result names auth_req_id, the tool tells, and only these arguments pass."""
    client.extra = {"prefer": "wait=0"}
    told = refusal_of(await client.call("delete_file", path="/a"))
    id_ = told["auth_req_id"]
    assert told["error"] == "insufficient_user_authentication"
    again = refusal_of(await client.call("delete_file", path="/a"))
    assert again["auth_req_id"] == id_
    waits = await client.call("agentvault_check", auth_req_id=id_)
    assert json.loads(waits["content"][1]["text"])["status"] == "pending"
    await mcp.stand.approve(id_)
    told = await client.call("agentvault_check", auth_req_id=id_)
    assert json.loads(told["content"][1]["text"])["status"] == "approved"
    other = refusal_of(await client.call("delete_file", path="/b"))
    assert other["auth_req_id"] != id_
    assert mcp.received() == []
    body, headers = client.request("tools/call", HELD, progressToken="new")
    sent = messages(await client.post(body, headers))[-1]
    assert "isError" not in sent["result"]
    told = await client.call("agentvault_check", auth_req_id=id_)
    assert json.loads(told["content"][1]["text"])["status"] == "redeemed"
    third = refusal_of(await client.call("delete_file", path="/a"))
    assert third["auth_req_id"] not in {id_, other["auth_req_id"]}
    assert len(mcp.received()) == 1


CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@pytest.mark.parametrize("offered", [{}, {"form": {}}])
async def test_a_client_that_shows_forms_is_asked_to_wait(
    mcp: McpStand, offered: dict[str, Any]
) -> None:
    """A held call is input_required; made again with its state it waits on, and goes
    out as it was asked, once: the state and the answer are no part of it."""
    client = await mcp.client("modern")
    client.extra = {"prefer": "wait=0"}
    can = {CAPABILITIES: {"elicitation": offered}}
    told = messages(await client.send("tools/call", HELD, **can))[-1]["result"]
    assert told["resultType"] == "input_required"
    (name,) = told["inputRequests"]
    asked = told["inputRequests"][name]
    assert (asked["method"], asked["params"]["mode"]) == ("elicitation/create", "form")
    (stepup,) = mcp.stand.bench.broker.stepups.open()
    assert stepup.id in asked["params"]["message"]
    state = {"requestState": told["requestState"]}
    accepted = {"inputResponses": {name: {"action": "accept", "content": {}}}, **state}
    again = await client.send("tools/call", HELD | accepted, **can)
    assert messages(again)[-1]["result"]["requestState"] == told["requestState"]
    client.extra = {}
    waiting = asyncio.create_task(client.send("tools/call", HELD | accepted, **can))
    await mcp.stand.pending()
    await mcp.stand.approve(stepup.id)
    result = messages(await waiting)[-1]["result"]
    assert json.loads(text_of(result)) == {"path": "/a"}
    (sent,) = mcp.received()
    assert not sent["params"].keys() & {"requestState", "inputResponses"}
    used = messages(await client.send("tools/call", HELD | accepted, **can))
    assert refusal_of(used[-1]["result"])["error"] == "already_used"


async def test_who_does_not_wait_or_shows_no_forms_is_told_the_id(
    mcp: McpStand,
) -> None:
    """A declined form, a client of URLs alone, and a forged state pass nothing."""
    client = await mcp.client("modern")
    client.extra = {"prefer": "wait=0"}
    only = {CAPABILITIES: {"elicitation": {"url": {}}}}
    told = messages(await client.send("tools/call", HELD, **only))[-1]["result"]
    id_ = refusal_of(told)["auth_req_id"]
    forms: dict[str, Any] = {CAPABILITIES: {"elicitation": {}}}
    declined = {
        "requestState": f"agentvault:{id_}",
        "inputResponses": {"agentvault:": {"action": "decline"}},
    }
    told = messages(await client.send("tools/call", HELD | declined, **only))[-1]
    assert refusal_of(told["result"])["auth_req_id"] == id_
    told = messages(await client.send("tools/call", HELD | declined, **forms))[-1]
    assert refusal_of(told["result"])["error"] == "digest_mismatch"
    forged = {"requestState": "agentvault:sup_other"}
    told = messages(await client.send("tools/call", HELD | forged, **forms))[-1]
    assert refusal_of(told["result"])["reason"] == "unknown_request"
    other = await mcp.client("modern", name="other")
    await mcp.stand.approve(id_)
    told = messages(await other.send("tools/call", HELD | declined, **forms))[-1]
    assert refusal_of(told["result"])["reason"] == "unknown_request"
    assert mcp.received() == []


async def test_what_a_server_asks_of_a_client_passes_where_each_try_is_a_call(
    mcp: McpStand,
) -> None:
    """In the modern era a server's input_required, and the answer to it, are relayed,
    and decided and recorded as two calls."""
    client = await mcp.client("modern")
    params: dict[str, Any] = {"name": "ask", "arguments": {"form": True}}
    told = messages(await client.send("tools/call", params))[-1]["result"]
    assert told["resultType"] == "input_required"
    said = {"inputResponses": {"q": {"action": "accept", "content": {"x": 1}}}}
    again = params | said | {"requestState": told["requestState"]}
    told = messages(await client.send("tools/call", again))[-1]["result"]
    answered = json.loads(text_of(told))
    assert answered == said["inputResponses"] | {"state": "theirs"}
    attempts = await mcp.stand.bench.events("gateway.attempt")
    assert len({one.detail["body_sha256"] for one in attempts}) == 2


@pytest.mark.parametrize(
    ("other", "pattern"), [("[tools.drop]\n", "read_file"), ("", '"read_*"')]
)
async def test_a_token_for_one_action_opens_no_tool_that_it_does_not_name(
    mcp: McpStand, other: str, pattern: str
) -> None:
    """Two tools on one resource are one action: its approver saw no tool."""
    rule = 'scope = "send:payment"\nresource = "stripe:{to}"\n'
    rule += 'parameters = { amount = "/amount", currency = "/currency" }\n'
    await mcp.write(f"[tools.{pattern}]\n{rule}" + (other and other + rule))
    agent = await mcp.stand.agent("send:payment")
    pay = {"amount": 1900, "currency": "USD"}
    token = await mcp.stand.elevated(agent, "stripe:acct_1", pay)
    client = Client(mcp.stand, agent, token, modern=True)
    told = await client.call("read_file", to="acct_1", **pay)
    assert refusal_of(told)["reason"] == "ask_at_the_gateway"
    assert mcp.received() == []


async def test_a_token_for_one_action_opens_a_call_that_it_states_whole(
    mcp: McpStand,
) -> None:
    """Its approver saw the action alone: a call with more is refused, unspent."""
    text = (
        '[tools.read_file]\nscope = "send:payment"\nresource = "stripe:{to}"\n'
        'parameters = { amount = "/amount", currency = "/currency" }\n'
    )
    await mcp.write(text)
    agent = await mcp.stand.agent("send:payment")
    pay = {"amount": 1900, "currency": "USD"}
    token = await mcp.stand.elevated(agent, "stripe:acct_1", pay)
    client = Client(mcp.stand, agent, token, modern=True)
    more = await client.call("read_file", to="acct_1", **pay, memo="x")
    assert refusal_of(more)["reason"] == "ask_at_the_gateway"
    assert "arguments/memo" in text_of(more)
    assert "isError" not in await client.call("read_file", to="acct_1", **pay)
    assert [one["params"]["arguments"] for one in mcp.received()] == [
        {"to": "acct_1", **pay}
    ]


@pytest.mark.parametrize(
    ("pattern", "more"),
    [
        ("read_*", ""),
        ("read_file", 'delete_file = "stripe:{path}"'),
    ],
)
async def test_a_token_for_one_action_opens_no_call_that_may_be_of_another_tool(
    mcp: McpStand, pattern: str, more: str
) -> None:
    """Scope and resource do not say which of two tools their approver meant."""
    text = f'[tools."{pattern}"]\nscope = "send:payment"\nresource = "stripe:{{to}}"\n'
    for line in filter(None, [more]):
        tool, _, resource = line.partition(" = ")
        text += f'[tools.{tool}]\nscope = "send:payment"\nresource = {resource}\n'
    await mcp.write(text)
    agent = await mcp.stand.agent("send:payment")
    token = await mcp.stand.elevated(agent, "stripe:acct_1", {})
    client = Client(mcp.stand, agent, token, modern=True)
    refused = await client.call("read_file", to="acct_1")
    assert refusal_of(refused)["reason"] == "ask_at_the_gateway"
    assert mcp.received() == []


async def test_a_denied_call_says_so_and_why(mcp: McpStand, client: Client) -> None:
    """The person's reason reaches the model; nothing was sent."""
    asked = asyncio.ensure_future(client.call("delete_file", path="/a"))
    stepup = await mcp.stand.pending()
    await deny(mcp.stand.bench.broker, stepup.id, "not today", OPERATOR)
    result = await asked
    assert refusal_of(result)["reason"] == "stepup_denied"
    assert "not today" in text_of(result)
    told = await client.call("agentvault_check", auth_req_id=stepup.id)
    assert "not today" in text_of(told)
    assert mcp.received() == []


async def test_a_changed_file_of_a_server_voids_an_approval(
    mcp: McpStand, client: Client
) -> None:
    """An approved call reaches no other program: neither made again nor waiting."""
    client.extra = {"prefer": "respond-async"}
    result = await client.call("delete_file", path="/a")
    one = json.loads(result["content"][1]["text"])["auth_req_id"]
    client.extra = {}
    waiting = asyncio.create_task(client.call("delete_file", path="/b"))
    await mcp.stand.pending()
    (two,) = (s.id for s in mcp.stand.bench.broker.stepups.open() if s.id != one)
    await mcp.stand.approve(one)
    await mcp.write(TOOLS + "# another command\n")
    await mcp.stand.approve(two)
    assert "service_changed" in (await waiting)["content"][1]["text"]
    client.extra = {"prefer": "respond-async"}
    if not client.modern:
        await client.begin()
    again = await client.call("delete_file", path="/a")
    assert json.loads(again["content"][1]["text"])["auth_req_id"] != one
    assert mcp.received() == []


async def test_nobody_learns_of_another_agents_held_call(mcp: McpStand) -> None:
    """To another agent, a call that is held is one that is not there."""
    one, two = await mcp.client("modern"), await mcp.client("legacy")
    one.extra = {"prefer": "respond-async"}
    id_ = refusal_of(await one.call("delete_file", path="/a"))["auth_req_id"]
    for wrong in (id_, "sup_0000", 7):
        told = await two.call("agentvault_check", auth_req_id=wrong)
        assert refusal_of(told)["reason"] == "unknown_request"


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


async def test_a_revoked_agents_client_is_told_by_401(
    mcp: McpStand, client: Client
) -> None:
    """With the reason; its sessions are gone, also once it is restored."""
    await revoke_agent(mcp.stand.bench.broker, client.agent.id, "stolen", OPERATOR)
    answer = await client.send("tools/call", HELD)
    assert (answer.status_code, answer.json()["reason"]) == (401, "agent_revoked")
    assert "resource_metadata=" in answer.headers["www-authenticate"]


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


async def test_an_agents_messages_in_memory_are_bounded(
    mcp: McpStand,
) -> None:
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


async def test_a_flooding_agent_is_told_to_keep_still(mcp: McpStand) -> None:
    """429 as at the token endpoint; nothing is decided."""
    client = await mcp.client("modern")
    mcp.stand.bench.broker.floods.limited = lambda _: True  # type: ignore[method-assign]
    answer = await client.send("tools/call", HELD)
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")


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
