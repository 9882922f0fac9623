"""Few requests begin in each turn of the loop, large ones one at a time."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.web.admission import AdmissionQueue


def record_turns(each_turn: int, arrivals: list[int]) -> list[list[int]]:
    """Return who was let in in each turn, if so many arrive at once each turn."""
    turns: list[list[int]] = []

    async def ask(queue: AdmissionQueue, number: int) -> None:
        await queue.enter()
        turns[-1].append(number)

    async def main() -> None:
        queue = AdmissionQueue(each_turn)
        asked: list[asyncio.Task[None]] = []
        for count in arrivals:
            turns.append([])
            asked += [
                asyncio.create_task(ask(queue, len(asked) + n)) for n in range(count)
            ]
            await asyncio.sleep(0)
        while not all(task.done() for task in asked):
            turns.append([])
            await asyncio.sleep(0)

    asyncio.run(main())
    return turns


@given(each_turn=st.integers(1, 5), arrivals=st.lists(st.integers(0, 12), max_size=12))
def test_requests_are_admitted_in_order_a_few_each_turn(
    each_turn: int, arrivals: list[int]
) -> None:
    """Everyone gets in, first come first served, never more a turn than may."""
    turns = record_turns(each_turn, arrivals)
    order = [n for turn in turns for n in turn]
    assert sorted(order) == list(range(sum(arrivals)))
    # Those let in in one turn may run in any order, some of them in the next.
    assert all(abs(n - place) < each_turn + 1 for place, n in enumerate(order))
    assert max((len(turn) for turn in turns), default=0) <= 2 * each_turn


async def test_a_lone_request_is_admitted_at_once() -> None:
    """One request at a time passes without giving up its turn."""
    queue = AdmissionQueue(1)
    for _ in range(3):
        coroutine = queue.enter()
        with_no_wait = False
        try:
            coroutine.send(None)
        except StopIteration:
            with_no_wait = True
        assert with_no_wait
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_cancelled_request_takes_no_place() -> None:
    """Its client has closed the connection while it waited."""
    queue = AdmissionQueue(1)
    first, gone, last = (asyncio.create_task(queue.enter()) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 5)
    assert gone.cancelled()


async def test_large_requests_delay_small_ones_by_one_a_turn() -> None:
    """64 large bodies that came first let every later small request in at once."""
    queue = AdmissionQueue(4)
    begun: list[str] = []

    async def ask(name: str, *, large: bool) -> None:
        await queue.enter(large=large)
        begun.append(name)

    large = [asyncio.create_task(ask("large", large=True)) for _ in range(64)]
    await asyncio.sleep(0)
    small = [asyncio.create_task(ask("small", large=False)) for _ in range(8)]
    await asyncio.wait_for(asyncio.gather(*small), 5)
    # Eight small requests are two turns, and one large request begins in each.
    assert begun.count("large") <= 6
    await asyncio.wait_for(asyncio.gather(*large), 5)


async def test_large_requests_are_not_starved_by_small_ones() -> None:
    """One large request begins in each turn, however many small ones wait."""
    queue = AdmissionQueue(1)
    small = [asyncio.create_task(queue.enter()) for _ in range(200)]
    large = [asyncio.create_task(queue.enter(large=True)) for _ in range(3)]
    await asyncio.wait_for(asyncio.gather(*large), 5)
    assert sum(task.done() for task in small) < 20
    await asyncio.wait_for(asyncio.gather(*small), 5)


async def test_nothing_is_admitted_while_admission_is_paused() -> None:
    """A revocation pauses it; those who wait go on afterwards."""
    queue = AdmissionQueue(2)
    await queue.enter()
    with queue.paused(), queue.paused():
        waiting = [
            asyncio.create_task(queue.enter(large=bool(number % 2)))
            for number in range(5)
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_a_queue_that_yields_admits_few_and_starves_nobody() -> None:
    """Behind others one a timer's turn is admitted; once they are gone, all at once."""
    others = [True]
    queue = AdmissionQueue(100, lambda: others[0])
    asked = [asyncio.create_task(queue.enter()) for _ in range(60)]
    await asked[0]
    await asked[1]
    assert sum(task.done() for task in asked) < 60
    others[0] = False
    await asyncio.wait_for(asyncio.gather(*asked), 5)
