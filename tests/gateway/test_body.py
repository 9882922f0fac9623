"""Bodies in memory are bounded: for one agent, and for all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentvault_tui.gateway.body import AGENTS_BODIES, BODY_CAP, Body, BodyRoom
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.model import AgentId

ONE, TWO = AgentId("agt_1"), AgentId("agt_2")


def body(room: BodyRoom, size: int, agent: AgentId = ONE, *, said: bool = True) -> Body:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 2**20):
            yield b"x" * min(2**20, size - start)
        yield b""

    source = pieces()
    headers = [(b"content-length", b"%d" % size)]
    chunked = [(b"transfer-encoding", b"chunked")]
    made = Body(headers if said else chunked, lambda: anext(source), room)
    made.agent_id = agent
    return made


async def test_one_agents_bodies_leave_room_for_others() -> None:
    """Past its share an agent is 503; another one is not, and closing gives it back."""
    room = BodyRoom()
    held = [body(room, 8 * 2**20) for _ in range(AGENTS_BODIES // 2**23)]
    for one in held:
        await one.whole()
    late = body(room, 2**20)
    with pytest.raises(CallRefusedError) as refused:
        await late.whole()
    late.close()
    assert refused.value.status == 503
    await body(room, 2**20, TWO).whole()
    held[0].close()
    held[0].close()
    await body(room, 2**23).whole()


@pytest.mark.parametrize("said", [True, False])
async def test_a_body_over_the_cap_is_413(said: bool) -> None:
    """Whether its length is said or not; what was read of it is let go of."""
    room = BodyRoom()
    large = body(room, BODY_CAP + 1, said=said)
    with pytest.raises(CallRefusedError) as refused:
        await large.whole()
    assert refused.value.status == 413
    large.close()
    assert room._taken == {}
