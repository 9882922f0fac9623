"""The agent list: what needs a person is first, and the cursor is an identity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import agents_of, status_of, stepups_of, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.state.agents import STILL, AgentView
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.mirror import AgentRoster, Mirror
from agentvault_tui.presenters.filters import Filter


class Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self) -> None:
        super().__init__(START)
        self.clock = ManualClock(START)
        self.mirror = Mirror(self.clock)
        self.view = AgentView(self.mirror)

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)

    def names(self) -> list[str]:
        return [self.mirror.agent_name(agent_id) for agent_id in self.view.order]


@pytest.fixture
def told() -> Told:
    return Told()


def test_what_needs_a_person_is_first(told: Told) -> None:
    """What misbehaves, what waits, what ends soon, the quiet, the revoked."""
    revoked = told.add_agent("0-revoked", "read:email", status="revoked")
    quiet = told.add_agent("1-quiet", "read:email")
    soon = told.add_agent("2-soon", "read:email")
    denied = told.add_agent("3-denied", "read:email")
    burst = told.add_agent("4-burst", "read:email")
    waiting = told.add_agent("5-waiting", "send:payment")
    told.add_token(soon, "read:email", 41)
    for _ in range(3):
        told.decide(denied, "read:email", "denied")
    for _ in range(12):
        told.decide(burst, "read:email", "allowed")
    told.decide(quiet, "read:email", "allowed")
    told.add_stepup(waiting)
    told.view.update()
    agents = (waiting, denied, burst, soon, quiet, revoked)
    assert told.names() == [agent["name"] for agent in agents]


def _minutes(told: Told, count: float) -> None:
    told.clock.advance(count * 60)
    told.now = told.clock.now()
    told.view.update()


@pytest.mark.parametrize("outcome", ["allowed", "denied"])
def test_what_misbehaved_stays_on_top_until_acknowledged(
    told: Told, outcome: str
) -> None:
    """Also once it is over; acknowledged, it comes back only by misbehaving anew."""
    told.add_agent("a-quiet", "read:email")
    bad = told.add_agent("b-bad", "read:email")

    def misbehave() -> None:
        for _ in range(12):
            told.decide(bad, "read:email", outcome)
        told.view.update()

    misbehave()
    assert told.names() == ["b-bad", "a-quiet"]
    _minutes(told, 30)
    assert told.names() == ["b-bad", "a-quiet"]
    found = told.view.look(bad["id"])
    assert (found.burst, found.denials) == (0, 0)
    assert found.misbehaved
    assert (found.misbehaved.most, found.misbehaved.last) == (12, START)
    misbehave()
    assert told.view.acknowledge(bad["id"])
    assert told.names() == ["a-quiet", "b-bad"]
    # What goes on is known; what begins later is not.
    misbehave()
    assert told.names() == ["a-quiet", "b-bad"]
    _minutes(told, 2)
    assert not told.view.acknowledge(bad["id"])
    _minutes(told, 60 * 24)
    misbehave()
    assert told.names() == ["b-bad", "a-quiet"]


def test_what_was_just_revoked_stays_near_what_misbehaves(told: Told) -> None:
    """Above the quiet, for ten minutes or until it is acknowledged."""
    one, two = (told.add_agent(n, "read:email") for n in ("0-one", "1-two"))
    waiting = told.add_agent("2-waiting", "read:email")
    bad = told.add_agent("3-bad", "read:email")
    told.add_agent("4-quiet", "read:email")
    told.add_stepup(waiting)
    for _ in range(3):
        told.decide(bad, "read:email", "denied")
    for agent in (one, two):
        told.add_event("agent.revoked", agent)
    told.view.update()
    assert told.names() == ["2-waiting", "3-bad", "0-one", "1-two", "4-quiet"]
    told.clock.advance(1)
    assert told.view.acknowledge(one["id"])
    assert told.names() == ["2-waiting", "3-bad", "1-two", "4-quiet", "0-one"]
    _minutes(told, 11)
    assert told.names() == ["2-waiting", "3-bad", "4-quiet", "0-one", "1-two"]


def test_a_burst_keeps_its_flag_while_it_lasts(told: Told) -> None:
    """Its own tokens become neither its habit nor, with others', the usual pace."""
    created = iso(START - timedelta(minutes=2))
    names = ("a-agent", "b-agent", "c-agent")
    agents = [told.add_agent(n, "read:email", created_at=created) for n in names]
    burst = agents[2]
    for minute in range(6):
        for second in range(0, 60, 2):
            told.decide(burst, "read:email", "allowed")
            if minute > 2 and second % 4 == 0:
                told.decide(agents[0], "read:email", "allowed")
                told.decide(agents[1], "read:email", "allowed")
            told.clock.advance(2)
            told.now = told.clock.now()
        told.view.update()
        assert told.view.look(burst["id"]).burst
        assert told.names()[0] == "c-agent"
    told.clock.advance(61)
    told.view.update()
    assert not told.view.look(burst["id"]).burst


def test_the_wait_that_ends_first_leads(told: Told) -> None:
    """Of two that wait for a person, the one with less time left leads."""
    late, early = told.add_agent("a", "x"), told.add_agent("b", "x")
    told.add_stepup(late, expires_at=iso(START + timedelta(seconds=90)))
    told.add_stepup(early, expires_at=iso(START + timedelta(seconds=30)))
    told.view.update()
    assert told.names() == ["b", "a"]


