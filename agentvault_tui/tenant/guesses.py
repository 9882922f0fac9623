"""Counts one browser's wrong user codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock

WINDOW: Final = 60.0
"""Seconds."""
PER_BROWSER: Final = 5
"""Wrong codes in one window."""
_REMEMBERED: Final = 1024


@dataclass(slots=True)
class _Count:
    since: float
    tries: int = 0


class Guesses:
    """Fixed windows on the boot clock (RFC 8628 section 5.1).

    There is no count over all browsers: on loopback everyone is one source, so any
    process could keep the owner out with it. What a guesser gains without one is
    little. Two thousand tries a second against 34.5 bits hit a code of the console's,
    which lives two minutes, once in a hundred thousand, and one that lives Auth0's
    fifteen once in fourteen thousand; and a hit shows a request that still wants a
    password and a one-time code.
    """

    def __init__(self, clock: Clock) -> None:
        """Start counting."""
        self._clock = clock
        self._counts: dict[str, _Count] = {}

    def spent(self, browser: str) -> bool:
        """Tell whether the browser has no try left for now."""
        return self._count(browser).tries >= PER_BROWSER

    def wrong(self, browser: str) -> None:
        """Take one try away."""
        self._count(browser).tries += 1

    def right(self, browser: str) -> None:
        """Forget a browser's tries: its last one was right."""
        self._counts.pop(browser, None)

    def _count(self, browser: str) -> _Count:
        while len(self._counts) >= _REMEMBERED and browser not in self._counts:
            del self._counts[next(iter(self._counts))]
        count = self._counts.setdefault(browser, _Count(self._clock.boot()))
        if self._clock.boot() - count.since >= WINDOW:
            count.since, count.tries = self._clock.boot(), 0
        return count
