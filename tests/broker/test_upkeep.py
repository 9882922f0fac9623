"""What happens with time goes on, whatever else does not."""

from __future__ import annotations

import asyncio

import pytest
from support.bench import Bench
from support.stepups import ask, hold, latched

from agentvault_tui.broker.answers import Expired
from agentvault_tui.broker.upkeep import upkeep
from agentvault_tui.broker.usecases.redeem import poll
from agentvault_tui.broker.usecases.stepup import expire_due
from agentvault_tui.clock import Deadline
from agentvault_tui.model import StepUpStatus, Token, TokenId, TokenKind


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
    looking.cancel()
    assert bench.broker.recounted


async def test_a_poll_ends_its_own_request_and_leaves_the_rest_to_upkeep(
    bench: Bench,
) -> None:
    """However many wait, one poll looks at one."""
    asking, asked = await hold(bench)
    _, other = await hold(bench, "other")
    bench.clock.advance(301)
    assert isinstance(await poll(bench.broker, asking, asked.id), Expired)
    assert bench.broker.registry.stepup(other.id).status is StepUpStatus.PENDING
    await expire_due(bench.broker)
    assert bench.broker.registry.stepup(other.id).status is StepUpStatus.EXPIRED
