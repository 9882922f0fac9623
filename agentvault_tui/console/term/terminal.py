"""Textual's driver without blocking writes, for input of any bytes.

A terminal may stop reading for minutes: a dropped SSH link, a paused tmux. Textual's
own writer then blocks the whole program, also when it is ordered to end, and for ever
when the terminal is gone. Here a thread waits in its place, invisible frames are not
even drawn, and when the terminal reads again it gets the present, not the past.
"""

from __future__ import annotations

import codecs
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from textual._xterm_parser import XTermParser
from textual.constants import ESCAPE_DELAY
from textual.drivers.linux_driver import LinuxDriver

_BEHIND: Final = 0.3
"""Seconds a write may wait before no more frames are drawn."""
_MUCH: Final = 512 * 1024
"""Bytes that may wait whatever the time."""
_PATIENCE: Final = 1.0
"""Seconds that the last bytes may take when the program ends."""
_FRAME_BEGINS: Final = "\x1b[?2026h"
_TYPED: Final = 4096
"""Bytes of typed input that are read at once."""
_PAUSE: Final = 0.1
"""Seconds between looks whether a lone Esc is the key, while it may be one."""
_SETTLED: Final = ESCAPE_DELAY + _PAUSE
"""Seconds after the last byte after which typed input is whole."""


class TerminalWriter:
    """Write to the terminal from a thread, so that it never blocks the loop."""

    def __init__(
        self,
        descriptor: int,
        *,
        resumed: Callable[[float], None],
        gone: Callable[[], None],
    ) -> None:
        """Write to *descriptor*.

        Args:
            descriptor: of the terminal.
            resumed: called, from a thread, when it reads again after it was behind;
                with the seconds it had stood still.
            gone: called, from a thread, when it is no more.
        """
        self._descriptor = descriptor
        self._resumed, self._gone = resumed, gone
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._since = 0.0
        """Since when the terminal owes us reading; 0 when it does not."""
        self._untold = 0.0
        """The length of the stall, until the deciding part has read it."""
        self._missed = False
        self._ended = self._dead = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="terminal")
        self._thread.start()

    def put(self, data: str) -> None:
        """Queue *data*; the begin of a frame waits for the rest."""
        with self._changed:
            self._waiting += data.encode(errors="replace")
            if data != _FRAME_BEGINS:
                self._changed.notify()

    @property
    def waits(self) -> float:
        """For how many seconds the terminal has not taken its output.

        Also right after it does again, until `settle`: no key comes between the two.
        """
        return max(self._owed(), self._untold)

    def settle(self) -> None:
        """Note that the consequences of a stall are done."""
        self._untold = 0.0

    def _owed(self) -> float:
        since = self._since
        return time.monotonic() - since if since else 0.0

    def behind(self) -> bool:
        """Check whether to skip drawing; a skipped frame is drawn on resume."""
        with self._changed:
            late = self._owed() > _BEHIND or len(self._waiting) > _MUCH
            if late and not self._dead:
                self._missed = True
            return late or self._dead

    def close(self) -> None:
        """Write the rest if the terminal reads it, and end."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                data, self._waiting = bytes(self._waiting), bytearray()
                self._since = time.monotonic()
            if not data:
                return
            try:
                # Not through a file: a thread left in one holds a lock that the
                # interpreter wants at its end.
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self._dead = True
                self._gone()
                return
            stood = self._owed()
            with self._changed:
                missed, self._missed = self._missed, False
                if missed:
                    self._untold = stood
                self._since = 0.0
            if missed:
                self._resumed(stood)


class WakingEvent(threading.Event):
    """An event that also wakes a `select` on its descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.woken, self._wake = os.pipe()

    def set(self) -> None:
        super().set()
        os.write(self._wake, b"\0")

    def close(self) -> None:
        os.close(self.woken)
        os.close(self._wake)


class TerminalDriver(LinuxDriver):
    """Textual's driver, writing through an outlet; no byte that is typed ends it."""

    exit_event: WakingEvent

    def __init__(self, app: Any, **more: Any) -> None:
        super().__init__(app, **more)
        self.outlet: TerminalWriter | None = None

    def start_application_mode(self) -> None:
        """Start the writer, once, before anything is written."""
        if self.outlet is None:
            app: Any = self._app

            def later(call: Callable[..., object], *values: object) -> None:
                if not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(call, *values)

            self.outlet = TerminalWriter(
                sys.__stderr__.fileno() if sys.__stderr__ else 2,
                resumed=lambda stood: later(app.terminal_resumed, stood),
                gone=lambda: later(app.exit, 0),
            )
            self.exit_event = WakingEvent()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def run_input_thread(self) -> None:
        """Read input; bytes that are not UTF-8 become unknown letters."""
        parser = XTermParser(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        settled = 0.0
        while not self.exit_event.is_set():
            # An Esc is known by the silence after it; all else waits for a byte.
            wait = _PAUSE if time.monotonic() < settled else None
            ready, _, _ = select.select(
                [self.fileno, self.exit_event.woken], [], [], wait
            )
            if self.exit_event.woken in ready:
                os.read(self.exit_event.woken, 1)
            if self.fileno in ready:
                settled = time.monotonic() + _SETTLED
                try:
                    data = os.read(self.fileno, _TYPED)
                except OSError:
                    data = b""
                if not data:
                    return  # the terminal is gone, which `ConsoleApp` looks for
                # Of a letter that has only begun nothing comes, and the parser takes
                # nothing for the end.
                for event in parser.feed(text) if (text := decode(data)) else ():
                    self.process_message(event)
            for event in parser.tick():
                self.process_message(event)

    def write(self, data: str) -> None:
        if self.outlet is not None:
            self.outlet.put(data)

    def close(self) -> None:
        super().close()
        if self.outlet is not None:
            self.outlet.close()
            self.outlet = None
            self.exit_event.close()
