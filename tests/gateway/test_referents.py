"""Approvals by reference: the document that a call names is approved with it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from support.bench import OPERATOR
from support.gateway_stand import SECRET, Received, Stand
from support.patience import PATIENT

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.gateway.body import referent_key
from agentvault_tui.gateway.referents import LARGEST
from agentvault_tui.model import Agent

SERVICE = """
headers = ["Api-Version"]
[credential]
kind = "bearer"
secret = "key"
[[routes]]
method = "POST"
path = "/users/{user}/drafts/send"
scope = "send:email"
resource = "mail:{user}"
[[routes.binds]]
get = "/users/{user}/drafts/{id}?format=raw"
id = "body:/id"
members = ["/message/raw"]
[[routes]]
method = "PUT"
path = "/users/{user}/drafts/{draft}"
scope = "write:email"
resource = "mail:{user}"
[[routes]]
method = "POST"
path = "/intents/{id}/confirm"
scope = "send:payment"
resource = "stripe:{id}"
binds = [{ get = "/intents/{id}" }]
"""
SEND = "/gw/api/users/me/drafts/send"


class Drafts:
    """A mail service: drafts by id, which may be changed between two requests."""

    def __init__(self) -> None:
        self.status = 200
        self.drafts: dict[str, Any] = {"d1": {"message": {"raw": "aGk="}, "seen": 1}}
        self.headers = b"Content-Type: application/json\r\n"
        self.waits: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.slow = "POST"

    async def answer(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if self.waits is not None and request.method == self.slow:
            self.reached.set()
            await self.waits.wait()
        path = request.target.partition("?")[0]
        found = self.drafts.get(path.rpartition("/")[2])
        body, status = b"{}", self.status
        if request.method == "GET":
            text = found if isinstance(found, bytes) else json.dumps(found).encode()
            body = text
            status = 404 if found is None else status
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (status, len(body))
        writer.write(head + self.headers + b"\r\n" + body)


@pytest.fixture
async def drafts(stand: Stand) -> Drafts:
    await stand.secret()
    await stand.service(SERVICE)
    found = Drafts()
    stand.upstream.answer = found.answer
    return found


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    found: Agent = await stand.agent("send:email", "write:email", "send:payment")
    return found


@pytest.fixture
async def auth(stand: Stand, agent: Agent) -> dict[str, str]:
    return {"Authorization": f"Bearer {await stand.token(agent, 'write:email')}"}


def asked(stand: Stand, auth: dict[str, str], body: Any = None, **more: str) -> Any:
    """Send the draft; the call is held."""
    content = {"id": "d1"} if body is None else body
    headers = {**auth, **more}
    return asyncio.ensure_future(stand.client.post(SEND, json=content, headers=headers))


def sent(stand: Stand) -> list[str]:
    return [f"{one.method} {one.target}" for one in stand.upstream.received]


GET = "GET /users/me/drafts/d1?format=raw"
POST = "POST /users/me/drafts/send"


async def test_the_document_is_shown_and_under_the_digest(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """Its members that count are fetched, held for a person, and looked at again."""
    call = asked(stand, auth, **{"Api-Version": "7", "If-None-Match": '"x"'})
    stepup = await stand.pending()
    request = stepup.request or {}
    content = await stand.gateway.held_body(referent_key(stepup.id, 0))
    assert content == b'{"message":{"raw":"aGk="}}'
    assert request["references"] == [
        {
            "url": f"http://127.0.0.1:{stand.upstream.port}"
            "/users/me/drafts/d1?format=raw",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "kind": "json",
            "type": None,
        }
    ]
    drafts.drafts["d1"]["seen"] = 2  # a member that does not count
    await stand.approve(stepup.id)
    reply = await call
    assert (reply.status_code, reply.text) == (200, "{}")
    assert sent(stand) == [GET, GET, POST]
    fetch = stand.upstream.received[0]
    assert fetch.header("authorization") == f"Bearer {SECRET}"
    assert fetch.header("api-version") == "7"
    assert fetch.header("if-none-match") is None
    events = [
        e
        for e in await stand.settled()
        if e.type.startswith("gateway.") and e.detail.get("for")
    ]
    assert [e.type for e in events] == ["gateway.attempt", "gateway.result"] * 2
    assert {e.detail["for"] for e in events} == {stepup.id}
    assert {e.detail["method"] for e in events} == {"GET"}
    assert events[1].detail["ended"] == "done"


async def test_a_changed_document_spends_the_approval(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """What was approved is that draft; an edit after it sends nothing, for good."""
    call = asked(stand, auth)
    stepup = await stand.pending()
    drafts.drafts["d1"] = {"message": {"raw": "ZXZpbA=="}}
    await stand.approve(stepup.id)
    reply = await call
    assert (reply.status_code, reply.json()["reason"]) == (403, "referent_changed")
    drafts.drafts["d1"] = {"message": {"raw": "aGk="}}
    retry = await asked(stand, auth, **{"AgentVault-Request": stepup.id})
    assert (retry.status_code, retry.json()["reason"]) == (403, "already_used")
    assert POST not in sent(stand)


async def test_a_retry_is_for_the_documents_of_its_step_up(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """A held call that is sent later is looked at again, and needs the same draft."""
    drafts.drafts["d2"] = {"message": {"raw": "Mg=="}}
    reply = await asked(stand, auth, Prefer="respond-async")
    stepup_id = reply.json()["auth_req_id"]
    waits = {"AgentVault-Request": stepup_id}
    assert (await asked(stand, auth, **waits)).status_code == 403
    assert sent(stand) == [GET]
    await stand.approve(stepup_id)
    assert (await asked(stand, auth, **waits)).status_code == 200
    assert sent(stand) == [GET, GET, POST]
    drafts.drafts["d1"] = {"message": {"raw": "bmV3"}}
    again = await asked(stand, auth, Prefer="respond-async")
    await stand.approve(again.json()["auth_req_id"])
    waits = {"AgentVault-Request": again.json()["auth_req_id"]}
    other = await asked(stand, auth, {"id": "d2"}, **waits)
    assert (other.status_code, other.json()["reason"]) == (403, "digest_mismatch")


async def test_an_equal_request_is_one_step_up_until_its_document_changes(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """The rows of each fetch name the step-up that it was for."""
    first = (await asked(stand, auth, Prefer="respond-async")).json()["auth_req_id"]
    same = (await asked(stand, auth, Prefer="respond-async")).json()["auth_req_id"]
    drafts.drafts["d1"] = {"message": {"raw": "bmV3"}}
    other = (await asked(stand, auth, Prefer="respond-async")).json()["auth_req_id"]
    assert first == same != other
    events = await stand.settled()
    fetched = [e.detail["for"] for e in events if e.type == "gateway.result"]
    assert fetched == [first, first, first, other]


def test_a_document_that_is_bound_has_256_kib_at_most() -> None:
    """The bound is the documented one; below is what happens above it."""
    assert LARGEST == 262_144


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"message": {"raw": "x"}}, b""),
        (302, {"message": {"raw": "x"}}, b"Location: /users/me/drafts/d2\r\n"),
        (206, {"message": {"raw": "x"}}, b""),
        (200, None, b""),
        (200, {"message": {}}, b""),
        (200, b"no JSON", b""),
        (200, b'{"message":{"raw":1},"message":{"raw":2}}', b""),
        (200, {"message": {"raw": SECRET}}, b""),
        (200, {"message": {"raw": "x" * LARGEST}}, b""),
        (200, {"message": {"raw": "x"}}, b"Content-Encoding: gzip\r\n"),
    ],
)
async def test_a_document_that_cannot_be_shown_asks_nobody(
    stand: Stand, drafts: Drafts, auth: dict[str, str], answer: tuple[int, Any, bytes]
) -> None:
    """Too large, not there, moved, compressed or no JSON: 403, and no step-up."""
    drafts.status, drafts.drafts["d1"], drafts.headers = answer
    reply = await asked(stand, auth)
    body = reply.json()
    assert (reply.status_code, body["reason"]) == (403, "referent_unreadable")
    assert SECRET not in reply.text
    assert stand.bench.broker.stepups.open() == []
    assert sent(stand) == [GET]
    refused = (await stand.bench.events("gateway.refused"))[-1]
    assert refused.decision_id == body["decision_id"]
    assert (await stand.bench.events("gateway.result"))[-1].detail["ended"] == "failed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"id": ".."}, "bad_path"),
        ({"id": "a/b"}, "bad_path"),
        ({"id": "a%2Fb"}, "bad_path"),
        ({"id": "d1?x=1"}, "bad_path"),
        ({"id": "a\nb"}, "bad_path"),
        ({"id": ""}, "bad_path"),
        ({}, "parameter_required"),
        ({"id": ["d1"]}, "parameter_required"),
        ({"id": True}, "parameter_required"),
        ({"id": 9007199254740993}, "ambiguous_body"),
        ({"id": 17.0}, "parameter_required"),
        ({"id": "d1", "ID": "d2"}, "ambiguous_body"),
    ],
)
async def test_an_id_is_one_segment_of_a_path(
    stand: Stand, drafts: Drafts, auth: dict[str, str], body: Any, reason: str
) -> None:
    """No id of an agent reaches another document, host or query."""
    reply = await asked(stand, auth, body)
    assert (reply.status_code, reply.json()["reason"]) == (400, reason)
    assert sent(stand) == []


async def test_an_id_is_encoded_like_any_segment(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """A blank or another script is one segment; a number is its digits."""
    for given, path in (("ä b", "%C3%A4%20b"), (17, "17")):
        await asked(stand, auth, {"id": given})
        assert sent(stand)[-1] == f"GET /users/me/drafts/{path}?format=raw"


async def test_a_revocation_cuts_the_fetch(
    stand: Stand, drafts: Drafts, auth: dict[str, str], agent: Agent
) -> None:
    """A document that is being fetched for a revoked agent is read no further."""
    drafts.waits, drafts.slow = asyncio.Event(), "GET"
    call = asked(stand, auth)
    await asyncio.wait_for(drafts.reached.wait(), PATIENT)
    await revoke_agent(stand.bench.broker, agent.id, "test", OPERATOR)
    reply = await call
    assert (reply.status_code, reply.json()["reason"]) == (401, "agent_revoked")
    assert stand.bench.broker.stepups.open() == []
    assert (await stand.bench.events("gateway.result"))[-1].detail["ended"] == "cut"


async def test_no_other_write_leaves_until_the_result(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """From the second look until the result, a write below the draft waits."""
    call = asked(stand, auth)
    stepup = await stand.pending()
    drafts.waits = asyncio.Event()
    await stand.approve(stepup.id)
    await asyncio.wait_for(drafts.reached.wait(), PATIENT)
    put = "/gw/api/users/me/drafts/"
    edits = [
        asyncio.ensure_future(stand.client.put(put + one, json={}, headers=auth))
        for one in ("d1", "D1", "d2")
    ]
    assert (await edits[2]).status_code == 200
    await stand.bench.until(lambda: sum(1 for _ in stand.gateway.calls) == 3)
    assert sent(stand)[-2:] == [POST, "PUT /users/me/drafts/d2"]
    drafts.waits.set()
    assert (await call).status_code == 200
    assert [(await one).status_code for one in edits] == [200, 200, 200]
    assert len(sent(stand)) == 6


async def test_a_write_under_way_ends_before_the_second_look(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """A slow edit that left before the approval is seen by the second look."""
    call = asked(stand, auth)
    stepup = await stand.pending()
    drafts.waits, drafts.slow = asyncio.Event(), "PUT"
    put = "/gw/api/users/me/drafts/d1"
    edit = asyncio.ensure_future(stand.client.put(put, json={}, headers=auth))
    await asyncio.wait_for(drafts.reached.wait(), PATIENT)
    await stand.approve(stepup.id)
    drafts.drafts["d1"] = {"message": {"raw": "ZXZpbA=="}}
    drafts.waits.set()
    assert (await edit).status_code == 200
    reply = await call
    assert (reply.status_code, reply.json()["reason"]) == (403, "referent_changed")


async def test_a_document_without_members_counts_whole(
    stand: Stand, drafts: Drafts, auth: dict[str, str]
) -> None:
    """Each byte of it is under the digest; what is no JSON is opaque."""
    path = "/gw/api/intents/pi_1/confirm"
    for document, kind in ((b'{"amount": 1.50}', "json"), (b"\xff", "opaque")):
        drafts.drafts["pi_1"] = document
        headers = {**auth, "Prefer": "respond-async"}
        reply = await stand.client.post(path, headers=headers)
        stepup_id = reply.json()["auth_req_id"]
        assert await stand.gateway.held_body(f"{stepup_id}/0") == document
        request = stand.bench.broker.stepups.get(stepup_id).request or {}
        assert request["references"][0]["kind"] == kind
        await stand.approve(stepup_id)
        drafts.drafts["pi_1"] = document + b" "
        headers = {**auth, "AgentVault-Request": stepup_id}
        reply = await stand.client.post(path, headers=headers)
        assert reply.json()["reason"] == "referent_changed"


async def test_an_elevated_token_opens_no_route_that_binds(
    stand: Stand, drafts: Drafts, agent: Agent
) -> None:
    """Its approver saw the name of a document, and not the document."""
    drafts.drafts["pi_1"] = {"amount": 1}
    token = await stand.elevated(agent, "stripe:pi_1", {})
    reply = await stand.client.post(
        "/gw/api/intents/pi_1/confirm", headers={"Authorization": f"Bearer {token}"}
    )
    assert (reply.status_code, reply.json()["reason"]) == (403, "ask_at_the_gateway")
    assert sent(stand) == []
