"""The broker's condition: each listener hears of a change; durations are counted."""

from __future__ import annotations

from agentvault_tui.broker.health import BOUNDS, Health


def test_every_listener_hears_of_a_change() -> None:
    """A console's feed and any other listener are called once a change."""
    health, calls = Health(), list[str]()
    health.listeners += [lambda: calls.append("first"), lambda: calls.append("second")]
    health.changed()
    assert calls == ["first", "second"]


def test_a_duration_is_counted_at_its_bound_and_a_longer_one_past_the_last() -> None:
    """A duration counts at the first bound that it does not exceed."""
    seconds = Health().decision_seconds
    seconds.observe(BOUNDS[2])
    seconds.observe(BOUNDS[-1] + 1)
    assert [n for n, count in enumerate(seconds.counts) if count] == [2, len(BOUNDS)]
    assert seconds.seconds == BOUNDS[2] + BOUNDS[-1] + 1
