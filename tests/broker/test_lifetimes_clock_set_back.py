"""A clock that is set back extends nothing that ends by time, also over a restart.

`test_timed_grants` and `test_changes` do the same for grants and restores.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Escalated, Expired, Granted
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.clock import iso
from agentvault_tui.model import Action, Repeat

Lasts = Callable[[Bench], Awaitable[bool]]
LENGTH = 600
READING = Action(("read:calendar",), "read:calendar")


def later(bench: Bench) -> str:
    return iso(bench.clock.now() + timedelta(seconds=LENGTH))


async def agent(bench: Bench) -> tuple[int, Lasts]:
    """Register one with an end, revoke it and restore it with another."""
    made = await bench.agent("one", "read:calendar", until=later(bench))
    await revoke_agent(bench.broker, made.id, "r", OPERATOR)
    end = bench.clock.now() + timedelta(seconds=LENGTH)
    await restore_agent(bench.broker, made.id, OPERATOR, end)

    async def lasts(now: Bench) -> bool:
        return now.broker.registry.lifetimes.is_active(made.id)

    return LENGTH, lasts


async def derived_agent(bench: Bench) -> tuple[int, Lasts]:
    """Make one from a template with an end."""
    plan = await bench.agent("plan", template=True, until=later(bench))
    made = await bench.made_from(**{"name": "made", "from": plan.id})

    async def lasts(now: Bench) -> bool:
        return now.broker.registry.lifetimes.is_active(made.id)

    return LENGTH, lasts


async def token(bench: Bench) -> tuple[int, Lasts]:
    """Issue a token."""
    made = await bench.agent("one", "read:calendar")
    granted = await request_token(
        bench.broker, made, READING, resource=None, details=None
    )
    assert isinstance(granted, Granted)

    async def lasts(now: Bench) -> bool:
        found = await introspect(now.broker, made, granted.access_token)
        return found.token is not None

    return granted.expires_in, lasts


async def stepup(bench: Bench) -> tuple[int, Lasts]:
    """Ask for an approval."""
    made, waiting = await hold(bench)

    async def lasts(now: Bench) -> bool:
        return not isinstance(await poll(now.broker, made, waiting.id), Expired)

    return bench.broker.settings.stepup.expires_in, lasts


async def repeat(bench: Bench) -> tuple[int, Lasts]:
    """Approve the next requests as well."""
    made, waiting = await hold(bench)
    ahead = Repeat(100, LENGTH, ())
    await begin_approval(bench.broker, waiting.id, waiting.digest, OPERATOR, ahead)
    bench.tenant.approve()
    await bench.until(lambda: waiting.id not in bench.broker.stepups.flows)

    async def lasts(now: Bench) -> bool:
        asked = now.broker.registry.agent(made.id)
        answer = await ask(now, asked, PAYMENT)
        assert isinstance(answer, Escalated)
        return not answer.stepup.status.open

    return LENGTH, lasts


async def unused_approval(bench: Bench) -> tuple[int, Lasts]:
    """Approve a request whose token is not fetched."""
    made, waiting = await hold(bench)
    await approve(bench, waiting)
    ends = bench.broker.registry.elevated(waiting.id)
    assert ends is not None

    async def lasts(now: Bench) -> bool:
        return isinstance(await poll(now.broker, made, waiting.id), Granted)

    return int(ends.expires.remaining(bench.clock)), lasts


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize(
    "begin", [agent, derived_agent, token, stepup, repeat, unused_approval]
)
async def test_a_clock_set_back_extends_nothing(
    bench: Bench, begin: Callable[[Bench], Awaitable[tuple[int, Lasts]]], restart: bool
) -> None:
    """By the boot clock its time is over, by the wall clock it has just begun."""
    seconds, lasts = await begin(bench)
    bench.clock.advance(seconds - 1)
    if begin is not unused_approval:  # a look would use it
        assert await lasts(bench)
    bench.clock.jump_wall(2 - seconds)
    if restart:
        async with bench.restarted() as again:
            bench.clock.advance(1)
            assert not await lasts(again)
    else:
        bench.clock.advance(1)
        assert not await lasts(bench)
