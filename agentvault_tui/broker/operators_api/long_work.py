"""Bound work that an operator's request causes before anything is decided."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from starlette.requests import Request

from agentvault_tui.errors import ConflictError
from agentvault_tui.web.admission import AdmissionQueue
from agentvault_tui.web.exchange import ClientGoneError

_MOST: Final = 2
"""Requests of one operator that may run or wait."""

_T = TypeVar("_T")


class OperatorShares:
    """Counts the long requests of each operator."""

    def __init__(self, noun: str) -> None:
        """Count none yet; *noun* names them in the plural, such as ``plans``."""
        self._noun = noun
        self._open: Counter[str] = Counter()

    @contextmanager
    def of(self, operator_id: str) -> Iterator[None]:
        """Count a request of an operator while the block runs.

        Raises:
            ConflictError: as many of this operator run or wait as may.
        """
        if self._open[operator_id] >= _MOST:
            raise ConflictError(
                f"{_MOST} {self._noun} that you asked for are still computed",
                "wait until one has ended",
            )
        self._open[operator_id] += 1
        try:
            yield
        finally:
            self._open[operator_id] -= 1
            if not self._open[operator_id]:
                del self._open[operator_id]


class AnswerTurns:
    """Gives each operator's long answers turns of the event loop, one part a turn.

    However many requests one operator sends, one part of one of them waits in the line,
    so that another operator's answer waits for one part of each.
    """

    def __init__(self, line: AdmissionQueue) -> None:
        """Admit parts by *line*, which revocations pause."""
        self._line = line
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def next(self, operator_id: str) -> None:
        """Return in a turn of the event loop for the next part of an answer."""
        lock = self._locks.get(operator_id)
        if lock is None:
            lock = self._locks[operator_id] = asyncio.Lock()
        async with lock:
            await self._line.enter()


async def while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Await *work*, and cancel it if the client of a request disconnects.

    Args:
        request: the request; the rest of its body is discarded.
        work: changes nothing, so that it may be cancelled at any time.

    Returns:
        the result of *work*.

    Raises:
        ClientGoneError: the client has disconnected.
    """
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientGoneError
        return running.result()
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    """Wait until the client of a request disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
