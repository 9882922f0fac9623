"""Ends a confined command with the process that started it, however that ends.

bubblewrap's ``--die-with-parent`` alone leaves gaps. The kernel sends no signal for a
parent that died before it was asked to (prctl(2), PR_SET_PDEATHSIG), bubblewrap's first
process inside asks for it when the command may run already, and ``--block-fd`` takes
the end of the pipe, as after SIGKILL, for permission to begin.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress
from itertools import pairwise
from typing import Final

_MOST_DESCRIPTORS: Final = 2**31 - 1
_REPORT_BYTES: Final = 4096


class Guard:
    """A process that lets a command begin, and ends it when this process ends."""

    def __init__(self, report: int, gate: int) -> None:
        """Start it.

        Args:
            report: the pipe on which bubblewrap says which process is the first inside.
            gate: the pipe that the command waits for. Both are the guard's from now on.
        """
        self._channel, theirs = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            try:
                _keep_guard(theirs.fileno(), report, gate)
            finally:
                os._exit(0)
        theirs.close()
        os.close(report)
        os.close(gate)

    def first_process(self) -> int | None:
        """Wait for the process with number 1 inside; None if bubblewrap failed."""
        return int(self._channel.recv(_REPORT_BYTES) or 0) or None

    def release(self) -> None:
        """Let the command begin."""
        self._channel.send(b"1")

    def end(self) -> None:
        """End all processes of the command at once, and the guard."""
        process, self._process = self._process, 0
        self._channel.close()
        if process:
            os.waitpid(process, 0)


def _keep_guard(channel: int, report: int, gate: int) -> None:
    """Be the guard, until *channel* is closed at its other end."""
    os.setsid()  # a terminal's signals and those to the group are not for the guard
    own = sorted((channel, report, gate))
    for before, after in pairwise((-1, *own, _MOST_DESCRIPTORS)):
        os.closerange(before + 1, after)
    text = b""
    while b"}" not in text and (piece := os.read(report, _REPORT_BYTES)):
        text += piece  # it comes in several writes
    number = int(json.loads(text)["child-pid"])
    first = os.pidfd_open(number)
    try:
        # Who started the command may be gone by now: then it never begins.
        with suppress(OSError):
            os.write(channel, b"%d" % number)
            if os.read(channel, 1):
                os.write(gate, b"1")
                os.read(channel, 1)
    finally:
        # The kernel ends all others of its namespace with it (pid_namespaces(7)).
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(first, signal.SIGKILL)
