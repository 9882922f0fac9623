"""What windows hold is exactly what events count, at every moment of any history."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.manual_clock import ManualClock
from support.policies import CATALOGUE, ENVIRONMENT, action

from agentvault_tui.broker import limit_uses
from agentvault_tui.broker.limit_uses import LimitUses
from agentvault_tui.clock import parse_iso
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, verify_ledger
from agentvault_tui.model import (
    Actor,
    ActorKind,
    Agent,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
)
from agentvault_tui.policy import Inputs, Limit, LimitSet

START = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any event: a ledger without one has seen no time."""
TEXT = """
[[limits]]
id = "count"
scopes = ["send:payment"]
within = "60s"
count = 5
[[limits]]
id = "sum"
scopes = ["send:payment"]
per = "resource"
within = "90s"
amount = 100
currency = "USD"
[[limits]]
id = "all"
scopes = ["send:payment"]
per = "all"
within = "30s"
count = 4
"""
EDITS = (
    TEXT,
    TEXT.replace("60s", "15s").replace("90s", "300s"),
    TEXT.replace('"all"\nwithin', '"agent"\nwithin').replace('per = "resource"\n', ""),
    TEXT.replace('amount = 100\ncurrency = "USD"', "count = 7").replace("= 5", "= 9"),
    "",
)
LIMITS = LimitSet.parse(TEXT, "limits.toml", CATALOGUE)
AGENTS = ("agt_1", "agt_2")
RESOURCES = (None, "x:1", "x:2")
_T = TypeVar("_T")


def agent_called(agent_id: str) -> Agent:
    return Agent(
        id=AgentId(agent_id),
        client_id=agent_id,
        name=agent_id,
        owner="o",
        purpose="",
        scopes=("send:payment",),
        created_at=START,
    )


def draft_of(key: str, agent: str, counted: dict[str, Any]) -> Draft:
    return Draft(
        EventType.TOKEN_DECISION,
        Actor(ActorKind.AGENT, agent, agent),
        agent_id=AgentId(agent),
        outcome=Outcome.ALLOWED,
        decision_id=DecisionId(key),
        detail={"counted": counted},
    )


