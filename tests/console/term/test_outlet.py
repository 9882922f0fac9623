"""A terminal that stops reading, or goes away, never holds the console up."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.patience import PATIENT

from agentvault_tui.console.term.terminal import TerminalWriter, WakingEvent


class Ends:
    """A pipe with an outlet on it, and what it said."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.resumed: list[float] = []
        self.told = threading.Event()
        self.gone = threading.Event()
        self.outlet = TerminalWriter(
            self.writing, resumed=self._resumed, gone=self.gone.set
        )

    def _resumed(self, stood: float) -> None:
        self.resumed.append(stood)
        self.told.set()

    def fill(self) -> None:
        """Write more than a pipe holds, and see it be noticed."""
        self.outlet.put("x" * 300_000)
        deadline = time.monotonic() + 10
        while not self.outlet.behind():
            assert time.monotonic() < deadline, "nobody noticed"
            time.sleep(0.01)

    def read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            read += os.read(self.reading, size - len(read))
        return read


@contextmanager
def _ends() -> Iterator[Ends]:
    ends = Ends()
    try:
        yield ends
    finally:
        ends.outlet.close()
        for descriptor in (ends.reading, ends.writing):
            try:
                os.close(descriptor)
            except OSError:
                assert ends.gone.is_set()


def test_what_is_put_is_written_in_order() -> None:
    """Everything arrives, once, as UTF-8; half a surrogate does not end the thread."""
    with _ends() as ends:
        for text in ("\x1b[?2026h", "a·", "\udc00", "b"):
            ends.outlet.put(text)
        assert ends.read(13) == "\x1b[?2026ha·?b".encode()
        assert not ends.outlet.behind()


def test_a_stall_is_noticed_and_its_end_told() -> None:
    """While it stands nothing new is drawn; when it reads again, that is said once."""
    with _ends() as ends:
        ends.fill()
        assert ends.outlet.waits > 0.2
        ends.read(300_000)
        assert ends.told.wait(PATIENT)
        assert len(ends.resumed) == 1
        assert ends.resumed[0] > 0.2
        # A key that comes before that has been heard must not count.
        assert ends.outlet.waits == ends.resumed[0]
        ends.outlet.told()
        assert ends.outlet.waits == 0
        assert not ends.outlet.behind()


def test_leaving_does_not_wait_for_a_stalled_terminal() -> None:
    """The program ends in a moment, whatever the terminal does."""
    with _ends() as ends:
        ends.fill()
        before = time.monotonic()
        ends.outlet.close()
        assert time.monotonic() - before < 5
        ends.read(300_000)


def test_a_terminal_that_is_gone_is_told() -> None:
    """It is said once, and what is put afterwards goes nowhere."""
    with _ends() as ends:
        os.close(ends.reading)
        ends.outlet.put("x")
        assert ends.gone.wait(PATIENT)
        ends.outlet.put("y" * 1_000_000)
        assert ends.outlet.behind()


def test_an_ending_wakes_whoever_waits_for_a_key() -> None:
    """A reader that waits for a byte without end is woken by the end, and knows it."""
    ending, seen = WakingEvent(), []

    def wait() -> None:
        select.select([ending.woken], [], [])
        seen.append(ending.is_set())

    reader = threading.Thread(target=wait)
    reader.start()
    assert not ending.is_set()
    ending.set()
    reader.join(10)
    ending.close()
    assert seen == [True]
