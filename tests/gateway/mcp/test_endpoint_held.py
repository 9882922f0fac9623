"""Calls of tools that a person decides, and tokens for one of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.bench import OPERATOR
from support.mcp_stand import (
    HELD,
    TOOLS,
    Client,
    McpStand,
    messages,
    refusal_of,
    text_of,
)

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import deny


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


async def test_an_answer_to_a_server_names_no_other_resource(mcp: McpStand) -> None:
    """The agent writes it after the call was decided, and its tool acts on it."""
    client = await mcp.client("modern")
    params: dict[str, Any] = {
        "name": "read_file",
        "arguments": {"path": "/a"},
        "requestState": "theirs",
        "inputResponses": {"q": {"action": "accept", "content": {"PATH": "/etc"}}},
    }
    told = messages(await client.send("tools/call", params))[-1]["result"]
    assert refusal_of(told)["reason"] == "unclear_call"
    assert mcp.received() == []
    params["inputResponses"]["q"]["content"] = {"encoding": "utf-8"}
    await client.send("tools/call", params)
    (sent,) = mcp.received()
    assert sent["params"]["arguments"] == {"path": "/a"}


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
    [("read_*", ""), ("read_file", 'delete_file = "stripe:{path}"')],
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


async def test_a_revoked_agents_client_is_told_by_401(
    mcp: McpStand, client: Client
) -> None:
    """With the reason; its sessions are gone, also once it is restored."""
    await revoke_agent(mcp.stand.bench.broker, client.agent.id, "stolen", OPERATOR)
    answer = await client.send("tools/call", HELD)
    assert (answer.status_code, answer.json()["reason"]) == (401, "agent_revoked")
    assert "resource_metadata=" in answer.headers["www-authenticate"]


async def test_a_flooding_agent_is_told_to_keep_still(mcp: McpStand) -> None:
    """429 as at the token endpoint; nothing is decided."""
    client = await mcp.client("modern")
    mcp.stand.bench.broker.admitting.floods.limited = lambda _: True  # type: ignore[method-assign]
    answer = await client.send("tools/call", HELD)
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")
