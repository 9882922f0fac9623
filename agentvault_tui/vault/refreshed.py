"""A document of another server, cached: fetched once for all who wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError, TenantUnreachableError

T = TypeVar("T")

FRESH: Final = 3600.0
"""Seconds in which nothing is asked again."""
STALE: Final = 24 * 3600.0
"""A day without the tenant; then its earlier answer counts no more."""
PAUSE: Final = 60.0
"""Seconds for each fetch, on average, while there is something to fall back on."""


class CachedDocument(Generic[T]):
    """The last good copy of a document, and when it is fetched again."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        clock: Clock,
        *,
        burst: int = 1,
        fresh: float = FRESH,
        stale: float = STALE,
        pause: float = PAUSE,
        retry: float = 0.0,
    ) -> None:
        """Cache the result of *fetch*, aged by the boot clock.

        For *fresh* seconds nothing is asked again; after *stale* seconds a copy counts
        no more. While a copy is usable, at most *burst* fetches may follow each other
        at once, and no more than one every *pause* seconds on average. While none is,
        *retry* seconds lie between two fetches that fail.
        """
        self._fetch = fetch
        self._clock = clock
        self._fresh, self._stale = fresh, stale
        self._pause, self._retry = pause, retry
        self._failed = float("-inf")
        self._tried: deque[float] = deque(maxlen=burst)
        """When those of the last fetches were, the oldest first."""
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._fetched = float("-inf")
        self._rounds = 0
        self._failure: TenantError | None = None

    @property
    def failure(self) -> TenantError | None:
        """Why the last fetch gave nothing, if so."""
        return self._failure

    async def get(self) -> T:
        """Return the document: fresh, or not stale yet where it cannot be fetched.

        Raises:
            TenantError: there is none, and it cannot be fetched.
        """
        if self._value is None or self._age() > self._fresh:
            await self.renew()
        if self._value is None or self._age() > self._stale:
            raise self._failure or TenantUnreachableError(
                "the tenant has not been reached for a day"
            )
        return self._value

    async def renew(self) -> None:
        """Fetch again, unless the limit of fetches is reached.

        A caller during a fetch waits for that one.
        """
        rounds = self._rounds
        async with self._lock:
            if self._rounds != rounds:
                return
            now = self._clock.boot()
            usable = self._value is not None and self._age() <= self._stale
            tried, most = self._tried, self._tried.maxlen or 1
            if usable and len(tried) == most and now - tried[0] < self._pause * most:
                return
            if not usable and now - self._failed < self._retry:
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
                self._failure, self._failed = error, now
            else:
                self._fetched, self._failure = now, None
            self._rounds += 1

    def _age(self) -> float:
        return self._clock.boot() - self._fetched