class Windows(RuleBasedStateMachine):
    """Requests, edits and restarts in any order, against a count over all events."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="h-")
        self.home = Home.locate(Path(self.folder.name) / "home")
        self.home.prepare()
        self.runner = asyncio.Runner()
        self.clock = ManualClock(START)
        self.limits = LIMITS
        self.latest, self.recorded, self.number = START, EPOCH, 0
        self.pending: dict[str, tuple[str, dict[str, Any]]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        """The agent and ``detail.counted`` of each event, read back from the ledger."""
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()
        assert verify_ledger(self.home).ok
        self.folder.cleanup()

    async def start(self) -> None:
        self.ledger = await Ledger.open(self.home, clock=self.clock)
        assert not self.ledger.recounted
        self.uses = LimitUses(self.clock, self.ledger)
        self.uses.define(self.limits)

    def inputs(self, agent_id: str, resource: str | None, amount: int) -> Inputs:
        asked = action("send:payment", resource=resource, amount=amount, currency="USD")
        return Inputs.of(agent_called(agent_id), asked, ENVIRONMENT)

    @rule(seconds=st.integers(-300, 100))
    def clock_moves(self, seconds: int) -> None:
        self.clock.jump_wall(seconds)

    @rule(
        agent=st.sampled_from(AGENTS),
        resource=st.sampled_from(RESOURCES),
        amount=st.integers(0, 60),
    )
    def asks(self, agent: str, resource: str | None, amount: int) -> None:
        """Reserve where it fits; the count over all events says whether it does."""
        limits = self.limits
        held = self.uses.standings(limits.limits, self.inputs(agent, resource, amount))
        environment = ENVIRONMENT._replace(limits=held)
        inputs = self.inputs(agent, resource, amount)._replace(environment=environment)
        fits = limits.answer(inputs) is None
        assert fits is self.fits(self.now(), inputs)
        if not fits or not limits.limits:
            return
        self.number += 1
        counted = self.uses.stamp(limits.counted(inputs))
        self.uses.reserve(f"dec_{self.number}", agent, counted)
        self.pending[f"dec_{self.number}"] = agent, counted

    @rule(data=st.data(), how=st.sampled_from(["commit", "fail", "refuse", "cancel"]))
    def ends(self, data: st.DataObject, how: str) -> None:
        """Count, or give back, one that is reserved."""
        if not self.pending:
            return
        key = data.draw(st.sampled_from(sorted(self.pending)))
        if how == "refuse":
            del self.pending[key]
            self.uses.release(key)
        else:
            self.run(self.commit(key, how))

    async def commit(self, key: str, how: str) -> None:
        agent, counted = self.pending.pop(key)
        draft = draft_of(key, agent, counted)
        if how == "fail":
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        else:
            done = self.ledger.commit(draft)
        self.uses.submitted(draft, done)
        self.uses.release(key)  # too late: its record is under way
        if how == "fail":
            done.set_exception(OSError("disk"))
            await asyncio.wait({done})
            done.exception()
            return
        await (asyncio.shield(done) if how == "cancel" else done)
        page = await self.ledger.events(EventQuery(after=0, limit=1000))
        self.recorded = max(one.time for one in page.events)
        self.events = [
            (str(e.agent_id), dict(e.detail["counted"])) for e in page.events
        ]

    @rule(text=st.sampled_from(EDITS))
    def edits(self, text: str) -> None:
        """Every limit has counted under its id, whatever else it was."""
        self.limits = LimitSet.parse(text, "limits.toml", CATALOGUE)
        self.uses.define(self.limits)

    @rule()
    def restarts(self) -> None:
        """What is not durable is given back, what is stays counted."""
        self.pending.clear()
        self.run(self.ledger.close())
        self.run(self.start())
        self.latest = self.recorded

    @rule()
    def sweeps(self) -> None:
        self.uses.sweep()

    def now(self) -> datetime:
        ats = [parse_iso(counted["at"]) for _, counted in self.events]
        self.latest = max(self.latest, self.clock.now(), *ats)
        return self.latest

    def held(self, now: datetime, limit: Limit, agent: str, resource: Any) -> int:
        """Sum the units that one window holds, over all events and what is reserved."""
        total, latest = 0, EPOCH
        rows = [(*row, False) for row in self.events]
        for who, counted, reserved in (
            *rows,
            *((*row, True) for row in self.pending.values()),
        ):
            used = counted["limits"].get(limit.id)
            if used is None or used.get("currency") != limit.currency:
                continue
            if limit.per == "agent" and who != agent:
                continue
            if limit.per == "resource" and counted["resource"] != resource:
                continue
            latest = max(latest, parse_iso(counted["at"]))
            if reserved or latest > now - limit.within:
                total += used["count" if limit.currency is None else "amount"]
        return total

    def fits(self, now: datetime, inputs: Inputs, after: int = 0) -> bool:
        now += timedelta(seconds=after)
        return all(
            self.held(now, one, inputs.who.id, inputs.facts.fold)
            + (one.units(inputs) or 0)
            <= one.most
            for one in self.limits.limits
        )

    @invariant()
    def windows_hold_what_was_counted(self) -> None:
        now = self.now()
        for agent in AGENTS:
            for resource in RESOURCES:
                inputs = self.inputs(agent, resource, 1)
                found = self.uses.standings(self.limits.limits, inputs)
                assert [count for count, _ in found.values()] == [
                    self.held(now, one, agent, inputs.facts.fold)
                    for one in self.limits.limits
                ]

    @rule()
    def all_are_listed_that_hold_something(self) -> None:
        now, found = self.now(), self.run(self.uses.all())
        for limit, key, used, left, frees_at in found:
            assert used == self.held(now, limit, key, key or None)
            assert left == max(0, limit.most - used)
            assert frees_at is None or now < frees_at <= now + limit.within

    @rule(agent=st.sampled_from(AGENTS), amount=st.integers(0, 100))
    def waits_as_told(self, agent: str, amount: int) -> None:
        """The same request fits after the seconds it is told, not one before."""
        inputs, now = self.inputs(agent, None, amount), self.now()
        wait = self.uses.retry_after(inputs)
        if self.pending or not self.limits.limits:
            return  # what is reserved leaves at a time that nobody knows
        assert wait is not None
        assert self.fits(now, inputs, wait)
        assert wait == 1 or not self.fits(now, inputs, wait - 1)


Windows.TestCase.settings = settings(max_examples=20, stateful_step_count=25)
TestWindows = pytest.mark.slow(Windows.TestCase)


@pytest.mark.parametrize("size", [3, 1000])
def test_long_windows_are_read_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However few uses are in memory at a time, counts and waits are the same."""
    monkeypatch.setattr(limit_uses, "_READ", size)
    monkeypatch.setattr(limit_uses, "_IN_MEMORY", size * 2)
    machine = Windows()
    machine.edits(TEXT.replace("= 5", "= 50").replace("= 4", "= 40"))
    try:
        for number in range(60):
            machine.clock.jump_wall(1.5)
            machine.asks(AGENTS[number % 2], RESOURCES[number % 3], number % 7)
            for key in sorted(machine.pending):
                machine.run(machine.commit(key, "commit"))
            if number % 20 == 19:
                machine.sweeps()
                machine.restarts()
            if number % 3 == 0:
                machine.windows_hold_what_was_counted()
                machine.waits_as_told(AGENTS[0], number % 100)
        machine.all_are_listed_that_hold_something()
        assert len(machine.events) == 60
    finally:
        machine.teardown()


def test_a_request_that_would_never_fit_is_told_no_time() -> None:
    """More than the whole window may hold."""
    machine = Windows()
    try:
        assert machine.uses.retry_after(machine.inputs("agt_1", None, 101)) is None
    finally:
        machine.teardown()
