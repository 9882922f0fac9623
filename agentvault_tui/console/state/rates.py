"""How often something happened lately, in a few integers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final

_SLOTS: Final = 12
_SLOT_SECONDS: Final = 5
_INT: Final = array("I").itemsize


class Rate:
    """Counts over the last minute, in slots of five seconds."""

    __slots__ = ("_slots", "_tick")

    def __init__(self) -> None:
        self._slots = [0] * _SLOTS
        self._tick = 0

    def add(self, at: float) -> None:
        """Count one that happened at *at*, in epoch seconds."""
        tick = int(at // _SLOT_SECONDS)
        if tick > self._tick:
            self._turn(tick)
        if tick > self._tick - _SLOTS:
            self._slots[tick % _SLOTS] += 1

    def minute(self, now: float) -> int:
        """Return how many there were in the last 55 to 60 seconds."""
        self._turn(int(now // _SLOT_SECONDS))
        return sum(self._slots)

    def _turn(self, tick: int) -> None:
        for old in range(max(self._tick + 1, tick - _SLOTS + 1), tick + 1):
            self._slots[old % _SLOTS] = 0
        self._tick = max(tick, self._tick)


class Paces:
    """Counts of many over the last minute, each by its name; nothing for the quiet."""

    __slots__ = ("_counts", "_slots", "_tick")

    def __init__(self) -> None:
        self._slots: dict[str, array[int]] = {}
        self._counts: dict[str, int] = {}
        self._tick = 0

    def add(self, name: str, at: float) -> None:
        """Count one of *name* that happened at *at*, in epoch seconds."""
        tick = int(at // _SLOT_SECONDS)
        if tick > self._tick:
            self._turn(tick)
        elif tick <= self._tick - _SLOTS:
            return
        slots = self._slots.get(name)
        if slots is None:
            slots = self._slots[name] = array("I", bytes(_SLOTS * _INT))
            self._counts[name] = 0
        slots[tick % _SLOTS] += 1
        self._counts[name] += 1

    def minute(self, now: float) -> Mapping[str, int]:
        """Return how many there were in the last 55 to 60 seconds, by name."""
        self._turn(int(now // _SLOT_SECONDS))
        return self._counts

    def _turn(self, tick: int) -> None:
        for old in range(max(self._tick + 1, tick - _SLOTS + 1), tick + 1):
            place = old % _SLOTS
            over = [(n, slots) for n, slots in self._slots.items() if slots[place]]
            for name, slots in over:
                self._counts[name] -= slots[place]
                slots[place] = 0
                if not self._counts[name]:
                    del self._counts[name], self._slots[name]
        self._tick = max(tick, self._tick)
