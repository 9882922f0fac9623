"""Auth0's rate limit: so many requests a second, told in the headers of each answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.faults import FaultSwitch
from agentvault_tui.tenant.management.problems import ApiError

USUAL: Final = 1000
"""Requests a second: what one process can answer anyway. The switch sets less."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether a request may go on, and the headers that say how many more."""

    allowed: bool
    headers: dict[str, str]

    def check(self) -> None:
        """Pass, or not.

        Raises:
            ApiError: 429: the bucket is empty.
        """
        if not self.allowed:
            raise ApiError(429, "Global limit has been reached", "too_many_requests")


class RateLimit:
    """A bucket that is filled at the top of each second."""

    def __init__(self, clock: Clock, faults: FaultSwitch) -> None:
        """Begin with a full bucket."""
        self._clock = clock
        self._faults = faults
        self._second = 0
        self._used = 0

    def take(self) -> Turn:
        """Take one request out of the bucket."""
        limit = self._faults.now.rate or USUAL
        second = int(self._clock.now().timestamp())
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        left = limit - self._used
        headers = {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(max(left, 0)),
            # Epoch seconds, not a delta.
            "x-ratelimit-reset": str(second + 1),
        }
        if left < 0:
            headers["retry-after"] = "1"
        return Turn(left >= 0, headers)
