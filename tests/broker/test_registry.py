"""What the registry gives out: only what is alive, and for one taker."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.ledger_kit import agent, token
from support.manual_clock import ManualClock

from agentvault_tui.broker.registry import Registry
from agentvault_tui.clock import Deadline
from agentvault_tui.ledger import Panic
from agentvault_tui.model import (
    AgentId,
    AgentStatus,
    StepUpId,
    Token,
    TokenId,
    TokenKind,
)


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
    registry.revocations.panic = Panic(True, clock.now(), "olga", "drill")
    assert registry.token(held.sha256) is None
    registry.revocations.panic = None
    assert registry.token(held.sha256) is held
    registry.put_agent(agent(status=AgentStatus.REVOKED))
    assert registry.token(held.sha256) is None


def test_of_all_who_drop_a_token_exactly_one_gets_true(
    registry: Registry, held: Token
) -> None:
    """The second is told that it was not there: a redemption is exactly one."""
    twin = held._replace()
    assert registry.drop_token(held)
    assert not registry.drop_token(twin)
    assert registry.token(held.sha256) is None
    assert registry.elevated(StepUpId("sup_1")) is None


class HeldMachine(RuleBasedStateMachine):
    """Tokens come, go and end, with clocks that jump; a plain list is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(datetime(2026, 11, 24, 10, tzinfo=UTC))
        self.registry = Registry(self.clock)
        self.registry.put_agent(agent())
        self.model: dict[str, Token] = {}
        self.made = 0

    @rule(ttl=st.sampled_from([1, 60, 300, 3600]), elevated=st.booleans())
    def issue(self, ttl: int, elevated: bool) -> None:
        self.made += 1
        one = token(self.clock)._replace(
            id=TokenId(f"tok_{self.made}"),
            sha256=f"{self.made:064x}",
            kind=TokenKind.ELEVATED if elevated else TokenKind.STANDARD,
            expires=Deadline.after(self.clock, ttl),
            stepup_id=StepUpId(f"sup_{self.made}") if elevated else None,
        )
        self.registry.put_token(one)
        self.model[one.id] = one

    @rule(number=st.integers(0, 50))
    def drop(self, number: int) -> None:
        if self.model:
            one = list(self.model.values())[number % len(self.model)]
            alive = not one.expires.passed(self.clock)
            assert self.registry.drop_token(one) or not alive
            assert not self.registry.drop_token(one)
            del self.model[one.id]

    @rule(seconds=st.sampled_from([0.5, 30, 400, 4000]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-4000, -30, 30, 4000]))
    def set_clock(self, seconds: float) -> None:
        self.forget_ended()
        self.clock.jump_wall(seconds)

    @rule()
    def cut(self) -> None:
        self.forget_ended()
        assert len(self.registry.cut_tokens(agent().id)) == len(self.model)
        self.model.clear()

    @rule()
    def cut_all(self) -> None:
        self.forget_ended()
        assert self.registry.cut_all_tokens()() == len(self.model)
        self.model.clear()

    @rule()
    def sweep(self) -> None:
        list(self.registry.sweep())

    @invariant()
    def they_agree(self) -> None:
        self.forget_ended()
        held = self.registry.held(agent().id)
        ends = [one.expires.wall for one in held]
        assert {one.id for one in held} == set(self.model)
        assert ends == sorted(ends)
        assert len(held) == len(self.model)
        assert held.elevated == sum(
            one.kind is TokenKind.ELEVATED for one in self.model.values()
        )
        for one in self.model.values():
            assert self.registry.token(one.sha256) is one
            if one.stepup_id is not None:
                assert self.registry.elevated(one.stepup_id) is one

    def forget_ended(self) -> None:
        """Look, so that both sides let go of what has ended before the clock is set."""
        self.registry.held(agent().id)
        self.model = {
            name: one
            for name, one in self.model.items()
            if not one.expires.passed(self.clock)
        }


TestHeldTokens = HeldMachine.TestCase
TestHeldTokens.settings = settings(max_examples=40, stateful_step_count=30)


@pytest.mark.parametrize("text", ["a" * 4000, "\U0001f600" * 4000])
@pytest.mark.parametrize("member", ["resource", "scope", "authorization_details"])
def test_an_agents_texts_count_for_what_they_take(
    registry: Registry,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    member: str,
    text: str,
) -> None:
    """However it spends the room it has, an agent's tokens end within it."""
    cap = 2_000_000
    monkeypatch.setattr("agentvault_tui.broker.registry.HELD_CAP", cap)
    made, taken = token(clock), 0
    for number in range(1000):
        if not registry.may_hold_more(made.agent_id, 10**6):
            break
        own = {member: f"{text}{number}"}
        one = made._replace(id=f"tok_{number}", sha256=f"{number}", **own)  # type: ignore[arg-type]
        registry.put_token(one)
        taken += sys.getsizeof(own[member])
    assert 0 < taken <= cap * 1.1


def test_agents_together_hold_no_more_than_there_is_room_for(
    registry: Registry, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past it who holds most gets no more, and who holds little is not shut out."""
    monkeypatch.setattr("agentvault_tui.broker.registry.ALL_CAP", 100_000)
    made = token(clock)
    for number in range(200):
        agent = AgentId("agt_few" if number % 20 == 0 else f"agt_{number % 3}")
        one = made._replace(id=f"tok_{number}", sha256=f"{number}", agent_id=agent)  # type: ignore[arg-type]
        registry.put_token(one)
        clock.advance(1)
    assert not any(registry.may_hold_more(AgentId(f"agt_{n}"), 10**6) for n in range(3))
    assert registry.may_hold_more(AgentId("agt_few"), 10**6)
    assert registry.may_hold_more(AgentId("agt_new"), 10**6)
    for number in range(200):
        registry.cut_tokens(AgentId(f"agt_{number % 3}"))
    clock.advance(1)
    assert registry.may_hold_more(AgentId("agt_few"), 10**6)
