"""Run ``agentvault`` with the turns of its event loop measured.

python bench/support/turns.py FILE ARGUMENT...

A turn is what the loop does between two looks for input: whatever arrives during it
waits until it ends. The longest one since the file was zeroed stands in *FILE*: seconds
on the clock, and seconds of the loop thread's own processor time. The clock also counts
the wait for a processor that others use, and for the interpreter's lock; the processor
time leaves out what the loop itself waits for. A turn took no more than the one, and no
less than the other.
The loop is asyncio's own, since uvloop does not tell when it looks; callbacks are the
same.
"""

from __future__ import annotations

import asyncio
import mmap
import selectors
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


class _Selector(selectors.DefaultSelector):
    """Notes the time from the end of each look for input to the next one."""

    turns: Turns
    since: tuple[float, float] | None = None

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Note the turn that has ended, and begin another."""
        if self.since is not None:
            wall, cpu = self.since
            self.turns.note(time.perf_counter() - wall, time.thread_time() - cpu)
        found = super().select(timeout)
        self.since = time.perf_counter(), time.thread_time()
        return found


def _measured(turns: Turns) -> asyncio.AbstractEventLoop:
    """Return a loop that notes each of its turns."""
    selector = _Selector()
    selector.turns = turns
    return asyncio.SelectorEventLoop(selector)


if __name__ == "__main__":
    measured = Turns(Path(sys.argv.pop(1)))
    uvloop.new_event_loop = lambda: _measured(measured)
    from agentvault_tui.cli import main

    main()
