"""A held call that was approved for more than once goes out again, byte for byte."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from gateway.test_calls import BEARER, PAY, ROUTES, bearer
from support.bench import OPERATOR
from support.gateway_stand import Stand

from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.errors import UsageError
from agentvault_tui.model import Agent, ParameterBound, Repeat

URL = "/gw/api/transfers/acct_42"


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    return await stand.agent("read:calendar", "write:calendar", "send:payment")


async def test_an_approval_for_more_sends_the_same_bytes_again(
    stand: Stand, agent: Agent
) -> None:
    """The next identical call needs no person; one other byte waits, and ends it."""
    shown = bearer(await stand.token(agent, "read:calendar"))

    async def call(amount: int, wait: int = 0) -> httpx.Response:
        headers = {**shown, "Prefer": f"wait={wait}"}
        return await stand.client.post(
            URL, headers=headers, json={**PAY, "amount": amount}
        )

    broker, bench = stand.bench.broker, stand.bench
    first = asyncio.create_task(call(4200, wait=20))
    await bench.until(lambda: bool(broker.stepups.open()))
    (stepup,) = broker.stepups.open()
    bounded = Repeat(2, 600, (ParameterBound("amount", 5000),))
    with pytest.raises(UsageError, match="byte for byte"):
        await begin_approval(broker, stepup.id, stepup.digest, OPERATOR, bounded)
    repeat = Repeat(2, 600)
    await begin_approval(broker, stepup.id, stepup.digest, OPERATOR, repeat)
    bench.tenant.approve()
    assert (await first).status_code == 200
    assert (await call(4200)).status_code == 200
    assert len(stand.upstream.received) == 2
    one, two = stand.upstream.received
    assert one.body == two.body
    other = await call(4201)
    assert other.status_code != 200
    assert len(stand.upstream.received) == 2
    assert broker.stepups.repeating(agent.id) == []
    again = await call(4200)
    assert again.status_code != 200
    attempts = await bench.events("gateway.attempt")
    assert [event.reason for event in attempts] == ["stepup_approved"] * 2
    assert attempts[0].decision_id != attempts[1].decision_id
