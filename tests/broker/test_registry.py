"""What the registry gives out: only what is alive, and for one taker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.ledger_kit import agent, token

from agentvault_tui.broker.registry import Registry
from agentvault_tui.clock import ManualClock
from agentvault_tui.ledger import Panic
from agentvault_tui.model import AgentStatus, StepUpId, Token


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 24, 10, tzinfo=UTC))


@pytest.fixture
def registry(clock: ManualClock) -> Registry:
    registry = Registry(clock)
    registry.put_agent(agent())
    return registry


@pytest.fixture
def held(registry: Registry, clock: ManualClock) -> Token:
    """An elevated token that lives for an hour."""
    held = token(clock)
    registry.put_token(held)
    return held


def test_a_live_token_is_found_by_its_hash_and_its_approval(
    registry: Registry, held: Token
) -> None:
    """Until it ends, and by nothing else."""
    assert registry.token(held.sha256) is held
    assert registry.elevated(StepUpId("sup_1")) is held
    assert registry.token("cd" * 32) is None


def test_an_expired_token_is_not_found(
    registry: Registry, held: Token, clock: ManualClock
) -> None:
    """Neither by hash nor by approval, though no sweep has come by yet."""
    clock.advance(3600)
    assert registry.token(held.sha256) is None
    assert registry.elevated(StepUpId("sup_1")) is None
    assert registry.tokens_of(held.agent_id) == []


def test_a_token_of_an_agent_that_is_not_served_is_not_found(
    registry: Registry, held: Token, clock: ManualClock
) -> None:
    """Whatever cut its agent off, and also where the token itself was overlooked."""
    registry.panic = Panic(True, clock.now(), "olga", "drill")
    assert registry.token(held.sha256) is None
    registry.panic = None
    assert registry.token(held.sha256) is held
    registry.put_agent(agent(status=AgentStatus.REVOKED))
    assert registry.token(held.sha256) is None


def test_of_all_who_drop_a_token_one_has_it(registry: Registry, held: Token) -> None:
    """The second is told that it was not there: a redemption is exactly one."""
    twin = replace(held)
    assert registry.drop_token(held)
    assert not registry.drop_token(twin)
    assert registry.token(held.sha256) is None
    assert registry.elevated(StepUpId("sup_1")) is None
