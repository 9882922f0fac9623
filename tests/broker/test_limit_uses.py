"""What windows hold is exactly what was counted, at every moment of any history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.manual_clock import ManualClock
from support.policies import CATALOGUE, ENVIRONMENT, action

from agentvault_tui.broker.limit_uses import LimitUses
from agentvault_tui.clock import iso
from agentvault_tui.ledger import CountedUse
from agentvault_tui.model import Agent, Draft
from agentvault_tui.policy import Inputs, LimitSet

START = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
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
LIMITS = LimitSet.parse(TEXT, "limits.toml", CATALOGUE)
AGENTS = ("agt_1", "agt_2")
RESOURCES = (None, "x:1", "x:2")


def agent_called(agent_id: str) -> Agent:
    return Agent(
        id=agent_id,  # type: ignore[arg-type]
        client_id=agent_id,
        name=agent_id,
        owner="o",
        purpose="",
        scopes=("send:payment",),
        created_at=START,
    )


class Chain:
    """What a ledger would give back: the uses that were recorded."""

    def __init__(self) -> None:
        self.uses: list[CountedUse] = []
        self.latest: datetime | None = None

    async def counted(
        self, within: timedelta
    ) -> AsyncIterator[tuple[datetime | None, list[CountedUse], bool]]:
        latest = self.latest or START
        last = [use for use in self.uses if use.counted["at"] > iso(latest - within)]
        for use in (*last, None):
            yield latest, [] if use is None else [use], True


class Windows(RuleBasedStateMachine):
    """Requests in any order against a list of what was counted, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.chain = ManualClock(START), Chain()
        self.latest, self.number = START, 0
        self.counted: list[tuple[datetime, str, str | None, int]] = []
        self.pending: dict[str, tuple[datetime, str, str | None, int, Any]] = {}
        self.uses = self.started()

    def teardown(self) -> None:
        self.loop.close()

    def started(self) -> LimitUses:
        async def start() -> LimitUses:
            uses = LimitUses(self.clock, self.chain)  # type: ignore[arg-type]
            uses.define(LIMITS)
            await uses.ready()
            return uses

        return self.loop.run_until_complete(start())

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
        """Reserve where it fits; the model says whether it does."""
        now = self.now()
        held = self.uses.standings(LIMITS.limits, self.inputs(agent, resource, amount))
        environment = ENVIRONMENT._replace(limits=held)
        inputs = self.inputs(agent, resource, amount)._replace(environment=environment)
        fits = LIMITS.answer(inputs) is None
        assert fits is self.fits(now, agent, resource, amount)
        if not fits:
            return
        self.number += 1
        counted = self.uses.stamp(LIMITS.counted(inputs))
        self.uses.reserve(f"dec_{self.number}", agent, counted)
        self.pending[f"dec_{self.number}"] = (now, agent, resource, amount, counted)

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
            self.commit(key, how)

    def commit(self, key: str, how: str) -> None:
        at, agent, resource, amount, counted = self.pending.pop(key)
        done = self.loop.create_future()
        draft: Draft = SimpleNamespace(decision_id=key)  # type: ignore[assignment]
        self.uses.submitted(draft, done)
        self.uses.release(key)  # too late: its record is under way
        if how == "fail":
            done.set_exception(OSError("disk"))
        else:
            done.cancel() if how == "cancel" else done.set_result(())
            self.counted.append((at, agent, resource, amount))
            self.chain.uses.append(CountedUse(agent, key, counted))
            self.chain.latest = max(self.chain.latest or START, at)
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def restarts(self) -> None:
        """Kill: what is not durable is given back, what is stays counted."""
        self.pending.clear()
        self.latest = max(self.chain.latest or START, START)
        self.uses = self.started()

    @rule()
    def sweeps(self) -> None:
        self.uses.sweep()

    def now(self) -> datetime:
        self.latest = max(self.latest, self.clock.now())
        return self.latest

    def held(
        self, now: datetime, within: int, agent: str | None, resource: Any, what: int
    ) -> int:
        """Sum what the model has in a window: 1 or the amount of each use."""
        rows = [row[:4] for row in self.pending.values()]
        inside = [r for r in self.counted if r[0] > now - timedelta(seconds=within)]
        return sum(
            (1, row[3])[what]
            for row in (*rows, *inside)
            if agent in {None, row[1]} and resource in {"any", row[2]}
        )

    def fits(self, now: datetime, agent: str, resource: str | None, n: int) -> bool:
        return (
            self.held(now, 60, agent, "any", 0) + 1 <= 5
            and self.held(now, 90, None, resource, 1) + n <= 100
            and self.held(now, 30, None, "any", 0) + 1 <= 4
        )

    @invariant()
    def windows_hold_what_was_counted(self) -> None:
        now = self.now()
        for agent in AGENTS:
            for resource in RESOURCES:
                found = self.uses.standings(
                    LIMITS.limits, self.inputs(agent, resource, 1)
                )
                assert [count for count, _ in found.values()] == [
                    self.held(now, 60, agent, "any", 0),
                    self.held(now, 90, None, resource, 1),
                    self.held(now, 30, None, "any", 0),
                ]


Windows.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestWindows = pytest.mark.slow(Windows.TestCase)


@pytest.mark.parametrize("gone", [0, 3, 15])
def test_the_same_request_fits_once_the_seconds_it_is_told_are_over(gone: int) -> None:
    """In whole seconds, rounded up; and not one second before."""
    machine = Windows()
    try:
        for second in (0, 7, 20, 40, 41):
            moment = START + timedelta(seconds=second, milliseconds=300)
            machine.clock.jump_wall((moment - machine.clock.now()).total_seconds())
            machine.asks("agt_1", RESOURCES[second % 3], 1)
            for key in list(machine.pending):
                machine.commit(key, "commit")
            machine.uses.sweep()
        asked = machine.inputs("agt_1", None, 1)
        machine.clock.jump_wall(gone)
        wait = machine.uses.retry_after(asked)
        assert wait is not None
        now = machine.now()
        assert len(machine.counted) == 5
        assert not machine.fits(now + timedelta(seconds=wait - 1), "agt_1", None, 1)
        assert machine.fits(now + timedelta(seconds=wait), "agt_1", None, 1)
        assert machine.uses.retry_after(machine.inputs("agt_1", None, 101)) is None
    finally:
        machine.teardown()
