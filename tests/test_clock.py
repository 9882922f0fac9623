"""Deadlines are kept on two clocks, and the stricter one wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from agentvault_tui.clock import (
    Deadline,
    SharedClock,
    SystemClock,
    as_set_now,
    iso,
    parse_iso,
    span,
)

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def test_setting_the_wall_clock_back_extends_no_deadline() -> None:
    """A deadline the boot clock has passed stays passed when the wall goes back."""
    clock = ManualClock(START)
    deadline = Deadline.after(clock, 300)
    clock.advance(301)
    clock.jump_wall(-3600)
    assert deadline.passed(clock)


def test_setting_the_wall_clock_forward_ends_it() -> None:
    """A deadline the wall clock has passed is passed, whatever the boot clock says."""
    clock = ManualClock(START)
    deadline = Deadline.after(clock, 300)
    clock.jump_wall(301)
    assert deadline.passed(clock)


def test_after_a_reboot_the_wall_clock_alone_counts() -> None:
    """A boot clock that started anew neither ends nor extends a deadline."""
    clock = ManualClock(START)
    deadline = Deadline.after(clock, 300)
    clock.reboot("b1")
    assert not deadline.passed(clock)
    clock.advance(300)
    assert deadline.passed(clock)


@pytest.mark.slow
@given(
    life=st.integers(1, 86_400),
    moves=st.lists(
        st.tuples(st.sampled_from(["advance", "jump"]), st.integers(-7200, 7200)),
        max_size=20,
    ),
)
def test_no_deadline_outlives_its_boot_clock(
    life: int, moves: list[tuple[str, int]]
) -> None:
    """Whatever is done to the wall clock, more than `life` real seconds end it.

    And the end that is told is the one that comes.
    """
    clock = ManualClock(START)
    deadline = Deadline.after(clock, life)
    elapsed = 0
    for kind, seconds in moves:
        if kind == "advance":
            clock.advance(abs(seconds))
            elapsed += abs(seconds)
        else:
            clock.jump_wall(seconds)
        assert deadline.remaining(clock) <= max(life - elapsed, 0)
        told = (as_set_now(clock)(deadline) - clock.now()).total_seconds()
        assert max(told, 0) == pytest.approx(deadline.remaining(clock), abs=1)


def test_the_system_clock_advances_wall_and_boot_time() -> None:
    """The machine's boot clock never goes back, and its wall clock is in UTC."""
    clock = SystemClock()
    first = clock.boot()
    assert clock.boot() >= first
    assert clock.now().tzinfo is UTC
    assert clock.boot_id


@pytest.mark.parametrize(
    "text", ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00+01:00", "2026-11-24T10:00:00"]
)
def test_moments_are_read_in_any_offset_and_written_in_one(text: str) -> None:
    """RFC 3339 in any offset reads as the same moment and is written with Z."""
    assert iso(parse_iso(text)) == "2026-11-24T10:00:00.000000Z"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.12, "0.120 s"),
        (48, "48 s"),
        (123, "2 m 3 s"),
        (3_840, "1 h 4 m"),
        (100_800, "1 d 4 h"),
        (-0.5, "-0.500 s"),
    ],
)
def test_a_span_is_written_with_its_units(seconds: float, written: str) -> None:
    """How long something took is short, and precise where it is short itself."""
    assert span(seconds) == written


@pytest.mark.slow
@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_a_moment_is_written_in_utc_with_all_its_microseconds(moment: datetime) -> None:
    """As RFC 3339 has it, also where there are none: texts sort as moments do."""
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        return
    assert iso(moment) == f"{utc:%Y-%m-%dT%H:%M:%S.%f}Z".rjust(27, "0")


def test_a_shared_clock_has_the_stores_time_and_runs_by_the_boot_clock() -> None:
    """This machine's wall clock, and whoever sets it, are not asked any more."""
    own = ManualClock(START)
    clock = SharedClock(own)
    assert clock.now() == START
    store = START + timedelta(minutes=10)
    clock.agree(store, own.boot() - 1, own.boot() + 1)
    assert (clock.now(), clock.ahead) == (store, -600)
    own.advance(5)
    own.jump_wall(3600)
    assert clock.now() == store + timedelta(seconds=5)
    assert clock.ahead == 3000
    assert Deadline.after(clock, 60).wall == clock.now() + timedelta(seconds=60)
