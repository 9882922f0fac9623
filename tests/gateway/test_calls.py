"""Calls through ``/gw/``: who may, what is decided, what is sent and recorded."""

from __future__ import annotations

import pytest
from support.gateway_stand import SECRET, Stand

from agentvault_tui.model import Agent

BEARER = '[credential]\nkind = "bearer"\nsecret = "key"\n'
ROUTES = """
[[routes]]
method = "GET"
path = "/events/{id}"
scope = "read:calendar"
resource = "calendar:{id}"
[[routes]]
method = "PUT"
path = "/upload/{id}"
scope = "write:calendar"
[[routes]]
method = "POST"
path = "/transfers/{to}"
scope = "send:payment"
resource = "stripe:{to}"
[routes.parameters]
amount = "body:/amount"
currency = "body:/currency"
"""
PAY = {"amount": 4200, "currency": "USD"}


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    return await stand.agent("read:calendar", "write:calendar", "send:payment")


@pytest.fixture
async def token(stand: Stand, agent: Agent) -> str:
    return await stand.token(agent, "read:calendar write:calendar")


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


async def test_an_allowed_call_goes_out_with_the_credential(
    stand: Stand, token: str
) -> None:
    """What is allowed leaves as it came, but for the credential; two events tell it."""
    reply = await stand.client.get(
        "/gw/api/events/e1%2C2?x=1&y=%20z", headers=bearer(token, **{"X-Mine": "a"})
    )
    assert (reply.status_code, reply.text) == (200, "ok")
    assert reply.headers["x-kept"] == "yes"
    (sent,) = stand.upstream.received
    assert (sent.method, sent.target) == ("GET", "/events/e1%2C2?x=1&y=%20z")
    assert sent.header("authorization") == f"Bearer {SECRET}"
    assert sent.header("x-mine") == "a"
    assert sent.header("accept-encoding") == "identity"
    assert token not in str(sent.headers)
    events = [e for e in await stand.settled() if e.type.startswith("gateway.")]
    attempt, result = events
    assert (attempt.type, attempt.outcome) == ("gateway.attempt", "allowed")
    assert attempt.decision_id == reply.headers["agentvault-decision"]
    assert attempt.detail["path"] == "/events/e1%2C2"
    assert attempt.detail["query"] == "x=1&y=%20z"
    assert attempt.detail["body_bytes"] == 0
    assert (result.type, result.detail["ended"]) == ("gateway.result", "done")
    assert (result.detail["status"], result.detail["bytes_in"]) == (200, 2)
    assert result.detail["call_id"] == attempt.detail["call_id"]
