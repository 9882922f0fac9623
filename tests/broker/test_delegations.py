"""What was passed on lives while all that it came from does, over any story."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import latched

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.clock import Deadline
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.model import (
    Action,
    Agent,
    AgentId,
    AgentStatus,
    Token,
    TokenId,
    TokenKind,
)

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
AGENTS = [AgentId(f"agt_{n}") for n in range(5)]
READ = Action(("read:calendar",), "read:calendar")
SCOPE = frozenset({"read:calendar"})


class Trees(RuleBasedStateMachine):
    """Tokens are issued, passed on, dropped, cut and expire; a plain list is right."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.registry = Registry(self.clock)
        for agent_id in AGENTS:
            self.registry.put_agent(
                Agent(agent_id, agent_id, agent_id, "o", "", SCOPES, START)
            )
        self.tokens: list[Token] = []
        self.ended: set[TokenId] = set()

    # The model

    def alive(self, token: Token) -> bool:
        above = {one.id: one for one in self.tokens}
        line: Token | None = token
        while line is not None:
            if line.id in self.ended or line.expires.passed(self.clock):
                return False
            line = above[line.parent_id] if line.parent_id else None
        return True

    @property
    def living(self) -> list[Token]:
        return [token for token in self.tokens if self.alive(token)]

    # What happens

    def _issue(self, agent_id: AgentId, seconds: float, parent: Token | None) -> None:
        number = len(self.tokens)
        token = Token(
            TokenId(f"tok_{number}"),
            f"hash{number}",
            agent_id,
            "read:calendar",
            TokenKind.STANDARD,
            self.clock.now(),
            Deadline.after(self.clock, seconds),
            parent_id=parent.id if parent else None,
            chain=(*parent.chain, parent.agent_id) if parent else (),
        )
        self.registry.put_token(token, parent)
        self.tokens.append(token)

    @rule(agent=st.sampled_from(AGENTS), seconds=st.sampled_from([60.0, 600.0]))
    def issue(self, agent: AgentId, seconds: float) -> None:
        self._issue(agent, seconds, None)

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def pass_on(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(self.living))
        others = [a for a in AGENTS if a not in (*parent.chain, parent.agent_id)]
        if others:
            left = parent.expires.remaining(self.clock)
            self._issue(data.draw(st.sampled_from(others)), left, parent)

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.living))
        self.ended.add(token.id)
        assert self.registry.drop_token(token)
        self._below_ends([token])

    @rule(agent=st.sampled_from(AGENTS))
    def cut(self, agent: AgentId) -> None:
        cut = [one for one in self.living if one.agent_id == agent]
        self.ended |= {one.id for one in cut}
        passed_on = self.registry.delegations.passed_on_by(agent)
        self.registry.cut_tokens(agent)
        # In force before anything below was looked at.
        assert not any(map(self.registry.lives, passed_on))
        below = self.registry.delegations.below(passed_on)
        self.registry.end_tokens([*passed_on, *below])
        for _ in self.registry.forget_cut():
            pass

    def _below_ends(self, tokens: list[Token]) -> None:
        below = self.registry.delegations.below(tokens)
        assert not any(map(self.registry.lives, below))
        self.registry.end_tokens(below)

    @rule(seconds=st.sampled_from([1.0, 59.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.registry.end_expired()

    @invariant()
    def what_lives_is_what_the_list_says(self) -> None:
        for token in self.tokens:
            found = self.registry.token(token.sha256)
            assert (found is not None) is self.alive(token)

    @invariant()
    def counts_are_of_what_lives(self) -> None:
        known = self.registry.delegations
        below = [token for token in self.living if token.chain]
        assert len(known) == len(below)
        assert known.under == Counter(a for one in below for a in one.chain)
        for agent in AGENTS:
            given = Counter(t.agent_id for t in below if t.chain[-1] == agent)
            assert known.given.get(agent, Counter()) == given
        assert self.registry.orphans() == []


SCOPES = ("read:calendar",)
TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def passed_on(bench: Bench) -> tuple[Agent, Agent, Token, Token]:
    """Return two agents, the first one's token, and what it passed on."""
    first = await bench.agent("first", "read:calendar")
    second = await bench.agent("second", "read:contacts")
    broker = bench.broker
    await change_delegates(broker, first.id, second.id, SCOPE, OPERATOR)
    mine = await request_token(broker, first, READ, resource=None, details=None)
    assert isinstance(mine, Granted)
    given = await pass_on(
        broker, first, mine.token, second, READ, resource=None, details=None
    )
    assert isinstance(given, Granted)
    return first, second, mine.token, given.token


async def test_a_crash_between_parent_and_child_leaves_no_child(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's end is on disk, the child's is not: a start ends and records it."""
    first, second, _, child = await passed_on(bench)

    async def killed(*_: Any) -> None:
        return None

    monkeypatch.setattr(bench.broker, "record_ended", killed)
    await revoke_agent(bench.broker, first.id, "", OPERATOR)
    assert await bench.events("token.revoked") == []
    async with bench.restarted() as again:
        assert again.broker.registry.tokens_of(second.id) == []
        (event,) = await again.events("token.revoked")
        assert (event.agent_id, event.reason) == (second.id, "parent_ended")
        assert event.detail["token_id"] == child.id
    assert verify_ledger(bench.home, now=bench.clock.now()).ok


async def test_a_delegation_ended_while_nothing_can_be_written_stays_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal keeps it: after a restart nothing is passed on, and nothing lives."""
    first, second, _, _ = await passed_on(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        await change_delegates(bench.broker, first.id, second.id, frozenset(), OPERATOR)
        assert bench.broker.recording.cuts.waiting
    async with bench.restarted() as again:
        registry = again.broker.registry
        assert registry.agent(first.id).delegates == ()
        assert registry.agent(first.id).status is AgentStatus.ACTIVE
        assert registry.tokens_of(second.id) == []
        await record_missed(again.broker)
