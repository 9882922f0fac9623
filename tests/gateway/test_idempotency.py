"""Agents share a credential, and no idempotency key: no answer is another call's."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from support.call_kit import BEARER, PAY, ROUTES, bearer
from support.gateway_stand import Stand

from agentvault_tui.model import Agent

HEADER = "idempotency-key"
SERVICE = """
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


async def test_a_key_is_one_agents_and_one_calls(
    stand: Stand, agents: list[str]
) -> None:
    """The same call of the same agent has the same key again, and no other has it."""
    first, second = agents
    key = await post(stand, first)
    assert UUID(key).version == 8
    assert await post(stand, first) == key
    assert await post(stand, first, Traceparent=f"00-{'a' * 32}-{'b' * 16}-01") == key
    others = [
        await post(stand, second),
        await post(stand, first, path="b"),
        await post(stand, first, body=2),
        await post(stand, first, Accept="text/html"),
        await post(stand, first, **{"Idempotency-Key": "inv-2"}),
    ]
    assert len({key, *others}) == 1 + len(others)


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


async def test_two_approvals_with_one_key_are_two_actions(stand: Stand) -> None:
    """The person who approves the second one sees the key that is sent for it."""
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    agent = await stand.agent("send:payment", "read:calendar")
    token = await stand.token(agent, "read:calendar")
    keys = []
    for amount in (4200, 4300):
        call = asyncio.create_task(
            stand.client.post(
                "/gw/api/transfers/acct_1",
                headers=bearer(token, **{"Idempotency-Key": "inv-1"}),
                json=PAY | {"amount": amount},
            )
        )
        stepup = await stand.pending()
        await stand.approve(stepup.id)
        assert (await call).status_code == 200
        key = stand.upstream.received[-1].header(HEADER)
        assert stepup.request is not None
        assert stepup.request["headers"][HEADER] == key
        keys.append(key)
    assert keys[0] != keys[1]
