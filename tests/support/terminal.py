"""Runs a program on a pseudo-terminal and keeps what it painted."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pyte
from support.forked import Process
from support.patience import PATIENT


class Terminal:
    """A child process on a pty of a given size; use it as a context manager."""

    def __init__(
        self,
        line: Sequence[Any],
        env: Mapping[str, str],
        *,
        columns: int = 100,
        rows: int = 50,
    ) -> None:
        """Start *line*; one that begins with a function is run in a forked process."""
        self.master, slave = pty.openpty()
        _size(slave, columns, rows)
        streams = (slave, slave, slave)
        self.process: Process | subprocess.Popen[bytes]
        if callable(line[0]):
            self.process = Process(*line, env=env, streams=streams, session=True)
        else:
            self.process = subprocess.Popen(
                list(line),
                **dict(zip(("stdin", "stdout", "stderr"), streams, strict=True)),
                env=dict(env),
                start_new_session=True,
            )
        self._name = os.ttyname(slave)
        os.close(slave)
        self.painted = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._fed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def write(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def read_until(self, done: Callable[[str], bool], seconds: float = PATIENT) -> str:
        """Read until *done* says yes to everything painted so far."""
        deadline = time.monotonic() + seconds
        while not done(self.text):
            left = deadline - time.monotonic()
            if left <= 0 or not self.read(left):
                shown = "\n".join(self.display)
                raise AssertionError(f"not seen within {seconds} s:\n{shown}")
        return self.text

    def see(self, seen: str, seconds: float = PATIENT) -> None:
        """Read until *seen* stands on the screen: only what differs is painted."""
        self.read_until(lambda _: any(seen in row for row in self.display), seconds)

    @property
    def display(self) -> list[str]:
        """The screen's rows, as a terminal would show what was painted so far."""
        self._stream.feed(self.painted[self._fed :])
        self._fed = len(self.painted)
        return _rows(self._screen)

    def resize(self, columns: int, rows: int) -> None:
        """Be another size, and say so."""
        _ = self.display
        _size(self.master, columns, rows)
        self._screen.resize(rows, columns)
        # The child has no controlling terminal whose kernel side would tell it.
        self.process.send_signal(signal.SIGWINCH)

    def painted_since(self, start: int) -> list[str]:
        """What a blank terminal shows of the bytes painted after *start*."""
        screen = pyte.Screen(self._screen.columns, self._screen.lines)
        pyte.ByteStream(screen).feed(self.painted[start:])
        return _rows(screen)

    def hold(self) -> None:
        """Take nothing more from the child, as after ctrl+s; reading finds no more."""
        self._flow(termios.TCOOFF)
        while self.read(0):
            pass

    def release(self) -> None:
        """Take again what the child writes, and what it could not write meanwhile."""
        self._flow(termios.TCOON)

    def _flow(self, action: int) -> None:
        slave = os.open(self._name, os.O_RDWR | os.O_NOCTTY)
        termios.tcflow(slave, action)
        os.close(slave)

    @property
    def unreadable(self) -> list[str]:
        """Each row with letters in the colour of what is behind them."""
        rows = self.display
        return [
            rows[y]
            for y, row in self._screen.buffer.items()
            if any(
                cell.fg == cell.bg and cell.data.isalnum()
                for cell in row.values()
                if cell.fg != "default"
            )
        ]

    def finish(self, seconds: float = PATIENT) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.read(left):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def text(self) -> str:
        return self.painted.decode("utf-8", "replace").replace("\r\n", "\n")

    def read(self, seconds: float) -> bool:
        """Read what is painted within *seconds*; tell whether there was anything."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            chunk = os.read(self.master, 65_536)
        except OSError:  # Linux: the other end is closed
            return False
        self.painted += chunk
        return bool(chunk)


def _size(descriptor: int, columns: int, rows: int) -> None:
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)


def _rows(screen: pyte.Screen) -> list[str]:
    """Read the cells; pyte's own reading trips over half a wide letter painted over."""
    columns, rows = range(screen.columns), range(screen.lines)
    return ["".join(screen.buffer[y][x].data for x in columns) for y in rows]
