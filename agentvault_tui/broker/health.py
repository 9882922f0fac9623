"""The broker's condition for operators and metrics: problems, checks, durations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

BOUNDS: Final = (
    *(0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
"""Seconds; durations beyond the last are counted as well."""


class Histogram:
    """Durations since the start of this process."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """By bound, not cumulative; the last counts the longer ones."""
        self.seconds = 0.0
        """All together."""

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(frozen=True, slots=True)
class Verified:
    """How far the ledger was found right since the start."""

    seq: int
    at: datetime
    complete: bool
    """Whether that was the end of the chain, with its state and all pages."""


@dataclass(slots=True)
class Health:
    """The parts of the status line that no other object has."""

    state_problem: str | None = None
    """Which state rows a start found changed, if any."""
    verified: Verified | None = None
    """How far the ledger was verified since the start."""
    unverified: str | None = None
    """Why the last verification had no result, while that is so."""
    verify_first: bool = False
    """Whether nothing is restored before the ledger was verified."""
    log_problem: str | None = None
    """Why the tenant's own log cannot be read now, if so."""
    alerts_dead: int = 0
    """How many alerts were given up and are not retried yet."""
    decision_seconds: Histogram = field(default_factory=Histogram)
    """How long policy, limits and call-outs took."""
    revocation_seconds: Histogram = field(default_factory=Histogram)
    """How long revocations and panics took until they were in effect."""
    listeners: list[Callable[[], None]] = field(default_factory=list)
    """Called when something in the status line changed."""

    def report_log(self, problem: str | None) -> None:
        """Show operators why the tenant's own log cannot be read now, if so."""
        self.log_problem = problem
        self.changed()

    def changed(self) -> None:
        """Notify the listeners that something in the status line changed."""
        for listener in self.listeners:
            listener()
