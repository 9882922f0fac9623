"""The tenant's few requests a second go to operators first, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.exchanges import NOON
from support.manual_clock import ManualClock

from agentvault_tui.vault import Budget, Priority
from agentvault_tui.vault.reply import TenantReply

OPERATOR, REVOCATION, BACKGROUND = Priority


@pytest.fixture
def budget(clock: ManualClock, sleep: Any) -> Budget:
    """A free tenant's budget."""
    return Budget(clock, sleep=sleep)


async def test_a_budget_allows_two_at_once_and_two_a_second(
    budget: Budget, clock: ManualClock
) -> None:
    """The burst goes out at once; after it each request waits its half second."""
    began = clock.boot()
    went = []
    for _ in range(6):
        await budget.take(OPERATOR)
        went.append(clock.boot() - began)
    assert went == [0, 0, 0.5, 1.0, 1.5, 2.0]


async def test_a_background_request_leaves_one_for_an_operator(
    budget: Budget, clock: ManualClock
) -> None:
    """However long the log is read, an operator's next request goes out at once."""
    for _ in range(20):
        await budget.take(BACKGROUND)
    before = clock.boot()
    await budget.take(OPERATOR)
    assert clock.boot() == before


async def test_requests_are_served_by_priority_then_arrival(
    budget: Budget, clock: ManualClock
) -> None:
    """Operators before revocation steps before the log, each in order of arrival."""
    await budget.take(OPERATOR)
    await budget.take(OPERATOR)
    order: list[str] = []

    async def want(priority: Priority, name: str) -> None:
        await budget.take(priority)
        order.append(name)

    tasks = [
        asyncio.create_task(want(priority, name))
        for priority, name in [
            (BACKGROUND, "log"),
            (REVOCATION, "cut 1"),
            (OPERATOR, "look 1"),
            (REVOCATION, "cut 2"),
            (OPERATOR, "look 2"),
        ]
    ]
    await asyncio.gather(*tasks)
    assert order == ["look 1", "look 2", "cut 1", "cut 2", "log"]


async def test_an_operators_request_overtakes_waiting_ones(clock: ManualClock) -> None:
    """Someone who waits for the next request gives it up to a more urgent one."""
    woken = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await woken.wait()
        clock.advance(seconds)

    budget = Budget(clock, sleep=sleep)
    await budget.take(OPERATOR)
    await budget.take(OPERATOR)
    order: list[str] = []

    async def want(priority: Priority, name: str) -> None:
        await budget.take(priority)
        order.append(name)

    log = asyncio.create_task(want(BACKGROUND, "log"))
    await asyncio.sleep(0)
    look = asyncio.create_task(want(OPERATOR, "look"))
    await asyncio.sleep(0)
    clock.advance(5)
    woken.set()
    await asyncio.gather(log, look)
    assert order == ["look", "log"]


async def test_a_cancelled_request_holds_no_other(clock: ManualClock) -> None:
    """A cancelled request leaves the queue, and the next one goes."""
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    budget = Budget(clock, sleep=sleep)
    await budget.take(OPERATOR)
    await budget.take(OPERATOR)
    gone = asyncio.create_task(budget.take(OPERATOR))
    next_one = asyncio.create_task(budget.take(BACKGROUND))
    await asyncio.sleep(0)
    clock.advance(5)
    gone.cancel()
    await asyncio.wait_for(next_one, 30)
    assert next_one.done()


@pytest.mark.parametrize(
    ("reply", "pause"),
    [
        (TenantReply(429, retry_after=12.0), 12.0),
        (TenantReply(429, reset=int(NOON.timestamp()) + 8, date=NOON), 8.0),
        (TenantReply(429), 1.0),
        (
            TenantReply(200, remaining=0, reset=int(NOON.timestamp()) + 3, date=NOON),
            3.0,
        ),
        (
            TenantReply(200, remaining=1, reset=int(NOON.timestamp()) + 3, date=NOON),
            0.0,
        ),
        (TenantReply(500, retry_after=12.0), 0.0),
    ],
)
async def test_a_spent_limit_holds_everyone_until_it_is_renewed(
    budget: Budget, clock: ManualClock, reply: TenantReply, pause: float
) -> None:
    """One client's 429 spares all others theirs; nothing else slows anyone down."""
    budget.heed(reply)
    before = clock.boot()
    await budget.take(OPERATOR)
    assert clock.boot() - before == pytest.approx(pause)


@pytest.mark.parametrize(("rate", "burst"), [(0, 2), (-1, 2), (2, 1)])
def test_a_budget_without_a_rate_is_refused(
    clock: ManualClock, rate: float, burst: float
) -> None:
    """A rate of nothing, or a burst with nothing over, would wait for ever."""
    with pytest.raises(ValueError, match="a positive rate"):
        Budget(clock, rate=rate, burst=burst)


@pytest.mark.slow
@example(
    [(OPERATOR, 0.0, 200), (OPERATOR, 0.5 - 2**-54, 200), (OPERATOR, 0.0, 200)]
)  # what is left to wait is too short to move any clock
@given(
    st.lists(
        st.tuples(
            st.sampled_from(Priority), st.floats(0, 3), st.sampled_from([200, 429])
        ),
        max_size=30,
    )
)
def test_no_second_sees_more_than_the_rate_and_the_burst(
    wanted: list[tuple[Priority, float, int]],
) -> None:
    """Whoever asks whenever, any span of time has burst plus rate times its length."""
    clock = ManualClock(NOON)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    async def times() -> AsyncIterator[float]:
        budget = Budget(clock, sleep=sleep)
        for priority, gap, status in wanted:
            await budget.take(priority)
            yield clock.boot()
            budget.heed(TenantReply(status, retry_after=0.0))
            clock.advance(gap)

    async def collect() -> list[float]:
        return [one async for one in times()]

    went = asyncio.run(collect())
    for first in range(len(went)):
        for last in range(first, len(went)):
            count, span = last - first + 1, went[last] - went[first]
            assert count <= 2 + 2 * span + 1e-6
