"""A flooding agent is answered 429 without a decision; nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.agents_http import Live
from support.manual_clock import ManualClock

from agentvault_tui.broker.floods import RATE, SPAN
from agentvault_tui.broker.serve import upkeep


@pytest.mark.slow
async def test_past_its_budget_an_agent_is_told_to_slow_down(
    live: Live, clock: ManualClock
) -> None:
    """No event a request any more, one that counts them; served after keeping still."""
    rogue, other = await live.caller("rogue"), await live.caller("other")
    bench = live.bench
    for _ in range(RATE * SPAN + 1):
        assert (await rogue.token("read:contacts")).status_code == 403
    clock.advance(SPAN)
    assert (await rogue.token("read:contacts")).status_code == 403
    before = len(await bench.events())
    for _ in range(20):
        answer = await rogue.token()  # also what it may have
        assert answer.status_code == 429
        assert answer.json()["error"] == "slow_down"
        assert answer.headers["retry-after"] == str(SPAN)
    assert (await rogue.poll("sup_unknown")).status_code == 429
    assert len(await bench.events()) == before
    assert (await other.token()).status_code == 200
    head = bench.ledger.head.seq
    looking = asyncio.create_task(upkeep(bench.broker))
    await bench.until(lambda: bench.ledger.head.seq > head)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    (event,) = await bench.events("agent.flooding")
    assert (event.agent_id, event.detail["count"]) == (rogue.agent.id, RATE * SPAN + 23)
    clock.advance(SPAN)
    assert (await rogue.token()).status_code == 200


@pytest.mark.slow
async def test_asking_a_person_again_and_again_is_flooding_too(
    live: Live, clock: ManualClock
) -> None:
    """Each repetition of a step-up is an event as well."""
    rogue = await live.caller("rogue")
    answers = [(await rogue.payment()).status_code for _ in range(RATE * SPAN + 1)]
    clock.advance(SPAN)
    answers += [(await rogue.payment()).status_code for _ in range(2)]
    assert answers == [*[403] * (RATE * SPAN + 2), 429]
