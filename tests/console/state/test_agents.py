"""The agent list: what needs a person is first, and the cursor is an identity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import agents_of, status_of, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.state.agents import STILL, AgentView
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.mirror import AgentRoster, Mirror


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
    agents = (denied, burst, waiting, soon, quiet, revoked)
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
    """Below it, above what waits, for ten minutes or until it is acknowledged."""
    one, two = (told.add_agent(n, "read:email") for n in ("0-one", "1-two"))
    waiting = told.add_agent("2-waiting", "read:email")
    bad = told.add_agent("3-bad", "read:email")
    told.add_stepup(waiting)
    for _ in range(3):
        told.decide(bad, "read:email", "denied")
    for agent in (one, two):
        told.add_event("agent.revoked", agent)
    told.view.update()
    assert told.names() == ["3-bad", "0-one", "1-two", "2-waiting"]
    told.clock.advance(1)
    assert told.view.acknowledge(one["id"])
    assert told.names() == ["3-bad", "1-two", "2-waiting", "0-one"]
    _minutes(told, 11)
    assert told.names() == ["3-bad", "2-waiting", "0-one", "1-two"]


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


def test_the_longest_wait_is_first(told: Told) -> None:
    """Of two that wait for a person, the one with less time left leads."""
    late, early = told.add_agent("a", "x"), told.add_agent("b", "x")
    told.add_stepup(late, requested_at=iso(START))
    told.add_stepup(early, requested_at=iso(START - timedelta(seconds=90)))
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
