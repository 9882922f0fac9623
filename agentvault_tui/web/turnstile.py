"""Lets few requests begin in each turn of the event loop, so that all get their turn.

A loop that is handed 64 requests at once works through all of them before it looks at
its sockets again; whoever comes next, such as an operator who revokes, waits for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """A line of requests, first come first served.

    Args:
        each_turn: how much may begin in one turn of the loop, in units of work.
    """

    def __init__(self, each_turn: int) -> None:
        self._each_turn = self._left = each_turn
        self._line: deque[tuple[asyncio.Future[None], int]] = deque()
        self._holds = 0
        self._turning = False

    async def enter(self, units: int = 1) -> None:
        """Return when it is this request's turn, which is at once if few ask.

        Args:
            units: how much work it is. What is more than a turn takes a whole one.
        """
        self._keep_turning()
        if self._left > 0 and not self._holds:
            self._left -= units
            return
        place = asyncio.get_running_loop().create_future()
        self._line.append((place, units))
        await place

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody in during a block, so that what it awaits has the machine."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._keep_turning()

    def _turn(self) -> None:
        """Let the next ones in; stop turning when nobody is left."""
        self._turning = False
        if self._holds:
            return
        self._left = self._each_turn
        while self._line and self._left > 0:
            place, units = self._line.popleft()
            if not place.done():  # a client that hung up has left the line
                place.set_result(None)
                self._left -= units
        if self._left < self._each_turn:
            self._keep_turning()

    def _keep_turning(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
