"""Log the standard error of a server's program: displayable, and bounded."""

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
    """The log of one program's standard error."""

    def __init__(self, name: str, clock: Clock) -> None:
        """Log nothing yet; *name* is the server's."""
        self._name = name
        self._clock = clock
        self._last: deque[bytes] = deque(maxlen=_LAST_LINES)

    @property
    def last(self) -> str:
        """Return the last lines, displayable."""
        return " / ".join(map(shown, self._last))

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Log the program's lines until it ends."""
        began, lines = self._clock.boot(), 0
        left = b""
        while piece := await stream.read(8_192):
            *whole, left = (left + piece).split(b"\n")
            if len(left) > _LINE_SHOWN:
                whole, left = [*whole, left], b""
            if self._clock.boot() - began > _LOGGED_S:
                if lines > _LOGGED:
                    log.info("mcp/%s: %d more lines", self._name, lines - _LOGGED)
                began, lines = self._clock.boot(), 0
            for line in filter(None, whole):
                lines += 1
                self._last.append(line[:_LINE_SHOWN])
                if lines <= _LOGGED:
                    log.info("mcp/%s says: %s", self._name, shown(line))
            await asyncio.sleep(0)  # a flood must not block the event loop


def shown(line: bytes) -> str:
    """Return a line as text that is safe to display."""
    return visible(line[:_LINE_SHOWN].decode(errors="replace"), _LINE_SHOWN)
