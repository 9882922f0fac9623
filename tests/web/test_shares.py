"""No agent takes more than its share of a place that another agent needs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.web.shares import (
    UNUSED_S,
    CappedPlaces,
    FairPlace,
    FairPlaces,
    SharedPlace,
    SharedPlaces,
    classes_of,
)


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


def test_a_class_of_users_has_no_more_than_its_cap() -> None:
    """Each class is counted, and which one is full is told."""
    places = CappedPlaces(5)
    assert places.take({"one": 2, "viewer": 3}, 2) is None
    assert places.take({"one": 2, "viewer": 3}) == "one"
    assert places.take({"two": 2, "viewer": 3}) is None
    assert places.take({"two": 2, "viewer": 3}) == "viewer"
    assert places.take({"three": 9}, 3) == ""
    places.release({"one": 2, "viewer": 3}, 2)
    assert (places.taken, dict(places.counts)) == (1, {"two": 1, "viewer": 1})


def test_the_classes_of_an_address() -> None:
    """A /64 is one machine's and a /48 one site's (RFC 4291, RFC 6177)."""
    nets = ("2001:db8:1::/48", "2001:db8:1:2::/64")
    assert classes_of("2001:db8:1:2::3%eth0") == (*nets, "2001:db8:1:2::3")
    assert classes_of("::ffff:192.0.2.1") == classes_of("192.0.2.1") == ("192.0.2.1",)


def test_a_newcomer_gets_a_place_of_the_network_with_most() -> None:
    """Sixteen networks of many addresses shut no other one out; the latest goes."""
    places, ended = FairPlaces(64), list[str]()
    for number in range(64):
        address = f"2001:db8:{number % 16:x}:{number}::1"
        assert places.take(classes_of(address), lambda a=address: ended.append(a))  # type: ignore[misc]
    assert places.take(classes_of("192.0.2.1"), lambda: None)
    assert len(ended) == 1
    assert places.take(classes_of("192.0.2.1"), lambda: None)
    assert len(ended) == 2


def test_within_a_network_the_same_holds() -> None:
    """A /48 at its half gives up a place of the /64 that has most."""
    places, ended = FairPlaces(8), list[str]()
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"):
        assert places.take(classes_of(address), lambda a=address: ended.append(a))  # type: ignore[misc]
    assert places.take(classes_of("2001:db8:0:2::1"), lambda: None)
    assert ended == ["2001:db8::3"]
    assert places.take(classes_of("2001:db8:0:1::2"), lambda: None) is None


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=60))
def test_fair_places_are_counted_right_for_any_sequence(
    steps: list[tuple[int, bool]],
) -> None:
    """No class has more than half, none is lost, and no network shuts out a new one."""
    places, there = FairPlaces(6), dict[int, FairPlace]()
    for number, (who, leaves) in enumerate(steps):
        if leaves and there:
            places.leave(there.pop(sorted(there)[who % len(there)]))
            continue
        classes = classes_of(f"2001:db8:{who % 3}:{who % 2}::{who:x}")
        before = Counter(place.classes[0] for place in there.values())
        place = places.take(classes, lambda n=number: there.pop(n))  # type: ignore[misc]
        if place is not None:
            there[number] = place
        else:
            assert before[classes[0]] >= max(before.values()) - 1
        assert len(places) == len(there) <= 6
        held = Counter(place.classes[0] for place in there.values())
        assert max(held.values(), default=0) <= 3
        assert sum(places._counts.values()) == 3 * len(there)
