"""No agent takes more than its share of a place that another agent needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.web.shares import UNUSED_S, SharedPlace, SharedPlaces


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


def fill(places: SharedPlaces, user: str, ended: list[str] | None = None) -> int:
    """Take all that a user gets; return how many those were."""
    taken = 0
    while places.take(user, lambda: None if ended is None else ended.append(user)):
        taken += 1
    return taken


def test_an_eighth_and_at_least_two_are_an_agents_own(now: Now) -> None:
    """A share is an eighth of the places; of few places it is two."""
    assert SharedPlaces(128, now).share == 16
    assert SharedPlaces(4, now).share == 2
    assert SharedPlaces(2**28, now, 2**18).share == 2**25


def test_others_had_it_lately_within_ten_seconds() -> None:
    """The time is the documented one."""
    assert UNUSED_S == 10


def test_places_that_no_other_agent_used_lately_are_lent(now: Now) -> None:
    """A place that another agent used within ten seconds is not lent."""
    places = SharedPlaces(16, now)
    other = places.take("other", lambda: None)
    assert other is not None
    other.leave()
    assert fill(places, "one") == 15
    now.time += UNUSED_S
    assert fill(places, "one") == 1
    assert places.taken == places.total


def test_a_lent_place_ends_when_another_agent_needs_it(now: Now) -> None:
    """The latest place of the agent with most is ended, in the same turn."""
    places, ended = SharedPlaces(16, now), list[str]()
    assert fill(places, "one", ended) == 16
    assert places.take("two", lambda: None) is not None
    assert (ended, places.count("one"), places.taken) == (["one"], 15, 16)
    assert places.take("two", lambda: None) is not None
    assert places.take("two", lambda: None) is None
    assert places.count("one") == 14


def test_places_within_a_share_never_end(now: Now) -> None:
    """Eight agents with their shares shut a ninth out, and none of each other."""
    places, ended = SharedPlaces(16, now), list[str]()
    for name in "abcdefgh":
        for _ in range(2):
            assert places.take(name, lambda: ended.append("x")) is not None
    assert places.take("ninth", lambda: None) is None
    assert ended == []


def test_what_cannot_be_ended_leaves_a_share_free(now: Now) -> None:
    """Bytes that were lent do not come back, so that another share stays free."""
    room = SharedPlaces(800, now)
    assert room.reserve("one", 700)
    assert not room.reserve("one", 1)
    assert room.reserve("two", 100)
    assert not room.reserve("three", 1)
    room.release("one", 700)
    assert room.reserve("three", 100)
    assert not room.reserve("three", 600)  # within ten seconds another had those
    now.time += UNUSED_S
    assert room.reserve("three", 500)


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "leave", "wait"])),
        max_size=120,
    )
)
def test_counts_are_those_of_the_places(steps: list[tuple[str, str]]) -> None:
    """No history makes the counts wrong or shuts an agent out of its own share."""
    now = Now()
    places, held = SharedPlaces(9, now), list[SharedPlace]()
    for user, act in steps:
        mine = [one for one in held if one.user == user and one.taken]
        if act == "wait":
            now.time += UNUSED_S / 3
        elif act == "leave" and mine:
            mine[0].leave()
            mine[0].leave()
        elif act == "take":
            place = places.take(user, lambda: None)
            # Three shares of two fit in nine places.
            assert place is not None or len(mine) >= places.share
            held += [place] if place else []
        there = [one for one in held if one.taken]
        assert places.taken == len(there) <= places.total
        for name in "abc":
            assert places.count(name) == sum(one.user == name for one in there)
