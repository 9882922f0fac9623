"""Who gives a connection up when all places are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.web.places import ConnectionSlot, Limits, Places


def test_an_unread_body_has_ten_seconds_or_64_kib() -> None:
    """After an answer that came before the body was read whole."""
    limits = Limits()
    assert (limits.unread_seconds, limits.unread_bytes) == (10, 65_536)


class Door:
    """Places, and which were given to another."""

    def __init__(self, most: int) -> None:
        self.places = Places(most)
        self.dropped: list[str] = []

    def take(self, name: str, user: int | None = 1) -> ConnectionSlot | None:
        return self.places.take(lambda: user, lambda: self.dropped.append(name))

    def at_work(self, name: str, user: int | None = 1) -> ConnectionSlot:
        place = self.take(name, user)
        assert place is not None
        self.places.works(place)
        return place


def test_the_longest_waiting_makes_room() -> None:
    """Neither one that is being answered, nor one that has asked since."""
    door = Door(3)
    first = door.take("first")
    door.at_work("busy")
    door.take("second")
    assert first is not None
    door.places.works(first)
    door.places.waits(first)
    assert door.take("new")
    assert door.dropped == ["second"]


def test_a_connection_is_refused_when_all_slots_are_working() -> None:
    """A user gives up none of their own requests for another of their own."""
    door = Door(2)
    one = door.at_work("a")
    door.at_work("b")
    assert door.take("c") is None
    door.places.leave(one)
    assert door.take("c")
    assert door.dropped == []


def test_the_user_with_most_connections_gives_one_up() -> None:
    """Another user's connections, idle or busy, shut nobody out."""
    door = Door(4)
    for name in "abcd":
        door.at_work(name, user=666)
    assert door.take("innocent")
    assert door.dropped == ["a"]
    assert door.take("stranger", user=666) is None
    assert door.take("again")
    assert door.dropped == ["a", "b"]


def test_a_users_few_idle_ones_outlast_anothers_many() -> None:
    """It is the one with most who gives one up, however long others have waited."""
    door = Door(4)
    door.take("old")
    for name in "abc":
        door.take(name, user=666)
    for number in range(5):
        assert door.take(f"new {number}", user=666)
    assert door.dropped == ["a", "b", "c", "new 0", "new 1"]


def test_what_the_kernel_does_not_tell_is_one_users() -> None:
    """Of those only what waits is given up: it may be anybody's."""
    door = Door(2)
    door.at_work("a", user=None)
    door.at_work("b", user=None)
    assert door.take("c", user=None) is None
    assert door.take("d", user=1) is None
    assert door.dropped == []


def test_connections_beyond_an_agents_share_end_for_another() -> None:
    """One agent at work on all of them, of a user that is not known, shuts none out."""
    door = Door(16)
    for number in range(16):
        assert door.at_work(f"hog {number}", user=None).count_for("hog")
    new = door.at_work("new", user=None)
    assert door.dropped == ["hog 15"]
    assert new.count_for("other")
    assert new.count_for("other")  # it counts once, for its first agent
    assert door.at_work("again", user=None).count_for("other")
    assert door.places.of_agents.count("hog") == 14
    assert door.places.of_agents.count("other") == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("twvl"))))
def test_slots_are_counted_right_for_any_sequence(steps: list[tuple[int, str]]) -> None:
    """Whatever happens, never more than there are, and none is lost or given twice."""
    places, there, dropped = Places(3), dict[int, ConnectionSlot](), set[int]()
    for number, (user, step) in enumerate(steps):
        if step == "t":
            place = places.take(lambda u=user: u, lambda n=number: dropped.add(n))  # type: ignore[misc]
            if place is not None:
                there[number] = place
        elif there:
            name = sorted(there)[user % len(there)]
            act = {"w": places.works, "v": places.waits, "l": places.leave}[step]
            if step == "l" or name not in dropped:
                act(there[name])
            if step == "l":
                del there[name]
        live = [name for name in there if name not in dropped]
        assert places._count == len(live) <= 3
        assert sum(map(len, places._shares.values())) == len(live)


def test_another_machine_has_half_of_the_places() -> None:
    """At its half it gives up what waits of its own, and is refused if all work."""
    places, dropped = Places(8), list[int]()

    def take(number: int, machine: str | None) -> ConnectionSlot | None:
        return places.take(lambda: None, lambda: dropped.append(number), machine)

    slots = [take(number, "2001:db8::/48") for number in range(4)]
    assert take(4, "2001:db8::/48")
    assert dropped == [0]
    for slot in slots[1:]:
        assert slot is not None
        slot.works()
    assert take(5, "2001:db8::/48")
    assert dropped == [0, 4]
    assert take(6, "2001:db8:1::/48")
    assert dropped == [0, 4]


def test_sixteen_networks_at_work_take_no_place_from_another() -> None:
    """One that has none gets one of whoever has most, though all are at work."""
    places, dropped = Places(64), list[str]()
    for number in range(64):
        machine = f"2001:db8:{number % 16}::/48"
        slot = places.take(
            lambda: None,
            lambda name=machine: dropped.append(name),  # type: ignore[misc]
            machine,
        )
        assert slot is not None
        slot.works()
    assert places.take(lambda: None, lambda: None, "192.0.2.1")
    assert len(dropped) == 1


def test_urgent_requests_have_places_besides() -> None:
    """They are given once all others are at work, and are found out by their mark."""
    places, slots = Places(16, urgent=True), list[ConnectionSlot]()
    for _ in range(20):
        slot = places.take(lambda: 1, lambda: None)
        assert slot is not None
        slot.works()
        slots.append(slot)
    assert [slot.reserved for slot in slots] == [False] * 16 + [True] * 4
    assert places.take(lambda: 1, lambda: None) is None
    slots[-1].leave()
    slots[0].leave()
    for reserved in (False, True):
        slot = places.take(lambda: 1, lambda: None)
        assert slot is not None
        slot.works()
        assert slot.reserved is reserved
