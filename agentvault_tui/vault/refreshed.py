"""A document of the tenant's, cached: fetched once for all who wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError, TenantUnreachableError

T = TypeVar("T")

FRESH: Final = 3600.0
"""Seconds in which nothing is asked anew."""
STALE: Final = 24 * 3600.0
"""A day without the tenant; then what it once said counts no more."""
PAUSE: Final = 60.0
"""Seconds for each fetch, on average, while there is something to fall back on."""


class CachedDocument(Generic[T]):
    """The last good copy of a document, and when it is fetched again."""

    def __init__(
        self, fetch: Callable[[], Awaitable[T]], clock: Clock, *, burst: int = 1
    ) -> None:
        """Cache what *fetch* returns, aged by the boot clock.

        While a copy is usable, at most *burst* fetches may follow each other at once,
        and no more than one every `PAUSE` seconds on average.
        """
        self._fetch = fetch
        self._clock = clock
        self._tried: deque[float] = deque(maxlen=burst)
        """When those of the last fetches were, the oldest first."""
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._fetched = float("-inf")
        self._rounds = 0
        self._failure: TenantError | None = None

    async def get(self) -> T:
        """Return the document: fresh, or at most a day old when the tenant is down.

        Raises:
            TenantError: there is none, and it cannot be fetched.
        """
        if self._value is None or self._age() > FRESH:
            await self.renew()
        if self._value is None or self._age() > STALE:
            raise self._failure or TenantUnreachableError(
                "the tenant has not been reached for a day"
            )
        return self._value

    async def renew(self) -> None:
        """Fetch again, unless the limit of fetches is reached.

        Whoever comes while a fetch is under way waits for that one.
        """
        rounds = self._rounds
        async with self._lock:
            if self._rounds != rounds:
                return
            now = self._clock.boot()
            usable = self._value is not None and self._age() <= STALE
            tried, most = self._tried, self._tried.maxlen or 1
            if usable and len(tried) == most and now - tried[0] < PAUSE * most:
                return
            before = tuple(tried)
            if usable:
                tried.append(now)
            try:
                self._value = await self._fetch()
            except asyncio.CancelledError:
                # Whoever asked gave up; the next one is not to wait a minute for it.
                tried.clear()
                tried.extend(before)
                raise
            except TenantError as error:
                self._failure = error
            else:
                self._fetched, self._failure = now, None
            self._rounds += 1

    def _age(self) -> float:
        return self._clock.boot() - self._fetched
