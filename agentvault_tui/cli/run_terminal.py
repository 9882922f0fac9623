"""The standard streams of a confined command: pipes, and a terminal of its own.

A descriptor is a way out. ``/proc/self/fd/0`` opens its file again, with the user's
rights. A socket belongs to the network in which it was made, and can be connected to
another address there. All programs at a terminal share its mode, its line discipline
and its foreground. So the command gets copies of `run`'s own streams.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import termios
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_PIECE: Final = 65_536
_BACKGROUND_MS: Final = 500
"""Between two checks whether `run` is in the terminal's foreground."""


class CommandStreams:
    """The standard streams of a command, in the place of those of `run`."""

    def __init__(self) -> None:
        """Open its streams; nothing is copied before `begin`."""
        self._copies: list[threading.Thread] = []
        self._inner: list[int] = []
        """The command's ends, which are open here as well."""
        at = [number for number in (1, 2, 0) if os.isatty(number)]
        self._terminal = _Terminal(at[0]) if at else None
        self.numbers: tuple[int, int, int] = self._open()

    def begin(self) -> None:
        """Start to copy."""
        for thread in self._copies:
            thread.start()
        if self._terminal is not None:
            self._terminal.begin()

    def restore(self) -> None:
        """Wait until all that the command wrote is copied; restore the terminal."""
        for inner in self._inner:
            os.close(inner)
        for thread in self._copies:
            if thread.ident is None:
                thread.start()  # the start failed, and its reason is in the pipe
            thread.join()
        if self._terminal is not None:
            self._terminal.restore()

    def _open(self) -> tuple[int, int, int]:
        terminal, shared = self._terminal, os.path.sameopenfile(1, 2)
        given: list[int] = []
        if terminal is not None:
            self._inner.append(terminal.inner)
            self._copy(terminal.ours, terminal.outer, terminal.ours)
        for number in (0, 1, 2):
            if number == 2 and shared:
                given.append(given[1])  # one pipe, so that both keep their order
            elif terminal is None or not os.isatty(number):
                given.append(self._pipe(number))
            elif number == 0 and _is_pipe(1):
                # The next program of the pipeline may read the terminal's keys.
                given.append(self._pipe(None))
            else:
                given.append(terminal.inner)
        if terminal is not None and given[0] == terminal.inner:
            self._thread(terminal.pass_keys)
        return given[0], given[1], given[2]

    def _pipe(self, number: int | None) -> int:
        """Return the command's end of a pipe in the place of a stream.

        Args:
            number: the stream; None for a pipe that ends at once.
        """
        read, write = os.pipe()
        self._inner.append(write if number else read)
        if number is None:
            os.close(write)
        elif number == 0:
            self._copy(number, write, write)
        else:
            self._copy(read, number, read)
        return self._inner[-1]

    def _copy(self, source: int, target: int, end: int) -> None:
        self._thread(lambda: _copy(source, target, end))

    def _thread(self, work: Callable[[], None]) -> None:
        self._copies.append(threading.Thread(target=work, daemon=True))


class _Terminal:
    """The command's terminal, copied to and from the user's."""

    def __init__(self, outer: int) -> None:
        """Open it, as large as the user's and in the same state.

        Args:
            outer: a standard stream that is the user's terminal.
        """
        self.outer = outer
        self.ours, self.inner = os.openpty()
        self._keys = os.dup(self.ours)
        self._state: list[Any] = termios.tcgetattr(outer)
        self._raw = False
        self._handlers: dict[int, Any] = {}
        termios.tcsetattr(self.inner, termios.TCSANOW, self._state)
        self._resize()

    def begin(self) -> None:
        """Follow the user's terminal: its size, and its foreground."""
        for number, handler in (
            (signal.SIGWINCH, self._resize),
            (signal.SIGCONT, self._set_raw),
        ):
            self._handlers[number] = signal.signal(number, handler)

    def restore(self) -> None:
        """Leave the user's terminal in the state that it had."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._keys)
        with suppress(OSError, termios.error):  # it may have been hung up
            if self._raw and self._is_ours():
                termios.tcsetattr(self.outer, termios.TCSADRAIN, self._state)

    def pass_keys(self) -> None:
        """Pass the user's keys on, while `run` is in the terminal's foreground."""
        ended, both = select.poll(), select.poll()
        for one in (ended, both):
            one.register(self._keys, 0)  # says when the command's side is closed
        both.register(0, select.POLLIN)
        with suppress(OSError):
            while True:
                ready = both.poll() if self._set_raw() else ended.poll(_BACKGROUND_MS)
                if any(file == self._keys for file, _ in ready):
                    break
                if ready and self._is_ours():
                    os.write(self._keys, os.read(0, _PIECE))

    def _is_ours(self) -> bool:
        return os.tcgetpgrp(self.outer) == os.getpgrp()

    def _set_raw(self, *_: object) -> bool:
        """Set the user's terminal to raw mode, if `run` is in the foreground.

        Returns:
            whether it is.
        """
        with suppress(OSError, termios.error):  # no terminal of this session any more
            if self._is_ours():
                if not self._raw or termios.tcgetattr(self.outer) == self._state:
                    self._raw = True
                    tty.setraw(self.outer, termios.TCSANOW)
                return True
        return False

    def _resize(self, *_: object) -> None:
        with suppress(OSError):
            size = fcntl.ioctl(self.outer, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.ours, termios.TIOCSWINSZ, size)


def _copy(source: int, target: int, end: int) -> None:
    """Copy all bytes, and close *end*, which is one of both.

    It ends with the reader, also while more could follow.
    """
    waiting = select.poll()
    waiting.register(source, select.POLLIN)
    waiting.register(target, 0)  # says when its last reader has ended
    with suppress(OSError):  # as a terminal ends, or a disk is full
        while all(file == source for file, _ in waiting.poll()):
            if not (piece := os.read(source, _PIECE)):
                break
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(target, rest) :]
    os.close(end)


def _is_pipe(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
