"""Write lines to a server's program, each whole or not at all, and read its lines.

If an agent is revoked, its lines are withdrawn, unless the program already has a part.
So a line is written in one call if the pipe has room for all of it: up to ``PIPE_BUF``
bytes are written atomically, and an empty pipe takes its whole capacity (pipe(7)).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import termios
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from agentvault_tui.model import AgentId

_PIPE_BYTES: Final = 2**20
"""Capacity that a user may give a pipe on Linux (``/proc/sys/fs/pipe-max-size``)."""
_LOOK_S: Final = 0.002
"""Seconds between two checks whether a pipe is empty: no event reports it."""
_MOST_LINES: Final = 1_024
"""Queued lines at most: the program could ask for answers without end."""


_PIECE: Final = 65_536
_A_TURN: Final = 100
"""Lines handled in one turn of the event loop, each in some 20 microseconds."""
_END: Final = 4_096
"""Bytes at each end of a line that is too long that are returned."""
_LONGEST: Final = 256 * 2**20
"""Bytes of one line after which its program is not read any more."""


async def read_lines(
    stream: asyncio.StreamReader, most: int, noise: Callable[[bytes], None]
) -> AsyncIterator[tuple[bytes, bool]]:
    """Read the lines that a program writes.

    A turn of the event loop handles few of them, whatever their length.

    Args:
        stream: its standard output.
        most: bytes that a line may have.
        noise: called with a line that is no JSON object.

    Yields:
        a line without its end, and True; or the two ends of a line that is too long,
        and False.
    """
    line, size = bytearray(), 0
    while piece := await stream.read(_PIECE):
        for number, part in enumerate(piece.split(b"\n")):
            if number:
                if size > most or line.lstrip().startswith(b"{"):
                    yield bytes(line), size <= most
                elif line and not line.isspace():
                    noise(bytes(line))
                line, size = bytearray(), 0
            if number % _A_TURN == _A_TURN - 1:
                await asyncio.sleep(0)
            line += part
            size += len(part)
            if size > most:
                del line[_END:-_END]
        if size > _LONGEST:
            yield bytes(line), False
            return
        await asyncio.sleep(0)  # a flood must not block the event loop


class PipeLine:
    """One line on its way to a program."""

    def __init__(
        self,
        text: bytes,
        agent_id: AgentId | None,
        release: Callable[[], None],
        sent: Callable[[], None],
    ) -> None:
        """Write nothing yet.

        Args:
            text: without its end.
            agent_id: its agent; None for the gateway's own.
            release: called right before each piece is written; raises where no byte
                of it may be written any more.
            sent: called as soon as the program has been given all of it, so that a
                revocation finds it recorded.
        """
        self.agent_id = agent_id
        self.rest = memoryview(text + b"\n")
        self.release, self.sent = release, sent
        self.begun = False
        """Whether the program has some of it, or all."""
        self.end = 0
        """How many bytes the pipe had taken when it had taken all of it."""
        self.given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when all of it was written; raises the error that stopped it."""

    def forget(self) -> None:
        """Release the text and the call, once all of it was written.

        A request that its client has left stays until the program has read it.
        """
        self.rest = memoryview(b"")
        self.release = self.sent = lambda: None

    def fail(self, error: BaseException) -> None:
        """End the wait for it."""
        if not self.given.done():
            self.given.set_exception(error)
            self.given.exception()  # its sender may have left


class LinePipe:
    """The writing end of a program's standard input."""

    def __init__(
        self,
        end: int,
        on_broken: Callable[[], None],
        on_halted: Callable[[PipeLine], None],
    ) -> None:
        """Write nothing yet.

        Args:
            end: the descriptor, which is closed with this.
            on_broken: called when the program has closed its end.
            on_halted: called if a line must not be completed; nothing more is written.
        """
        self._end = end
        self._on_broken, self._on_halted = on_broken, on_halted
        self._lines: deque[PipeLine] = deque()
        self._more = asyncio.Event()
        self._halted = False
        self._taken = 0
        os.set_blocking(end, False)
        with suppress(OSError, AttributeError):
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._feeding = asyncio.get_running_loop().create_task(self._feed())

    @property
    def half(self) -> PipeLine | None:
        """Return the line that is written in part, if there is one."""
        line = self._lines[0] if self._lines else None
        return line if line is not None and line.begun and line.rest else None

    @property
    def is_read(self) -> bool:
        """Check whether the program has read all that was written."""
        return not self._unread()

    def has_read(self, line: PipeLine) -> bool:
        """Check whether the program has read all of a line from this pipe."""
        return not line.rest and self._taken - self._unread() >= line.end

    def put(
        self,
        text: bytes,
        agent_id: AgentId | None = None,
        release: Callable[[], None] = lambda: None,
        sent: Callable[[], None] = lambda: None,
    ) -> PipeLine | None:
        """Queue a line and return it; None if the queue is full or halted."""
        if self._halted or len(self._lines) >= _MOST_LINES:
            return None
        line = PipeLine(text, agent_id, release, sent)
        self._lines.append(line)
        self._more.set()
        return line

    def take_back(self, line: PipeLine) -> bool:
        """Withdraw a line; return whether none of it was written."""
        if line.begun:
            return False
        with suppress(ValueError):
            self._lines.remove(line)
        return True

    def halt(self) -> list[PipeLine]:
        """Stop writing; return the queued lines of which nothing was written."""
        self._halted = True
        left = [line for line in self._lines if not line.begun]
        self._lines.clear()
        return left

    def close(self) -> None:
        """Close the pipe; queued lines are not written."""
        self.halt()
        if self._end >= 0:
            self._feeding.cancel()
            asyncio.get_running_loop().remove_writer(self._end)
            os.close(self._end)
            self._end = -1

    async def _feed(self) -> None:
        try:
            while not self._halted:
                if not self._lines:
                    self._more.clear()
                    await self._more.wait()
                    continue
                await self._give(self._lines[0])
        except OSError:
            self._on_broken()

    async def _give(self, line: PipeLine) -> None:
        """Write a line, unless it is withdrawn or stopped."""
        while line.rest:
            if not line.begun and len(line.rest) > select.PIPE_BUF:
                while self._unread() and self._is_next(line):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
            if not self._is_next(line):
                return
            try:
                line.release()
            except Exception as refusal:  # noqa: BLE001 - its sender raises it
                self._stop(line, refusal)
                return
            taken = self._write(line.rest)
            line.rest = line.rest[taken:]
            line.begun = line.begun or taken > 0
            self._taken += taken
            if line.rest:
                await self._writable()
        self._lines.popleft()
        line.end = self._taken
        line.sent()
        line.forget()
        if not line.given.done():
            line.given.set_result(None)

    def _is_next(self, line: PipeLine) -> bool:
        return bool(self._lines) and self._lines[0] is line

    def _stop(self, line: PipeLine, refusal: Exception) -> None:
        self._lines.remove(line)
        line.fail(refusal)
        if line.begun:
            self._on_halted(line)

    def _write(self, piece: memoryview) -> int:
        try:
            return os.write(self._end, piece)
        except BlockingIOError:
            return 0

    def _unread(self) -> int:
        """Return how many bytes the program has not read yet."""
        count = bytearray(4)
        fcntl.ioctl(self._end, termios.FIONREAD, count)
        return int.from_bytes(count, "little")

    async def _writable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._end, ready.set)
        try:
            await ready.wait()
        finally:
            if self._end >= 0:
                loop.remove_writer(self._end)
