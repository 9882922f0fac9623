"""Polling for a person's answer: how often, how long, and what stops it."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from support.auth0_answers import CANCELLED, GOOD, PENDING, SLOW_DOWN, oauth_error
from support.manual_clock import ManualClock
from support.polls import polled
from support.rogue_tenant import TOKEN, Answer, Request, RogueTenant

from agentvault_tui.vault import (
    DeviceFlow,
    FlowCancelled,
    FlowDenied,
    FlowExpired,
    FlowFailed,
    FlowPending,
    FlowTokens,
    TenantClient,
)


async def start(client: TenantClient, ttl: int = 120) -> DeviceFlow:
    """Start a flow."""
    return await client.start_device_flow(ttl=ttl)


async def test_polls_are_one_interval_apart(
    tenant: RogueTenant, client: TenantClient, naps: list[float]
) -> None:
    """The first poll comes one interval after the code, and each after its answer.

    A tenant that counts between the requests it receives would find them too close
    if one travels a little faster than the one before: each waits a little longer.
    """
    flow = await start(client)
    tenant.script(TOKEN, PENDING, PENDING, GOOD)
    seen = polled(client)
    assert await client.wait(flow, asyncio.Event()) == FlowTokens("eyJ.c.d")
    assert naps == [5.25, 5.25, 5.25]
    assert [type(one) for one in seen] == [FlowPending, FlowPending, FlowTokens]


async def test_slow_down_adds_five_seconds_for_good(
    tenant: RogueTenant, client: TenantClient, naps: list[float]
) -> None:
    """Each slow_down adds five seconds to every later pause (RFC 8628 3.5)."""
    flow = await start(client)
    tenant.script(TOKEN, SLOW_DOWN, PENDING, SLOW_DOWN, PENDING, GOOD)
    assert isinstance(await client.wait(flow, asyncio.Event()), FlowTokens)
    assert naps == [5.25, 10.25, 10.25, 15.25, 15.25]


async def test_a_slow_down_that_names_a_longer_wait_gets_it(
    tenant: RogueTenant, client: TenantClient, naps: list[float]
) -> None:
    """`Retry-After` beside slow_down is honoured once; the pace grows by five."""
    flow = await start(client)
    slow = Answer({"error": "slow_down"}, 429, {"Retry-After": "30"})
    tenant.script(TOKEN, slow, PENDING, GOOD)
    assert isinstance(await client.wait(flow, asyncio.Event()), FlowTokens)
    assert naps == [5.25, 30, 10.25]


async def test_the_interval_counts_from_the_receipt_of_the_last_answer(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """An answer that takes three seconds puts the next request off by three."""
    asked: list[float] = []

    def slowly(_: Request) -> Answer:
        asked.append(clock.boot())
        clock.advance(3)
        return PENDING

    flow = await start(client, ttl=30)
    tenant.script(TOKEN, slowly)
    assert await client.wait(flow, asyncio.Event()) == FlowExpired()
    gaps = {later - earlier for earlier, later in pairwise(asked)}
    assert gaps == {8.25}


async def test_a_lost_expired_token_answer_still_ends_the_wait(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Auth0 says expired_token once; who missed it hears invalid_grant."""
    flow = await start(client)
    tenant.script(TOKEN, Answer(raw=b""), oauth_error(403, "invalid_grant"))
    end = await client.wait(flow, asyncio.Event())
    assert end == FlowFailed("invalid_grant", "the code is used or expired")


async def test_polling_backs_off_during_an_outage(
    tenant: RogueTenant, client: TenantClient, naps: list[float]
) -> None:
    """Errors, rubbish and rate limits end nothing; afterwards the pace is as before."""
    flow = await start(client)
    limited = Answer({"error": "too_many_requests"}, 429, {"Retry-After": "25"})
    tenant.script(
        TOKEN, Answer({}, 500), Answer(raw=b"rubbish"), limited, PENDING, GOOD
    )
    assert isinstance(await client.wait(flow, asyncio.Event()), FlowTokens)
    assert naps == [5.25, 10.5, 21, 30, 5.25]


async def test_polling_ends_when_the_code_expires(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, naps: list[float]
) -> None:
    """A tenant that stays down costs no more than the code's time, to the second."""
    flow = await start(client, ttl=60)
    await tenant.stop()
    assert await client.wait(flow, asyncio.Event()) == FlowExpired()
    assert sum(naps) == 60
    assert flow.expires.passed(clock)


async def test_tokens_that_come_after_the_code_expired_are_not_taken(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """The tenant's code may live longer than ours; after ours, nobody asks."""
    flow = await start(client, ttl=4)
    tenant.script(TOKEN, GOOD)
    assert await client.wait(flow, asyncio.Event()) == FlowExpired()
    assert tenant.asked(TOKEN) == 0


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (CANCELLED, FlowDenied),
        (oauth_error(403, "expired_token"), FlowExpired),
        (oauth_error(403, "invalid_grant"), FlowFailed),
    ],
)
async def test_a_final_answer_ends_polling(
    tenant: RogueTenant, client: TenantClient, answer: Answer, end: type
) -> None:
    """After a final answer the code is not asked about again."""
    flow = await start(client)
    tenant.script(TOKEN, PENDING, answer)
    assert isinstance(await client.wait(flow, asyncio.Event()), end)
    assert tenant.asked(TOKEN) == 2


async def test_cancelling_stops_a_poll_at_once(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Revoking an agent need not wait for a tenant that does not answer."""
    flow = await start(client)
    tenant.script(TOKEN, Answer(hang=True))
    tenant.arrived.clear()
    cancel = asyncio.Event()
    task = asyncio.create_task(client.wait(flow, cancel))
    await tenant.arrived.wait()
    cancel.set()
    assert await task == FlowCancelled()


async def test_cancelling_stops_a_pause_at_once(
    tenant: RogueTenant, clock: ManualClock
) -> None:
    """A pause of seconds is not slept to its end."""
    asleep = asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    client = TenantClient(tenant.issuer, "avConsole01", clock, sleep=sleep)
    flow = await start(client)
    cancel = asyncio.Event()
    task = asyncio.create_task(client.wait(flow, cancel))
    await asleep.wait()
    cancel.set()
    assert await task == FlowCancelled()
    assert tenant.asked(TOKEN) == 0
    await client.aclose()


async def test_a_cancellation_wins_over_tokens(
    tenant: RogueTenant, clock: ManualClock
) -> None:
    """When answer and cancellation are both there, the answer is not used."""
    cancel = asyncio.Event()

    class Racing(TenantClient):
        async def poll_once(self, _flow: DeviceFlow) -> FlowTokens:
            cancel.set()
            return FlowTokens("eyJ.c.d")

    client = Racing(tenant.issuer, "avConsole01", clock, sleep=lambda _: never_long())
    assert await client.wait(await start(client), cancel) == FlowCancelled()
    await client.aclose()


async def never_long() -> None:
    """Sleep not at all."""


async def test_tokens_that_arrive_with_the_cancellation_are_dropped(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Whoever was cancelled gets nothing, however close the race."""
    flow = await start(client)
    cancel = asyncio.Event()

    def last_moment(_: Any) -> Answer:
        cancel.set()
        return GOOD

    tenant.script(TOKEN, last_moment)
    assert await client.wait(flow, cancel) == FlowCancelled()
