"""Counts how long something took, by upper bounds, for metrics."""

from __future__ import annotations

from bisect import bisect_left
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
        """Per bound, not cumulative; the last counts the longer ones."""
        self.seconds = 0.0
        """All together."""

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
