"""Bound the request work that begins in one turn of the event loop.

A loop that is handed 64 requests at once works through all of them before it looks at
its sockets again; a revocation that comes next would wait for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_Queue = deque[asyncio.Future[None]]
_BEHIND: Final = {False: 1, True: 1}
_BEHIND_SECONDS: Final = 0.001
"""Between two turns that admit so few, behind others."""


class AdmissionQueue:
    """Admits requests in order of arrival: *each_turn* small ones, and one large.

    So large bodies, which anybody can send, delay small requests and revocations by at
    most one of them a turn, and are not starved themselves. While *yields* says that
    others go first, one of each is admitted a millisecond.
    """

    def __init__(
        self, each_turn: int, yields: Callable[[], bool] = lambda: False
    ) -> None:
        self._small: _Queue = deque()
        self._large: _Queue = deque()
        self._limits = {False: each_turn, True: 1}
        self._yields = yields
        self._left = self._limits.copy()
        self._pauses = 0
        self._scheduled = False

    async def enter(self, *, large: bool = False) -> None:
        """Return when this request is admitted, which is at once if few ask."""
        self._schedule()
        queue = self._large if large else self._small
        if self._left[large] > 0 and not (queue or self._pauses or self._yields()):
            self._left[large] -= 1
            return
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        await place

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._small) + len(self._large)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause admission: no request is admitted during the block."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._schedule()

    def _turn(self) -> None:
        """Admit the next requests; stop once a turn admitted none."""
        self._scheduled = False
        if self._pauses:
            return
        admits = _BEHIND if self._yields() else self._limits
        self._left = admits.copy()
        for queue, large in ((self._small, False), (self._large, True)):
            while queue and self._left[large] > 0:
                place = queue.popleft()
                if not place.done():  # else the client closed its connection
                    place.set_result(None)
                    self._left[large] -= 1
        if self._left != admits:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            if self._yields():
                loop.call_later(_BEHIND_SECONDS, self._turn)
            else:
                loop.call_soon(self._turn)
