"""Bound the time that one turn of the event loop parses received bytes.

Each connection's bytes are parsed as soon as they arrive. Bytes in tiny chunks take a
thousand times as long as others, and a turn may bring those of hundreds of connections:
once a turn has parsed for long enough, the rest waits for the next turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final
from weakref import WeakKeyDictionary

_log = logging.getLogger("agentvault.web")

SLICE: Final = 4_096
"""Bytes that are parsed between two looks at the clock."""
_AT_ONCE: Final = 2_048
"""Bytes that never wait: common requests are shorter."""
_TURN_S: Final = 0.005


class ParseTurns:
    """The time for parsing in each turn of one event loop, for all connections."""

    _of_loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, ParseTurns]] = (
        WeakKeyDictionary()
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = _TURN_S
        self._waiting: deque[Callable[[], bool]] = deque()
        self._scheduled = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> ParseTurns:
        """Return those of an event loop."""
        turns = cls._of_loops.get(loop)
        if turns is None:
            turns = cls._of_loops[loop] = cls(loop)
        return turns

    @property
    def is_over(self) -> bool:
        """Check whether this turn has parsed for long enough."""
        return self._left <= 0.0

    def run(self, work: Callable[[bytes], bool], data: bytes) -> bool:
        """Count the time of *work*, and return its result."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)
        began = perf_counter()
        try:
            return work(data)
        finally:
            self._left -= perf_counter() - began

    def wait(self, go_on: Callable[[], bool]) -> None:
        """Call *go_on* in a later turn, until it returns False."""
        self._waiting.append(go_on)

    def _begin(self) -> None:
        """Begin a turn: those that waited go first, one after another."""
        self._left, self._scheduled = _TURN_S, False
        while self._waiting and not self.is_over:
            go_on = self._waiting.popleft()
            try:
                if go_on():
                    self._waiting.append(go_on)
            except Exception:  # noqa: BLE001 - the others go on
                _log.exception("a connection's bytes could not be parsed")
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)


class ReceivedBytes:
    """The received bytes of one connection, on their way to its parser."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parse: Callable[[bytes], bool],
        hold: Callable[[bool], None],
    ) -> None:
        """Parse nothing yet.

        Args:
            loop: of the connection.
            parse: parses a slice, and returns whether to go on.
            hold: called with True if the peer has to wait, and False after that.
        """
        self._turns = ParseTurns.of(loop)
        self._parse, self._hold = parse, hold
        self._rest = b""

    @property
    def waits(self) -> bool:
        """Check whether received bytes wait to be parsed."""
        return bool(self._rest)

    def take(self, data: bytes) -> None:
        """Parse *data*; some of it in later turns if this one took long already."""
        if self._rest:
            self._rest += data
            return
        turns = self._turns
        for start in range(0, len(data), SLICE):
            if turns.is_over and (start or len(data) > _AT_ONCE):
                self._rest = data[start:]
                self._hold(True)
                turns.wait(self._go_on)
                return
            if not turns.run(self._parse, data[start : start + SLICE]):
                return

    def drop(self) -> None:
        """Forget the bytes that wait."""
        self._rest = b""

    def _go_on(self) -> bool:
        """Parse one more slice; return whether there are others.

        If that fails, the peer waits until a deadline closes its connection: bytes
        behind a part that was lost would be read as another request.
        """
        rest, self._rest = self._rest, b""
        if not rest or self._turns.run(self._parse, rest[:SLICE]):
            self._rest = rest[SLICE:]
        if not self._rest:
            self._hold(False)
        return bool(self._rest)
