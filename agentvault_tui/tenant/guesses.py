"""Counts tries at user codes: per browser, per source, and altogether."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock

WINDOW: Final = 60.0
PER_BROWSER: Final = 5
_PER_SOURCE: Final = 300
_IN_ALL: Final = 600
"""600 a minute against one code of 34.5 bits that lives two minutes: 1 in 20 million.
A lower cap would only let a process that guesses keep the owner out."""
_REMEMBERED: Final = 1024


@dataclass(slots=True)
class _Count:
    since: float
    tries: int = 0


class Guesses:
    """Fixed windows on the boot clock (RFC 8628 section 5.1)."""

    def __init__(self, clock: Clock) -> None:
        """Start counting."""
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._all = _Count(clock.boot())

    def charge(self, browser: str, source: str) -> bool:
        """Take one try before it is looked at; False when there are none left."""
        counts = (
            (self._count(f"browser {browser}"), PER_BROWSER),
            (self._count(f"source {source}"), _PER_SOURCE),
            (self._fresh(self._all), _IN_ALL),
        )
        if any(count.tries >= cap for count, cap in counts):
            return False
        for count, _ in counts:
            count.tries += 1
        return True

    def right(self, browser: str) -> None:
        """Forget a browser's tries: its last one was right."""
        self._counts.pop(f"browser {browser}", None)

    def _count(self, who: str) -> _Count:
        while len(self._counts) >= _REMEMBERED and who not in self._counts:
            del self._counts[next(iter(self._counts))]
        return self._fresh(self._counts.setdefault(who, _Count(self._clock.boot())))

    def _fresh(self, count: _Count) -> _Count:
        if self._clock.boot() - count.since >= WINDOW:
            count.since, count.tries = self._clock.boot(), 0
        return count
