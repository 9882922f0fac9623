"""Ends in the tenant's store come in time, although the clock is set back."""

from __future__ import annotations

from datetime import UTC, datetime

from support.manual_clock import ManualClock
from support.tenant_store import open_store

from agentvault_tui.home import Home
from agentvault_tui.tenant.row_time import row_time

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def test_it_goes_on_with_the_boot_clock_when_the_wall_clock_is_set_back(
    home: Home,
) -> None:
    """Over another opening of the store too; a clock set forward counts."""
    clock, start = ManualClock(START), START.timestamp()
    for turn in range(2):
        store = open_store(home)
        assert row_time(store, clock) == start + turn * 3600
        clock.jump_wall(-86_400 if turn == 0 else 0)
        clock.advance(3600)
        assert row_time(store, clock) == start + (turn + 1) * 3600
        store.close()
    store = open_store(home)
    clock.jump_wall(10 * 86_400)
    assert row_time(store, clock) == clock.now().timestamp()
    store.close()


def test_after_a_reboot_the_wall_clock_counts(home: Home) -> None:
    """Nothing says how long the machine was off."""
    clock = ManualClock(START)
    store = open_store(home)
    row_time(store, clock)
    clock.jump_wall(-3600)
    clock.reboot("b1")
    assert row_time(store, clock) == clock.now().timestamp()
    store.close()


def test_a_clock_that_gains_little_writes_nothing(home: Home) -> None:
    """Each page would write to the disk otherwise."""
    clock = ManualClock(START)
    store = open_store(home)
    row_time(store, clock)
    written = store.fact("latest_time")
    clock.advance(3600)
    clock.jump_wall(0.9)
    assert row_time(store, clock) == clock.now().timestamp()
    assert store.fact("latest_time") == written
    clock.jump_wall(0.2)
    row_time(store, clock)
    assert store.fact("latest_time") != written
    store.close()
