"""An event loop whose time passes only where nothing else is left to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from support.manual_clock import ManualClock


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: what would be waited is the time that has passed."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        self._clock.advance(timeout or 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps by advancing *clock*; for coroutines that touch nothing outside."""

    def __init__(self, clock: ManualClock) -> None:
        self._virtual = clock
        super().__init__(_Skipping(clock))

    def time(self) -> float:
        return self._virtual.boot()
