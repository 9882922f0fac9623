"""What happens with time goes on, whatever else does not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from support.bench import Bench
from support.stepups import approve, ask, hold, latched

from agentvault_tui.broker.answers import Expired, Granted
from agentvault_tui.broker.serve import upkeep
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.clock import Deadline
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import Action, StepUpStatus, Token, TokenId, TokenKind, new_id

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")


async def test_expired_tokens_are_forgotten_while_the_ledger_cannot_write(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated request that cannot be written down does not stop the sweep."""
    agent, _ = await hold(bench)
    await ask(bench, agent)
    registry, now = bench.broker.registry, bench.clock.now()
    ends = Deadline.after(bench.clock, 10)
    kind, scope = TokenKind.STANDARD, "write:calendar"
    token = Token(TokenId("tok_1"), "ab" * 32, agent.id, scope, kind, now, ends)
    registry.put_token(token)
    bench.clock.advance(20)
    monkeypatch.setattr(bench.ledger, "commit", latched)
    looking = asyncio.create_task(upkeep(bench.broker))
    await bench.until(lambda: token.sha256 not in registry._tokens)
    assert not looking.done()
    looking.cancel()


@pytest.mark.slow
async def test_a_tenant_that_takes_its_time_delays_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests expire, and a policy that became stricter is put in force."""
    asked = asyncio.Event()

    async def probe() -> bool:
        asked.set()
        return await asyncio.Event().wait()

    monkeypatch.setattr(bench.tenant, "probe", probe)
    _, waiting = await hold(bench)
    looking = asyncio.create_task(upkeep(bench.broker))
    await asked.wait()
    bench.home.policy_file.write_text(
        '@id("none") @why("no") forbid (principal, action, resource);'
    )
    bench.clock.advance(301)
    before, registry = bench.broker.deciding.policy.version, bench.broker.registry
    await bench.until(lambda: bench.broker.deciding.policy.version != before)
    assert registry.stepups.get(waiting.id).status is StepUpStatus.EXPIRED
    looking.cancel()


async def test_a_poll_ends_its_own_request_and_leaves_the_rest_to_upkeep(
    bench: Bench,
) -> None:
    """However many wait, one poll looks at one."""
    asking, asked = await hold(bench)
    _, other = await hold(bench, "other")
    bench.clock.advance(301)
    assert isinstance(await poll(bench.broker, asking, asked.id), Expired)
    assert bench.broker.stepups.get(other.id).status is StepUpStatus.PENDING
    await expire_due(bench.broker)
    assert bench.broker.stepups.get(other.id).status is StepUpStatus.EXPIRED


@asynccontextmanager
async def looking_after(bench: Bench) -> AsyncIterator[Callable[[float], Any]]:
    """Run upkeep, and set the wall clock by so many seconds so that it is noticed."""
    looking = asyncio.create_task(upkeep(bench.broker))
    await asyncio.sleep(0)

    async def jump(seconds: float) -> None:
        before = len(await bench.events("clock.jump"))
        bench.clock.jump_wall(seconds)
        while len(await bench.events("clock.jump")) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    try:
        yield jump
    finally:
        looking.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
async def test_what_a_clock_ahead_ended_stays_ended(
    bench: Bench, *, restart: bool
) -> None:
    """Tokens, approvals and requests: also at the next start, looked at or not."""
    agent, asked = await hold(bench)
    payer, approved = await hold(bench, "approved")
    await approve(bench, approved)
    granted = await ask(bench, agent, CALENDAR)
    assert isinstance(granted, Granted)
    async with looking_after(bench) as jump:
        await jump(4000)
        await jump(-4000)
    after = await ask(bench, agent, CALENDAR)
    assert isinstance(after, Granted)
    if restart:
        await bench.close()
        bench = await Bench.open(bench.home, bench.clock)
    try:
        assert (
            await introspect(bench.broker, agent, granted.access_token)
        ).token is None
        assert (await introspect(bench.broker, agent, after.access_token)).token
        assert isinstance(await poll(bench.broker, payer, approved.id), Expired)
        found = bench.broker.stepups.get(asked.id)
        assert found.status is StepUpStatus.EXPIRED
        assert await bench.events("audit.ambiguous") == []
    finally:
        await bench.close()


@pytest.mark.slow
async def test_tokens_pruned_by_a_clock_that_was_ahead_are_not_missed(
    bench: Bench,
) -> None:
    """Their rows are gone though they have not ended by the clock as it is set now."""
    await ask(bench, await bench.agent(), CALENDAR)
    async with looking_after(bench) as jump:
        await jump(7200)
        with closing(sqlite3.connect(bench.home.database)) as db, db:
            while db.execute("SELECT count(*) FROM tokens").fetchone() != (0,):
                await bench.agent(new_id("bot"))
        db.close()
        await jump(-7200)
    found = verify_ledger(bench.home, now=bench.clock.now())
    assert (found.ok, found.problem) == (True, None)


async def test_a_token_seen_to_have_expired_is_dropped_at_once(bench: Bench) -> None:
    """Between two looks of upkeep, whoever asked was told, and is told the same."""
    agent = await bench.agent()
    granted = await ask(bench, agent, CALENDAR)
    for seconds in (4000, -4000):
        bench.clock.jump_wall(seconds)
        found = await introspect(bench.broker, agent, granted.access_token)
        assert found.token is None


@pytest.mark.slow
async def test_a_clock_set_back_and_a_reboot_lengthen_no_life(bench: Bench) -> None:
    """What ended by the boot clock stays ended when only the wall clock is left."""
    agent = await bench.agent()
    granted = await ask(bench, agent, CALENDAR)
    async with looking_after(bench) as jump:
        await jump(-3000)
    bench.clock.advance(3601)
    await ask(bench, agent, CALENDAR)
    await bench.close()
    bench.clock.reboot("b1")
    again = await Bench.open(bench.home, bench.clock)
    try:
        found = await introspect(again.broker, agent, granted.access_token)
        assert found.token is None
        assert await again.events("audit.ambiguous") == []
    finally:
        await again.close()
