"""A program on a pty, with every byte it paints and when; and what it costs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import pyte

COLUMNS, ROWS = 120, 40
_ASKED: Final = b"\x1b[?2026$p"
"""Is there synchronised output? pyte would print the end of it."""


class Screen:
    """A child on a 120x40 pty; a thread keeps what it paints."""

    def __init__(self, line: Sequence[str], **more: str) -> None:
        self.master, slave = pty.openpty()
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        env |= {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        env.pop("NO_COLOR", None)
        # What is installed is compiled: once here too, and not at every start.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env |= more
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            list(line),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
        )
        os.close(slave)
        self.chunks: list[tuple[float, bytes]] = []
        self._shown = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._shown)
        self._fed = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(5)
        os.close(self.master)

    def _read(self) -> None:
        while self.process.poll() is None:
            ready, _, _ = select.select([self.master], [], [], 0.2)
            if not ready:
                continue
            try:
                chunk = os.read(self.master, 65_536)
            except OSError:
                return
            self.chunks.append((time.perf_counter(), chunk))
            if _ASKED in chunk:  # synchronised output: yes, we can
                os.write(self.master, b"\x1b[?2026;2$y")

    def press(self, key: str) -> float:
        """Press a key; return when."""
        os.write(self.master, key.encode())
        return time.perf_counter()

    def seen(self, text: str, seconds: float = 20.0, *, since: float = 0.0) -> float:
        """Wait for *text* painted *since* then; return when its last chunk came."""
        wanted = text.encode()
        deadline = time.perf_counter() + seconds
        whole, looked = b"", 0
        while time.perf_counter() < deadline:
            while looked < len(self.chunks):
                at, chunk = self.chunks[looked]
                looked += 1
                whole = whole[-len(wanted) :] + chunk if at >= since else b""
                if wanted in whole:
                    return at
            time.sleep(0.005)
        raise SystemExit(f"'{text}' was not painted within {seconds} s")

    def found(self, pattern: str) -> str:
        """Return what *pattern* finds on the screen as it is now, or nothing."""
        while self._fed < len(self.chunks):
            self._feed()
        return self._find(pattern)

    def turned(self, pattern: str, was: str, seconds: float = 20.0) -> float:
        """Wait until *pattern* finds something else than it did; return since when."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            while self._fed < len(self.chunks):
                at = self._feed()
                if self._find(pattern) not in {"", was}:
                    return at
            time.sleep(0.005)
        raise SystemExit(f"'{pattern}' still finds '{was}' after {seconds} s")

    def _feed(self) -> float:
        """Show one more chunk; return when it came."""
        at, chunk = self.chunks[self._fed]
        self._fed += 1
        self._stream.feed(chunk.replace(_ASKED, b""))
        return at

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, "\n".join(self._shown.display))
        return found.group() if found else ""

    def painted(self, since: float) -> int:
        """Return how many bytes were painted since then."""
        return sum(len(chunk) for at, chunk in self.chunks if at >= since)

    @property
    def cpu(self) -> float:
        """Seconds of processor time used so far, of all threads, to the nanosecond."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        spent = ((each / "schedstat").read_text().split()[0] for each in threads)
        return sum(map(int, spent)) / 1e9

    @property
    def resident(self) -> float:
        """Megabytes resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def changes(self, rows: range, columns: range) -> list[float]:
        """Return when the text in that part of the screen changed."""
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        found: list[float] = []
        before: list[str] = []
        for at, chunk in self.chunks:
            stream.feed(chunk.replace(_ASKED, b""))
            lines = screen.buffer
            now = [lines[row][column].data for row in rows for column in columns]
            if now != before:
                before = now
                found.append(at)
        return found
