"""One requester is permitted so many decisions a second, after a burst of ten."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from agentvault_tui.broker.rates import BURST_S, Rates
from agentvault_tui.errors import TooFastError

ONE = "agt_one"


def permitted(rates: Rates, rate: int, tries: int, requester: str = ONE) -> int:
    """Return how many of so many tries at once are permitted."""
    count = 0
    for _ in range(tries):
        try:
            rates.take(requester, rate)
        except TooFastError:
            continue
        count += 1
    return count


@pytest.fixture
def rates(clock: ManualClock) -> Rates:
    return Rates(clock)


def test_a_burst_and_then_the_rate(rates: Rates, clock: ManualClock) -> None:
    """Ten seconds' worth at once, then what comes back, without any lock-out."""
    assert permitted(rates, 5, 60) == 50
    clock.advance(1)
    assert permitted(rates, 5, 60) == 5
    clock.advance(100)
    assert permitted(rates, 5, 60) == 50


def test_requesters_do_not_share_a_rate(rates: Rates) -> None:
    """One that has used its burst takes nothing from another, or from a chain."""
    assert permitted(rates, 1, 20) == 10
    assert permitted(rates, 1, 20, "agt_two") == 10
    assert permitted(rates, 1, 20, f"{ONE}>agt_two") == 10


def test_no_rate_is_no_bound(rates: Rates) -> None:
    """With 0 everything is permitted, and nothing is held in memory."""
    assert permitted(rates, 0, 5_000) == 5_000
    assert not rates._buckets


def test_another_rate_counts_at_once(rates: Rates) -> None:
    """A raised rate begins with a burst of its own; a lowered one gives no more."""
    assert permitted(rates, 1, 20) == 10
    assert permitted(rates, 2, 50) == 20
    assert permitted(rates, 1, 50) == 10


def test_refusals_are_counted_and_forgotten(rates: Rates, clock: ManualClock) -> None:
    """One notice in ten seconds says how many; a requester that is still is let go."""
    permitted(rates, 1, 25)
    assert list(rates.due()) == [(ONE, 15, 1)]
    permitted(rates, 1, 5)
    assert not list(rates.due())
    clock.advance(10)
    ((requester, count, _),) = rates.due()
    rates.notice_later(requester, count)
    assert list(rates.due()) == [(ONE, 5, 1)]
    clock.advance(100)
    assert not list(rates.due())
    assert not rates._buckets


@given(
    rate=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100)), max_size=20),
)
def test_no_span_holds_more_than_burst_and_rate(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    """Whenever and however often it asks: at most the burst and rate times the span."""
    clock = ManualClock(datetime(2026, 11, 24, 10, tzinfo=UTC))
    rates = Rates(clock)
    began, count = clock.boot(), 0
    for wait, tries in steps:
        clock.advance(wait)
        count += permitted(rates, rate, tries)
        assert count <= rate * (BURST_S + clock.boot() - began) + 1e-6
