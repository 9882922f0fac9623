"""A held call that was approved for more than once goes out again, byte for byte."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.call_kit import PAY, bearer
from support.gateway_stand import Stand

from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.errors import OvertakenError, UsageError
from agentvault_tui.model import Agent, Draft, Event, EventType, ParameterBound, Repeat

URL = "/gw/api/transfers/acct_42"


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


async def test_a_call_that_is_overtaken_goes_out_under_the_approval_that_it_has(
    stand: Stand, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another broker is first, no second approval is asked for or used up."""
    headers = bearer(await stand.token(agent, "read:calendar"))
    broker, bench = stand.bench.broker, stand.bench
    commit, overtaken = bench.ledger.commit, list[Draft]()

    def first_time(*drafts: Draft, **more: Any) -> asyncio.Future[tuple[Event, ...]]:
        if drafts and drafts[0].type is EventType.GATEWAY_ATTEMPT and not overtaken:
            overtaken.extend(drafts)
            raise OvertakenError("another broker was first", "ask again")
        return commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", first_time)
    waiting = {**headers, "Prefer": "wait=20"}
    first = asyncio.create_task(stand.client.post(URL, headers=waiting, json=PAY))
    await bench.until(lambda: bool(broker.stepups.open()))
    (stepup,) = broker.stepups.open()
    repeat = Repeat(2, 600)
    await begin_approval(broker, stepup.id, stepup.digest, OPERATOR, repeat)
    bench.tenant.approve()
    assert (await first).status_code == 200
    assert overtaken
    overtaken.clear()
    again = await stand.client.post(URL, headers=headers, json=PAY)
    assert again.status_code == 200
    assert len(stand.upstream.received) == 2
    left = broker.stepups.get(stepup.id).repeat
    assert left is not None
    assert left.left == 1
