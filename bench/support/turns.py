"""Run ``agentvault`` with the turns of its event loop measured.

python bench/support/turns.py FILE ARGUMENT...

A turn is one pass of the loop: every callback that is ready, and all input and output.
Whatever arrives during it waits until it ends. The longest turn since the file was
zeroed stands in *FILE*: seconds on the clock, and seconds of the loop thread's own
processor time. On a shared machine the clock also counts when the thread waited for a
processor; the processor time leaves out what the loop waited for in a turn (a lock, a
disk), so a turn took at least the one and at most the other.
The loop never sleeps meanwhile: throughput is not to be measured in this way.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

_FORMAT: Final = struct.Struct("dd")


class Turns:
    """The file of the longest turn, shared by the broker and the bench."""

    def __init__(self, path: Path) -> None:
        """Open *path*; create it with no turn in it."""
        if not path.exists():
            path.write_bytes(bytes(_FORMAT.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _FORMAT.size)

    def clear(self) -> None:
        """Forget the longest turn."""
        _FORMAT.pack_into(self._shared, 0, 0.0, 0.0)

    def note(self, wall: float, cpu: float) -> None:
        """Note one turn."""
        longest = _FORMAT.unpack_from(self._shared)
        if wall > longest[0] or cpu > longest[1]:
            _FORMAT.pack_into(
                self._shared, 0, max(wall, longest[0]), max(cpu, longest[1])
            )

    @property
    def longest(self) -> tuple[float, float]:
        """Milliseconds of the longest turn: on the clock, and of processor time."""
        wall, cpu = _FORMAT.unpack_from(self._shared)
        return wall * 1000, cpu * 1000


def _measured(turns: Turns) -> asyncio.AbstractEventLoop:
    """Return a loop that notes each of its turns."""
    loop = uvloop.Loop()
    wall = cpu = 0.0

    def turn() -> None:
        nonlocal wall, cpu
        now, used = time.perf_counter(), time.thread_time()
        if wall:
            turns.note(now - wall, used - cpu)
        wall, cpu = now, used
        loop.call_soon(turn)

    loop.call_soon(turn)
    return loop


if __name__ == "__main__":
    measured = Turns(Path(sys.argv.pop(1)))
    uvloop.new_event_loop = lambda: _measured(measured)
    from agentvault_tui.cli import main

    main()
