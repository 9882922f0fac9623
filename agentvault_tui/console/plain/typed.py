"""Lines typed or piped in, read beside the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Final

_LONGEST: Final = 4_096
"""Characters of a line that count; nobody types more."""
_CHUNK: Final = 4_096


async def typed_lines(descriptor: int) -> AsyncIterator[str]:
    """Yield each line of *descriptor* until it ends.

    A thread reads it, because a terminal, a pipe and a file each block in their own
    way; by `os.read`, because a thread left in a buffered read holds a lock that the
    interpreter wants at exit.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def put(item: str | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        """Wait for bytes in a thread of its own, and hand over whole lines."""
        rest = b""
        try:
            while chunk := os.read(descriptor, _CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    put(line[:_LONGEST].decode(errors="replace"))
                rest = rest[:_LONGEST]
        except OSError:
            pass  # the terminal closed: the same as its end
        if rest:
            put(rest.decode(errors="replace"))
        put(None)

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line
