"""The terminal and the standard streams of a confined command.

A descriptor is a way out: ``/proc/self/fd/0`` opens its file again, with the user's
rights, and a signal to a process group reaches `run` and the programs that wait for it.
"""

from __future__ import annotations

import os
import signal
import stat
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

_PIECE: Final = 65_536


@contextmanager
def foreground(group: int) -> Iterator[None]:
    """Let a process group have the terminal during a block, if it is ours to give.

    Its state is restored afterwards, also after a command that stopped its output.

    Args:
        group: the process group, in this session.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield  # there is none
        return
    with ExitStack() as undo:
        undo.callback(os.close, terminal)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            before = termios.tcgetattr(terminal)
            # A background group that writes or changes the terminal is stopped.
            ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            undo.callback(signal.signal, signal.SIGTTOU, ignored)
            os.tcsetpgrp(terminal, group)
            undo.callback(_take_back, terminal, before)
        yield


def _take_back(terminal: int, attributes: list[Any]) -> None:
    with suppress(OSError, termios.error):  # it may have been hung up
        os.tcsetpgrp(terminal, os.getpgrp())
        termios.tcflow(terminal, termios.TCOON)
        termios.tcsetattr(terminal, termios.TCSADRAIN, attributes)


class StreamPipes:
    """Pipes in the place of standard streams that are files, for a command's time."""

    def __init__(self) -> None:
        """Put a pipe in the place of each such stream; `begin` copies."""
        self._files: dict[int, int] = {}
        self._copies: list[threading.Thread] = []
        numbers = [number for number in (0, 1, 2) if _is_file(number)]
        shared = {1, 2} <= {*numbers} and os.path.sameopenfile(1, 2)
        for number in numbers:
            file = self._files[number] = os.dup(number)
            if number == 2 and shared:
                os.dup2(1, 2)  # one pipe, so that both keep their order
                continue
            read, write = os.pipe()
            os.dup2(read if number == 0 else write, number)
            os.close(read if number == 0 else write)
            ends = (file, write) if number == 0 else (read, file)
            self._copies.append(
                threading.Thread(target=_copy, args=(*ends, number), daemon=True)
            )

    def begin(self) -> None:
        """Start to copy."""
        for thread in self._copies:
            thread.start()

    def restore(self) -> None:
        """Put the files back, once all that the command wrote is in them."""
        for number, file in self._files.items():
            os.dup2(file, number)  # closes the last end of the pipe here
        for thread in self._copies:
            if thread.ident is None:
                thread.start()  # the start failed, and its reason is in the pipe
            thread.join()
        for file in self._files.values():
            os.close(file)


def _copy(source: int, target: int, number: int) -> None:
    """Copy all bytes, and close the end of the pipe of stream *number*."""
    with suppress(OSError):  # the reader has ended, or the disk is full
        while piece := os.read(source, _PIECE):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(target, rest) :]
    os.close(target if number == 0 else source)


def _is_file(number: int) -> bool:
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return False  # it is closed
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)