def test_a_pace_that_all_share_is_no_burst(told: Told) -> None:
    """Where every agent is busy, none is marked for it."""
    agents = [told.add_agent(name, "read:email") for name in "abc"]
    for _ in range(20):
        for agent in agents:
            told.decide(agent, "read:email", "allowed")
    told.view.update()
    assert not any(told.view.look(agent["id"]).burst for agent in agents)


def test_order_stays_while_the_operator_moves(told: Told) -> None:
    """A row does not jump under a moving cursor; it does when the operator rests."""
    told.add_agent("a", "x")
    last = told.add_agent("b", "x")
    told.view.update()
    told.view.move(0)
    told.add_stepup(last)
    told.view.update()
    assert told.names() == ["a", "b"]
    told.clock.advance(STILL + 1)
    told.view.update()
    assert told.names() == ["b", "a"]


def test_arrivals_wait_behind_a_count(told: Told) -> None:
    """New agents gather while the operator moves, and the list says how many."""
    told.add_agent("b", "x")
    told.view.update()
    told.view.move(0)
    told.add_agent("a", "x")
    told.view.update()
    assert (told.names(), told.view.held) == (["b"], 1)
    told.clock.advance(STILL + 1)
    told.view.update()
    assert (told.names(), told.view.held) == (["a", "b"], 0)


@pytest.mark.parametrize("moved", [False, True])
def test_the_cursor_waits_at_the_top_until_all_agents_are_read(
    told: Told, moved: bool
) -> None:
    """Of the first page it stands on no identity yet, unless the operator moved it."""
    rows = [told.add_agent(name, "read:email") for name in ("m", "z", "a")]
    mirror, view = told.mirror, told.view
    mirror.load(
        status_of({}), AgentRoster(mirror.intake, agents_of(rows[:2])), (), whole=False
    )
    view.update()
    assert (told.names(), view.index) == (["m", "z"], 0)
    if moved:
        view.put(1)
    mirror.load(status_of({}), AgentRoster(mirror.intake, agents_of(rows)), ())
    told.clock.advance(STILL + 1)
    view.update()
    assert (told.names(), view.index) == (["a", "m", "z"], 2 * moved)
    tell(mirror, "agent", told.add_agent("0", "read:email"))
    view.update()
    assert (told.names()[0], view.index) == ("0", 1 + 2 * moved)


def test_a_filter_hides_and_says_how_many(told: Told) -> None:
    """What is not asked for is hidden, counted, and back when the filter goes."""
    for name in ("calendar-agent", "email-agent", "mail-agent"):
        told.add_agent(name, "x")
    told.view.update()
    told.view.narrow(Filter.parse("mail"))
    assert (told.names(), told.view.hidden) == (["email-agent", "mail-agent"], 1)
    told.view.narrow(Filter.parse(""))
    assert told.view.hidden == 0


def test_the_agent_under_the_cursor_outlives_its_match(told: Told) -> None:
    """Revoked by someone else, it stays listed until the operator moves on."""
    agent = told.add_agent("a", "x")
    told.add_agent("b", "x")
    told.view.update()
    told.view.narrow(Filter.parse("status:active"))
    agent.update(status="revoked")
    told.send("agent", agent)
    told.view.update()
    assert told.view.cursor == agent["id"]
    assert agent["id"] in told.view.order


_WORLD = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("stepup"), st.integers(0, 9)),
        st.tuples(st.just("revoke"), st.integers(0, 9)),
        st.tuples(st.just("decide"), st.integers(0, 9)),
        st.tuples(st.just("token"), st.integers(1, 120)),
        st.tuples(st.just("pass"), st.integers(1, 70)),
        st.tuples(st.just("snapshot"), st.just(0)),
    ),
    max_size=30,
)


def _happen(told: Told, what: str, number: int) -> None:
    agents = list(told.agents.values())
    agent = agents[number % len(agents)]
    match what:
        case "add":
            told.add_agent(f"agent-{number}", "read:email")
        case "stepup":
            told.add_stepup(agent)
        case "revoke":
            agent.update(status="revoked", tokens=[])
            told.send("agent", agent)
            told.add_event("agent.revoked", agent)
        case "decide":
            told.decide(agent, "read:email", ("allowed", "denied")[number % 2])
        case "token":
            told.add_token(agent, "read:email", number)
        case "pass":
            told.clock.advance(number)
            told.now = told.clock.now()
            told.mirror.tick(told.now)
        case "snapshot":
            roster = AgentRoster(told.mirror.intake, agents_of(agents), told.head)
            told.mirror.load(status_of(told.status_shape()), roster, [])


@settings(max_examples=60)
@given(_WORLD, st.lists(st.integers(-3, 3), max_size=4), st.booleans())
def test_nothing_but_the_operator_moves_the_cursor(
    world: list[tuple[str, int]], moves: list[int], filtered: bool
) -> None:
    """Arrivals, expiries, revocations, reloads: the cursor's agent stays the same."""
    told = Told()
    for name in "abc":
        told.add_agent(name, "read:email")
    told.view.update()
    told.view.narrow(Filter.parse("status:active" if filtered else ""))
    for rows in moves:
        told.view.move(rows)
    chosen = told.view.cursor
    for what, number in world:
        _happen(told, what, number)
        told.view.update()
        assert told.view.cursor == chosen
        assert chosen in told.view.order
        assert len(set(told.view.order)) == len(told.view.order)
        listed = len(told.view.order) + told.view.hidden + told.view.held
        assert listed == len(told.mirror.agents)


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
