"""Log lines of a server's program that are no messages: displayable, and bounded."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.text import visible

log = logging.getLogger("agentvault.mcp")

_LOGGED: Final = 30
"""Lines in `_LOGGED_S`; further ones are counted."""
_LOGGED_S: Final = 60.0
_LINE_SHOWN: Final = 500
_LAST_LINES: Final = 3
"""Lines that are logged when the program ends."""


class ProgramLog:
    """The log of one program: its standard error, and lines that are no messages."""

    def __init__(self, name: str, clock: Clock) -> None:
        """Log nothing yet; *name* is the server's."""
        self._name = name
        self._clock = clock
        self._last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._began, self._lines = clock.boot(), 0

    @property
    def last(self) -> str:
        """Return the last lines, displayable."""
        return " / ".join(map(shown, self._last))

    def add(self, line: bytes) -> None:
        """Log a line that the program wrote; of many, log a few and count the rest."""
        if self._clock.boot() - self._began > _LOGGED_S:
            if self._lines > _LOGGED:
                more = self._lines - _LOGGED
                log.info("mcp/%s: %d more lines", self._name, more)
            self._began, self._lines = self._clock.boot(), 0
        self._lines += 1
        self._last.append(line[:_LINE_SHOWN])
        if self._lines <= _LOGGED:
            log.info("mcp/%s says: %s", self._name, shown(line))

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Log the program's lines until it ends."""
        left = b""
        while piece := await stream.read(8_192):
            *whole, left = (left + piece).split(b"\n")
            if len(left) > _LINE_SHOWN:
                whole, left = [*whole, left], b""
            for line in filter(None, whole):
                self.add(line)
            await asyncio.sleep(0)  # a flood must not block the event loop


def shown(line: bytes) -> str:
    """Return a line as text that is safe to display."""
    return visible(line[:_LINE_SHOWN].decode(errors="replace"), _LINE_SHOWN)
