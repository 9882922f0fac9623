"""Bodies in memory are bounded: for one agent, and for all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from agentvault_tui.gateway.body import (
    ALL_BODIES,
    ALWAYS,
    BODY_CAP,
    IN_LOOP,
    WORKERS,
    Body,
    BodyRoom,
    read_apart,
    weight,
)
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.model import AgentId
from agentvault_tui.web.shares import UNUSED_S

ONE, TWO, THREE = AgentId("agt_1"), AgentId("agt_2"), AgentId("agt_3")


async def at_once() -> None:
    """Wait for no turn."""


def body(
    room: BodyRoom,
    size: int,
    agent: AgentId = ONE,
    *,
    said: bool = True,
    pace: Callable[[], Awaitable[None]] = at_once,
) -> Body:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 2**20):
            yield b"x" * min(2**20, size - start)
        yield b""

    source = pieces()
    headers = [(b"content-length", b"%d" % size)]
    chunked = [(b"transfer-encoding", b"chunked")]
    made = Body(headers if said else chunked, lambda: anext(source), room, pace)
    made.agent_id = agent
    return made


async def test_one_agents_bodies_leave_room_for_others() -> None:
    """An agent alone may fill all but one share; then it is 503, and another is not."""
    room = BodyRoom()
    held = [body(room, 8 * 2**20) for _ in range(28)]
    for one in held:
        await one.whole()
    late = body(room, 2**22)
    with pytest.raises(CallRefusedError) as refused:
        await late.whole()
    late.close()
    assert refused.value.status == 503
    await body(room, 8 * 2**20, TWO).whole()
    with pytest.raises(CallRefusedError):
        await body(room, 2**20).whole()
    held[0].close()
    held[0].close()
    held[1].close()
    await body(room, 8 * 2**20).whole()


async def test_what_others_used_lately_is_not_lent() -> None:
    """An eighth is an agent's own; more only where others had it ten seconds ago."""
    now = 0.0
    room = BodyRoom(now=lambda: now)
    others = [body(room, 2**25 - BODY_CAP * 3, agent) for agent in (TWO, THREE)]
    many = [body(room, BODY_CAP, agent) for agent in (TWO, THREE) for _ in range(3)]
    for one in (*others, *many):
        await one.whole()
    for one in (*others, *many):
        one.close()
    room.take(ONE, 6 * 2**25)
    with pytest.raises(CallRefusedError):
        room.take(ONE, 2**24)
    now = UNUSED_S
    room.take(ONE, 2**24)


def test_agents_that_fill_what_they_may_leave_some_to_the_next() -> None:
    """A few leave megabytes; a hundred shut nobody out of a small body."""
    room = BodyRoom()
    for number in range(100):
        if number == 1:
            room.check(AgentId("agt_late"), 2**25)
        agent = AgentId(f"agt_{number}")
        with suppress(CallRefusedError):
            while True:
                room.take(agent, 2**16)
    room.take(AgentId("agt_late"), ALWAYS)
    assert room.taken <= ALL_BODIES + 100 * ALWAYS


async def test_a_large_body_is_read_in_another_process() -> None:
    """Other requests continue while it is read; a small one uses no process."""
    try:
        assert await read_apart(ONE, IN_LOOP, os.getpid) == os.getpid()
        assert await read_apart(ONE, IN_LOOP + 1, os.getpid) != os.getpid()
    finally:
        WORKERS.close()


@pytest.mark.parametrize("said", [True, False])
async def test_a_body_over_the_cap_is_413(said: bool) -> None:
    """Whether its length is said or not; what was read of it is let go of."""
    room = BodyRoom()
    large = body(room, BODY_CAP + 1, said=said)
    with pytest.raises(CallRefusedError) as refused:
        await large.whole()
    assert refused.value.status == 413
    large.close()
    assert room.taken == 0


async def test_others_have_a_turn_between_the_pieces_of_a_large_body() -> None:
    """A body of eight pieces waits eight times; one of a small piece waits for none."""
    turns = []

    async def pace() -> None:
        turns.append(1)

    await body(BodyRoom(), 8 * 2**20, pace=pace).whole()
    assert len(turns) == 8
    await body(BodyRoom(), 4_096, pace=pace).whole()
    assert len(turns) == 8


def test_no_body_above_64_kib_is_read_in_the_loop() -> None:
    """Smaller ones may be, as far as reading them delays nobody."""
    assert IN_LOOP <= 65_536


def test_a_body_that_is_not_ascii_weighs_more() -> None:
    """Names in other scripts take longer to compare."""
    assert weight(b"a" * 100) == 100
    assert weight("é".encode() * 50) == 400
