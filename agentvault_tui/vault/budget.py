"""A rate limit for the tenant's APIs that serves operators first."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import Sleep

FREE_RATE: Final = 2.0
"""Management requests a second that a free Auth0 tenant answers."""
_RESERVED: Final = 1.0
_INSTANT: Final = 1e-9
"""Seconds that are no wait: added to a clock they may leave it where it is."""


class Priority(IntEnum):
    """Who goes first; the lower number does."""

    OPERATOR = 0
    """Someone is looking at a screen."""
    REVOCATION = 1
    """A step that cuts something off, from the outbox."""
    BACKGROUND = 2
    """The tenant's log and the like, which can wait as long as it must."""


class Budget:
    """A token bucket over the boot clock, handed out by priority, then by arrival.

    Background requests leave one in the bucket, so that an operator's next one goes
    out at once. One budget serves all clients of a tenant.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        rate: float = FREE_RATE,
        burst: float = 2.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Start full, with *rate* requests a second and *burst* at once.

        Raises:
            ValueError: the rate is not positive, or the burst leaves nothing over.
        """
        if rate <= 0 or burst < 1 + _RESERVED:
            raise ValueError("a budget is a positive rate and a burst of two or more")
        self._clock = clock
        self._sleep = sleep
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._filled = clock.boot()
        self._closed_until = float("-inf")
        self._arrivals = 0
        self._queue: list[tuple[int, int]] = []
        self._news = asyncio.Event()

    async def take(self, priority: Priority) -> None:
        """Wait until one request of *priority* may go out."""
        self._arrivals += 1
        ticket = (int(priority), self._arrivals)
        self._queue.append(ticket)
        self._tell()
        try:
            while True:
                news = self._news
                if ticket != min(self._queue):
                    await news.wait()
                    continue
                pause = self._pause(priority)
                if pause <= _INSTANT:
                    self._left -= 1
                    return
                # The first in the queue sleeps for all; whoever overtakes wakes it.
                waits = [
                    asyncio.ensure_future(self._sleep(pause)),
                    asyncio.ensure_future(news.wait()),
                ]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
                    await asyncio.gather(*waits, return_exceptions=True)
        finally:
            self._queue.remove(ticket)
            self._tell()

    def heed(self, reply: TenantReply) -> None:
        """Apply an answer's rate limit headers: a spent limit holds all requests."""
        if reply.status != 429 and reply.remaining != 0:
            return
        pause = reply.wait(self._clock.now())
        if pause is None:
            pause = 1.0 if reply.status == 429 else 0.0
        self._refill()
        self._left = min(self._left, 0.0)
        self._closed_until = max(self._closed_until, self._clock.boot() + pause)

    def _pause(self, priority: Priority) -> float:
        """Return how long a request of *priority* has to wait yet."""
        self._refill()
        needed = 1.0 + (_RESERVED if priority is Priority.BACKGROUND else 0.0)
        until_filled = (needed - self._left) / self._rate
        return max(until_filled, self._closed_until - self._clock.boot())

    def _refill(self) -> None:
        now = self._clock.boot()
        grown = self._left + (now - self._filled) * self._rate
        self._left, self._filled = min(grown, self._burst), now

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
