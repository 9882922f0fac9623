"""What a broker of a team makes of what the others say of themselves."""

from __future__ import annotations

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.patience import PATIENT

from agentvault_tui import __version__
from agentvault_tui.broker.team import Member, Said, Team


@pytest.mark.parametrize(
    ("age", "other", "reason"),
    [
        (1.9, {}, None),
        (2.0, {}, "it says nothing any more: look at its machine"),
        (0.1, {"version": "0.1"}, "it is of version 0.1"),
        (0.1, {"lag_ms": 251.0}, "it is behind the store"),
        (0.1, {"lag_ms": None}, "it is behind the store"),
        (0.1, {"policy": "p2"}, "another policy, or another file, is in force there"),
        (
            0.1,
            {"key": "k1"},
            "it has not the team's key: agentvault team key import there",
        ),
        (0.1, {"clock": -600.0}, "its clock differs by -600 s"),
        (0.1, {"clock": 30.0, "lag_ms": 250.0}, None),
    ],
)
def test_a_broker_out_of_step_is_told_of_with_the_reason(
    clock: ManualClock, age: float, other: dict[str, Any], reason: str | None
) -> None:
    """In step is who was seen within 2 s, knows the head, and decides as we do."""
    ledger: Any = SimpleNamespace(head=SimpleNamespace(seq=7))
    shared: Any = SimpleNamespace(broker_id="brk_a")
    keys = lambda: ("k2", "k2")  # noqa: E731
    team = Team(ledger, shared, clock, lambda: "p1", tenant="", key=keys)
    said: dict[str, Any] = {
        "version": __version__,
        "policy": "p1",
        "lag_ms": 1.0,
        "key": "k2",
    } | other
    b = Said(run="r", host="b", since="", seq=7, **said)
    team.members = (Member("brk_b", b, clock.now(), age),)
    assert [why for _, why in team.standing()] == [reason]
    assert len(team.others()) == (age < 2.0)


class Leases:
    """A store's leases, which pass by a clock that the test sets."""

    broker_id = "brk_a"
    listener = SimpleNamespace(channel="agentvault_1")

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.held: dict[str, tuple[str, bytes, float]] = {}
        self.took = 0.0
        """Seconds that each answer takes."""

    async def hold(self, name: str, run: str, doc: bytes, seconds: float) -> bool:
        now = self.clock.boot()
        other, _, since = self.held.get(name, (run, b"", now))
        if other != run and now - since < seconds:
            return False
        self.held[name] = run, doc, now
        self.clock.advance(self.took)
        return True

    async def release(self, names: tuple[str, ...], run: str) -> None:
        for name in names:
            if name in self.held and self.held[name][0] == run:
                del self.held[name]

    async def holders(self) -> tuple[datetime, list[tuple[str, bytes, float]]]:
        now = self.clock.boot()
        rows = [(name, doc, now - at) for name, (_, doc, at) in self.held.items()]
        return self.clock.now(), rows


class KnownLedger:
    """A ledger whose memory is always the store's."""

    head = SimpleNamespace(seq=7)
    distrusted = ""

    async def confirm(self) -> None:
        """Know all there is."""

    def distrust(self, why: str) -> None:
        self.distrusted = why


def team_of(leases: Any, **listeners: Any) -> Team:
    ledger: Any = KnownLedger()
    keys = lambda: ("", "")  # noqa: E731
    given = (ledger, leases, leases.clock, lambda: "p1")
    return Team(*given, tenant="", key=keys, **listeners)


async def test_a_lease_lasts_from_when_it_was_asked_for(clock: ManualClock) -> None:
    """What the store's answer took is no part of it, or two would believe in theirs."""
    leases = Leases(clock)
    leases.took = 0.75
    team = team_of(leases)
    await team.join()  # it asks for its own lease and for that on the work
    assert not team.lease_over()
    clock.advance(0.5)
    assert team.lease_over()


async def test_the_work_ends_here_before_another_may_begin_it(
    clock: ManualClock,
) -> None:
    """Two seconds before the lease on it ends; a broker that stops gives it up."""
    leases = Leases(clock)
    team, other = team_of(leases), team_of(leases)
    other.id = "brk_b"
    await team.join()
    await other.join()
    assert (team.works(), other.works()) == (True, False)
    clock.advance(5.9)
    assert team.works()
    clock.advance(0.1)
    assert not team.works()
    await other.join()
    assert not other.works()
    await team.leave()
    assert set(leases.held) == {"brk_b"}
    await other.join()
    assert other.works()


async def test_a_broker_whose_id_another_process_has_does_nothing(
    clock: ManualClock,
) -> None:
    """It carries no call and no work from then on, whatever its leases say."""
    leases = Leases(clock)
    told = list[str]()
    team = team_of(leases, end_calls=lambda: told.append("lease"))
    await team.join()
    leases.held["brk_a"] = "another process", b"", clock.boot()
    await team.run(lambda: told.append("replaced"))
    assert told == ["lease", "replaced"]
    assert (team.lease_over(), team.works()) == (True, False)


async def test_nobody_waits_for_a_broker_whose_lease_is_over(
    clock: ManualClock,
) -> None:
    """It is told that it did not confirm; it carries no call either."""
    leases = Leases(clock)
    team, other = team_of(leases), team_of(leases)
    other.id = "brk_b"
    await other.join()
    await team.join()
    (alive,) = team.others()
    assert alive.id == "brk_b"
    clock.advance(2)
    async with asyncio.timeout(PATIENT):
        (told,) = await team.confirmed(8)
    assert (told.id, told.confirmed) == ("brk_b", False)


async def test_a_process_that_others_may_take_over_from_is_gone(
    clock: ManualClock,
) -> None:
    """After eight silent seconds, or once its broker is another process or left."""
    leases = Leases(clock)
    team, other, again = (team_of(leases) for _ in range(3))
    assert not team.gone(other.run_id)  # of whom nothing is known at all
    other.id = again.id = "brk_b"
    await other.join()
    await team.join()
    assert not team.gone(other.run_id)
    clock.advance(7.9)
    await team.join()
    assert not team.gone(other.run_id)
    clock.advance(0.2)
    await again.join()
    await team.join()
    assert (team.gone(other.run_id), team.gone(again.run_id)) == (True, False)
    await again.leave()
    await team.join()
    assert team.gone(again.run_id)
