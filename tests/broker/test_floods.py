"""An agent's refusals have a budget; past it they cost one event in ten seconds."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from agentvault_tui.broker.floods import BURST, RATE, SPAN, Floods
from agentvault_tui.model import AgentId

START = datetime(2026, 11, 24, 10, tzinfo=UTC)
ONE, OTHER = AgentId("agt_1"), AgentId("agt_2")


def flooding(clock: ManualClock) -> Floods:
    floods = Floods(clock)
    for _ in range(BURST + 1):
        assert not floods.limited(ONE)
        floods.refused(ONE)
    return floods


def test_no_agent_within_its_budget_is_limited(clock: ManualClock) -> None:
    """Twenty refusals a second may go on for good, and are told by their own events."""
    floods = Floods(clock)
    for _ in range(40 * SPAN):
        for _ in range(RATE):
            assert not floods.limited(ONE)
            floods.refused(ONE)
        clock.advance(1)
        assert list(floods.due()) == []


def test_over_twenty_refusals_a_second_for_ten_seconds_is_flooding(
    clock: ManualClock,
) -> None:
    """On average: bursts count as well, a pause in between does too."""
    floods = Floods(clock)
    for _ in range(SPAN):
        for _ in range(RATE + 1):
            assert not floods.limited(ONE)
            floods.refused(ONE)
        clock.advance(1)
    floods.refused(ONE)
    assert floods.limited(ONE)


def test_a_burst_long_ago_is_not_held_against_an_agent(clock: ManualClock) -> None:
    """What was refused a minute ago makes no flood of what is refused now."""
    floods = Floods(clock)
    for _ in range(BURST):
        floods.refused(ONE)
    clock.advance(60)
    for _ in range(RATE):
        floods.refused(ONE)
    assert not floods.limited(ONE)


def test_bursts_with_pauses_are_within_the_budget_too(clock: ManualClock) -> None:
    """Ten seconds of rest give back what may be refused in ten seconds, no more."""
    floods, decided = Floods(clock), 0
    for _ in range(60):
        for _ in range(BURST + 1):
            if not floods.limited(ONE):
                decided += 1
                floods.refused(ONE)
        clock.advance(SPAN)
        list(floods.due())
    assert decided <= BURST + RATE * 60 * SPAN + 60


def test_a_flooding_agent_is_limited_until_it_keeps_still(clock: ManualClock) -> None:
    """However slowly it goes on; another agent is not touched by it."""
    floods = flooding(clock)
    for _ in range(5):
        assert floods.limited(ONE)
        assert not floods.limited(OTHER)
        clock.advance(SPAN - 1)
    assert floods.limited(ONE)
    clock.advance(SPAN)
    assert not floods.limited(ONE)


def test_flooding_is_recorded_at_once_then_every_ten_seconds_with_a_count(
    clock: ManualClock,
) -> None:
    """Every refused request is in one of the counts, and at the end none is kept."""
    floods = flooding(clock)
    assert list(floods.due()) == [(ONE, BURST + 1)]
    told = []
    for second in range(1, 3 * SPAN + 1):
        clock.advance(1)
        for _ in range(100):
            assert floods.limited(ONE)
        told += [(second, count) for _, count in floods.due()]
    assert told == [(10, 1000), (20, 1000), (30, 1000)]
    assert floods.limited(ONE)
    clock.advance(SPAN)
    assert list(floods.due()) == [(ONE, 1)]
    clock.advance(SPAN)
    assert list(floods.due()) == []
    assert not floods.limited(ONE)


def test_a_count_that_could_not_be_recorded_is_told_later(clock: ManualClock) -> None:
    """The event may fail; what it said is in the next."""
    floods = flooding(clock)
    ((agent, count),) = floods.due()
    assert floods.limited(ONE)
    floods.tell_later(agent, count)
    assert list(floods.due()) == [(ONE, count + 1)]


@given(st.lists(st.tuples(st.floats(0, 12), st.booleans()), max_size=600))
def test_no_refusal_is_told_twice_or_lost(steps: list[tuple[float, bool]]) -> None:
    """The counts of a flood add up to the requests answered 429 and what began it."""
    clock = ManualClock(START)
    floods, limited, told = flooding(clock), 0, 0
    for pause, look in steps:
        clock.advance(pause)
        if look:
            told += sum(count for _, count in floods.due())
        if floods.limited(ONE):
            limited += 1
    clock.advance(SPAN + 1)
    told += sum(count for _, count in floods.due())
    assert told == BURST + 1 + limited
