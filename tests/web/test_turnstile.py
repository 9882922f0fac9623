"""A line in which a few requests begin in each turn of the loop."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.web.turnstile import Turnstile


def record_turns(each_turn: int, arrivals: list[int]) -> list[list[int]]:
    """Return who was let in in each turn, if so many arrive at once each turn."""
    turns: list[list[int]] = []

    async def ask(turnstile: Turnstile, number: int) -> None:
        await turnstile.enter()
        turns[-1].append(number)

    async def main() -> None:
        turnstile = Turnstile(each_turn)
        asked: list[asyncio.Task[None]] = []
        for count in arrivals:
            turns.append([])
            asked += [
                asyncio.create_task(ask(turnstile, len(asked) + n))
                for n in range(count)
            ]
            await asyncio.sleep(0)
        while not all(task.done() for task in asked):
            turns.append([])
            await asyncio.sleep(0)

    asyncio.run(main())
    return turns


@given(
    each_turn=st.integers(1, 5),
    arrivals=st.lists(st.integers(0, 12), max_size=12),
)
def test_all_are_let_in_in_order_and_few_a_turn(
    each_turn: int, arrivals: list[int]
) -> None:
    """Everyone gets in, first come first served, never more a turn than may."""
    turns = record_turns(each_turn, arrivals)
    order = [n for turn in turns for n in turn]
    assert sorted(order) == list(range(sum(arrivals)))
    # Those let in in one turn may run in any order, some of them in the next.
    assert all(abs(n - place) < each_turn + 1 for place, n in enumerate(order))
    assert max((len(turn) for turn in turns), default=0) <= 2 * each_turn


async def test_whoever_comes_alone_does_not_wait() -> None:
    """One request at a time passes without giving up its turn."""
    turnstile = Turnstile(1)
    for _ in range(3):
        coroutine = turnstile.enter()
        with_no_wait = False
        try:
            coroutine.send(None)
        except StopIteration:
            with_no_wait = True
        assert with_no_wait
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_hangs_up_leaves_the_line() -> None:
    """A cancelled request takes nobody's place."""
    turnstile = Turnstile(1)
    first, gone, last = (asyncio.create_task(turnstile.enter()) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 5)
    assert gone.cancelled()


async def test_much_work_takes_a_turn_for_itself() -> None:
    """A request of many units begins alone, and is not put off for ever."""
    turnstile = Turnstile(4)
    begun: list[str] = []

    async def ask(name: str, units: int) -> None:
        await turnstile.enter(units)
        begun.append(name)

    await turnstile.enter(4)
    wanted = {"large": 16, "small": 1, "other": 1}
    asked = [asyncio.create_task(ask(name, n)) for name, n in wanted.items()]
    await asyncio.sleep(0)
    counts = []
    while len(begun) < len(wanted):
        await asyncio.sleep(0)
        counts.append(len(begun))
    await asyncio.gather(*asked)
    assert begun == ["large", "small", "other"]
    assert 1 in counts


async def test_while_it_is_held_nobody_gets_in() -> None:
    """Whoever holds the line has the machine; those who wait go on behind it."""
    turnstile = Turnstile(2)
    await turnstile.enter()
    with turnstile.held(), turnstile.held():
        waiting = [asyncio.create_task(turnstile.enter()) for _ in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
