"""Auth0's rate limit: so many requests a second, told in the headers of each answer."""

from __future__ import annotations

from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.faults import FaultSwitch
from agentvault_tui.tenant.journal import Journal
from agentvault_tui.tenant.management.problems import ApiError

USUAL: Final = 1000
"""Requests a second: what one process can answer anyway. The switch sets less."""
_WINDOW: Final = 60.0


class RateLimit:
    """A bucket that is filled at the top of each second.

    Only whoever showed a valid token takes out of it. At Auth0 everyone does, but
    there a stranger has another tenant; here any process of the machine could so
    keep the broker from revoking.
    """

    def __init__(self, clock: Clock, faults: FaultSwitch, journal: Journal) -> None:
        """Begin with a full bucket."""
        self._clock = clock
        self._faults = faults
        self._journal = journal
        self._told = -_WINDOW
        self._second = 0
        self._used = 0

    def take(self) -> None:
        """Take one request out of the bucket.

        Raises:
            ApiError: 429: it is empty.
        """
        self._fill()
        self._used += 1
        if self._used > self._limit():
            self._tell()
            raise ApiError(429, "Global limit has been reached", "too_many_requests")

    def headers(self, status: int) -> dict[str, str]:
        """Return what an answer says of the bucket."""
        self._fill()
        said = {
            "x-ratelimit-limit": str(self._limit()),
            "x-ratelimit-remaining": str(max(self._limit() - self._used, 0)),
            # Epoch seconds, not a delta.
            "x-ratelimit-reset": str(self._second + 1),
        }
        return {**said, "retry-after": "1"} if status == 429 else said

    def _tell(self) -> None:
        """Write one row a minute, however many are turned away."""
        now = self._clock.boot()
        if now - self._told >= _WINDOW:
            self._told = now
            text = "Global limit has been reached"
            self._journal.write("api_limit", description=text)

    def _limit(self) -> int:
        return self._faults.now.rate or USUAL

    def _fill(self) -> None:
        second = int(self._clock.now().timestamp())
        if second != self._second:
            self._second, self._used = second, 0
