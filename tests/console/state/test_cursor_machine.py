"""Whatever happens in whatever order, a key acts on the id the operator saw."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import agents_of, status_of, stepups_of, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.state.agents import AgentView
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.mirror import AgentRoster, Mirror

_NAMES = st.text("abc", min_size=1, max_size=3)
_PICK = st.integers(0, 30)
_FILTERS = st.sampled_from(
    ["", "a", "status:active", "status:waiting", "outcome:denied"]
)


class Operator(RuleBasedStateMachine):
    """An operator who looks, waits, and presses, while the broker does as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.mirror = Mirror(self.clock)
        self.view = AgentView(self.mirror)
        self.feed = EventWindow(self.mirror)
        self.told = _Told(self.mirror)
        self.seen: str | None = None
        self.event = 0

    @initialize()
    def some_agents(self) -> None:
        for name in ("a", "b", "c"):
            self.told.add_agent(name, "read:email")
        self.look()

    # What the broker does

    @rule(name=_NAMES)
    def arrives(self, name: str) -> None:
        self.told.add_agent(name, "read:email")

    @rule(pick=_PICK, outcome=st.sampled_from(["allowed", "denied", "escalated"]))
    def decides(self, pick: int, outcome: str) -> None:
        self.told.decide(self._agent(pick), "read:email", outcome)

    @rule(pick=_PICK, left=st.integers(1, 200))
    def grants(self, pick: int, left: int) -> None:
        self.told.add_token(self._agent(pick), "read:email", left)

    @rule(pick=_PICK)
    def escalates(self, pick: int) -> None:
        now = self.clock.now()
        self.told.add_stepup(
            self._agent(pick),
            requested_at=iso(now),
            expires_at=iso(now + timedelta(seconds=60)),
        )

    @rule(pick=_PICK, status=st.sampled_from(["expired", "denied", "redeemed"]))
    def ends(self, pick: int, status: str) -> None:
        if rows := list(self.told.stepups.values()):
            row = rows[pick % len(rows)]
            self.told.put_stepup({**row, "status": status})

    @rule(pick=_PICK, status=st.sampled_from(["active", "revoked"]))
    def stands(self, pick: int, status: str) -> None:
        self.told.put_agent({**self._agent(pick), "status": status})
        if status == "revoked":
            self.told.record("agent.revoked", self._agent(pick))

    @rule(seconds=st.sampled_from([0.25, 1.0, 6.0, 70.0]))
    def passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.told.now = self.clock.now()

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def jumps(self, seconds: float) -> None:
        self.clock.jump_wall(seconds)
        self.told.now = self.clock.now()

    @rule()
    def comes_back(self) -> None:
        """A broker that restarted: the console reads everything anew."""
        told = self.told
        roster = AgentRoster(
            self.mirror.intake, agents_of(told.agents.values()), told.head
        )
        stepups = stepups_of(told.stepups.values())
        self.mirror.load(status_of(told.status_shape()), roster, stepups)

    # What the operator does

    @rule()
    def look(self) -> None:
        """A pulse of the screen: what it shows afterwards is what is seen."""
        before = self.view.cursor
        self.mirror.tick(self.clock.now())
        self.view.update()
        self.feed.update()
        if before in self.mirror.agents:
            assert self.view.cursor == before
        self.seen = self.view.cursor

    @rule(rows=st.integers(-3, 3))
    def move(self, rows: int) -> None:
        shown = list(self.view.order)
        at = shown.index(self.seen) if self.seen in shown else 0
        self.view.move(rows)
        # Moving goes through the rows as they were shown, not as they would be now.
        self.seen = shown[min(max(at + rows, 0), len(shown) - 1)] if shown else None
        assert self.view.cursor == self.seen

    @rule(text=_FILTERS)
    def narrow(self, text: str) -> None:
        self.view.narrow(Filter.parse(text))
        self.seen = self.view.cursor

    @rule(rows=st.integers(-3, 1))
    def hold(self, rows: int) -> None:
        self.feed.move(rows)
        under = self.feed.under_cursor
        self.event = under.seq if under else 0

    @rule()
    def follow(self) -> None:
        self.feed.resume()
        self.event = 0

    # What must hold at any moment a key may come

    @invariant()
    def a_key_acts_on_what_was_seen(self) -> None:
        assert self.view.cursor == self.seen
        if self.seen is not None and self.view.order:
            assert self.view.order[self.view.index] == self.seen

    @invariant()
    def a_held_event_stays(self) -> None:
        under = self.feed.under_cursor
        if self.event and not self.feed.follow and under is not None:
            assert under.seq == self.event

    @invariant()
    def nothing_is_listed_twice(self) -> None:
        assert len(set(self.view.order)) == len(self.view.order)

    def _agent(self, pick: int) -> dict[str, Any]:
        agents = list(self.told.agents.values())
        return agents[pick % len(agents)]


class _Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(START)
        self.mirror = mirror

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)


TestOperator = pytest.mark.slow(Operator.TestCase)
TestOperator.settings = settings(max_examples=60, stateful_step_count=40)
