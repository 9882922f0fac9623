"""How often something happened lately, in a few integers."""

from __future__ import annotations

from typing import Final

_SLOTS: Final = 12
_SLOT_SECONDS: Final = 5


class Rate:
    """Counts over the last minute, in slots of five seconds."""

    __slots__ = ("_slots", "_tick")

    def __init__(self) -> None:
        self._slots = [0] * _SLOTS
        self._tick = 0

    def add(self, at: float) -> None:
        """Count one that happened at *at*, in epoch seconds."""
        self._turn(at)
        if int(at // _SLOT_SECONDS) > self._tick - _SLOTS:
            self._slots[int(at // _SLOT_SECONDS) % _SLOTS] += 1

    def minute(self, now: float) -> int:
        """Return how many there were in the last 55 to 60 seconds."""
        self._turn(now)
        return sum(self._slots)

    def _turn(self, at: float) -> None:
        tick = int(at // _SLOT_SECONDS)
        if tick <= self._tick:
            return
        for old in range(max(self._tick + 1, tick - _SLOTS + 1), tick + 1):
            self._slots[old % _SLOTS] = 0
        self._tick = tick
