"""Agents share a credential, and no idempotency key where the file says so."""

from __future__ import annotations

from uuid import UUID

import pytest
from support.call_kit import bearer
from support.gateway_stand import Stand

from agentvault_tui.model import Agent

HEADER = "idempotency-key"
SERVICE = """
idempotency_keys = "per_agent"
headers = ["X-Idempotency-Key"]
[[routes]]
method = "POST"
path = "/notes/{note}"
scope = "write:calendar"
"""


@pytest.fixture
async def agents(stand: Stand) -> list[str]:
    """Tokens of two agents that reach one service."""
    await stand.service(SERVICE)
    tokens = []
    for name in ("first", "second"):
        agent: Agent = await stand.agent("write:calendar", name=name)
        tokens.append(await stand.token(agent, "write:calendar"))
    return tokens


async def post(
    stand: Stand, token: str, path: str = "a", body: object = 1, **more: str
) -> str:
    """Send a request with the key ``inv-1``; return the key that arrived."""
    headers = bearer(token, **({"Idempotency-Key": "inv-1"} | more))
    reply = await stand.client.post(f"/gw/api/notes/{path}", headers=headers, json=body)
    assert reply.status_code == 200, reply.text
    key = stand.upstream.received[-1].header(HEADER)
    assert key is not None
    return key


async def test_a_key_is_one_agents(stand: Stand, agents: list[str]) -> None:
    """Its retry has the same one, so that a service refuses it for another request."""
    first, second = agents
    key = await post(stand, first)
    assert UUID(key).version == 8
    assert await post(stand, first) == key
    assert await post(stand, first, body=2) == key
    others = [
        await post(stand, second),
        await post(stand, first, **{"Idempotency-Key": "inv-2"}),
    ]
    assert len({key, *others}) == 1 + len(others)


async def test_a_key_leaves_as_it_came_where_the_file_says_nothing(
    stand: Stand,
) -> None:
    """Then an operator finds it at the service by the agent's own word."""
    await stand.service(SERVICE.replace('idempotency_keys = "per_agent"', ""))
    agent = await stand.agent("write:calendar")
    token = await stand.token(agent, "write:calendar")
    assert await post(stand, token) == "inv-1"


async def test_the_row_has_the_key_that_was_sent_and_the_one_that_was_asked(
    stand: Stand, agents: list[str]
) -> None:
    """An operator finds the request by either."""
    key = await post(stand, agents[0], **{"X-Idempotency-Key": '"own"'})
    (attempt,) = await stand.bench.events("gateway.attempt")
    sent = stand.upstream.received[-1]
    assert attempt.detail["headers"][HEADER] == key
    assert attempt.detail["headers"]["x-idempotency-key"] == sent.header(
        "x-idempotency-key"
    )
    assert attempt.detail["idempotency_keys"] == {
        HEADER: "inv-1",
        "x-idempotency-key": '"own"',
    }


async def test_a_structured_key_stays_one(stand: Stand, agents: list[str]) -> None:
    """Services that follow the draft of the header read a quoted string alone."""
    key = await post(stand, agents[0], **{"Idempotency-Key": '"inv-1"'})
    assert key[0] == key[-1] == '"'
    assert UUID(key.strip('"')).version == 8
