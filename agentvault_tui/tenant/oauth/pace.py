"""How fast a client may poll (RFC 8628 section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.clock import Clock

SLOWER: Final = 5
"""Each slow_down makes the interval that much longer."""
_LONGEST: Final = 60
"""Seconds: no interval grows beyond it."""
_EARLY: Final = 0.1
"""Timers fire a little early, and both sides measure a little differently."""
_REMEMBERED: Final = 8192


@dataclass(frozen=True, slots=True)
class TooFast:
    """What a hasty client held to, and what it must hold to from now on, in seconds."""

    before: int
    now: int


@dataclass(slots=True)
class _Pace:
    interval: int
    answered: float
    """When it was last answered: the interval counts from there (Auth0)."""


class Paces:
    """The pace of each request that is polled for."""

    def __init__(self, clock: Clock) -> None:
        """Know none; a forgotten pace is a lenient one."""
        self._clock = clock
        self._paces: dict[str, _Pace] = {}

    def polled(self, key: str, interval: int) -> TooFast | None:
        """Count a poll; the first may come at once, each later one *interval* apart."""
        now = self._clock.boot()
        pace = self._paces.get(key)
        if pace is None:
            while len(self._paces) >= _REMEMBERED:
                del self._paces[next(iter(self._paces))]
            self._paces[key] = _Pace(interval, now)
            return None
        before, pace.answered = pace.answered, now
        held = pace.interval
        if now - before >= held - _EARLY:
            return None
        pace.interval = min(held + SLOWER, _LONGEST)
        return TooFast(held, pace.interval)

    def forget(self, key: str) -> None:
        """Nobody polls for *key* any more."""
        self._paces.pop(key, None)
