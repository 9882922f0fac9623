"""Bound how many decisions of one requester are permitted without a person.

Each of them is an event, so an agent with all requests allowed could fill the disk and
overload exports. Beyond its rate it is answered 429, nothing is recorded, and one event
every ten seconds counts the answers. A requester is an agent, or the chain of a token
that was passed on; see `requester_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TooFastError

BURST_S: Final = 10
"""Seconds for which the rate may be used up at once."""
_NOTICE_S: Final = 10.0
"""Between two events about one requester."""


@dataclass(slots=True)
class _Bucket:
    rate: int
    left: float
    at: float
    """When *left* was counted, in boot seconds."""
    refused: int = 0
    """Requests that were answered 429 and are in no event yet."""
    noticed_at: float = float("-inf")

    def refill(self, rate: int, now: float) -> None:
        """Count the places that came back by *now*."""
        size = rate * BURST_S
        self.left = min(self.left + (now - self.at) * rate, size)
        self.rate, self.at = rate, now


class Rates:
    """A token bucket for each requester that was permitted anything lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, requester: str, rate: int) -> None:
        """Count one permitted decision.

        Args:
            requester: for whom.
            rate: how many it may have a second; 0 for no bound.

        Raises:
            TooFastError: it has had them.
        """
        if not rate:
            return
        now = self._clock.boot()
        bucket = self._buckets.get(requester)
        if bucket is None or bucket.rate != rate:  # a new rate begins with its burst
            refused = bucket.refused if bucket else 0
            bucket = _Bucket(rate, rate * BURST_S, now, refused)
            self._buckets[requester] = bucket
        bucket.refill(rate, now)
        if bucket.left < 1:
            bucket.refused += 1
            raise TooFastError(
                f"more than {rate} permitted requests a second", "wait a second"
            )
        bucket.left -= 1

    def due(self) -> Iterator[tuple[str, int, int]]:
        """Yield who was refused, how often, and its rate, at most every ten seconds.

        If that cannot be recorded, it has to be given back by `notice_later`.
        """
        now = self._clock.boot()
        for requester, bucket in list(self._buckets.items()):
            bucket.refill(bucket.rate, now)
            if bucket.refused and now - bucket.noticed_at >= _NOTICE_S:
                count, bucket.refused, bucket.noticed_at = bucket.refused, 0, now
                yield requester, count, bucket.rate
            elif not bucket.refused and bucket.left >= bucket.rate * BURST_S:
                del self._buckets[requester]

    def notice_later(self, requester: str, count: int) -> None:
        """Take *count* back: it could not be recorded now."""
        if bucket := self._buckets.get(requester):
            bucket.refused, bucket.noticed_at = bucket.refused + count, float("-inf")
