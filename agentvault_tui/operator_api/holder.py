"""Hold one secret in memory for commands of the same user, where there is no keyring.

``python -m agentvault_tui.operator_api.holder SOCKET SECONDS``: the secret comes on
standard input, into memory that is not swapped; it is never on disk. Who connects to
the socket, which is its user's alone, sends one byte: `GET` for the secret, `DROP` to
have this process end.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import sys
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Deadline, SystemClock
from agentvault_tui.process import harden

GET: Final = b"g"
DROP: Final = b"d"
LONGEST: Final = mmap.PAGESIZE
"""Bytes of a secret."""
_LOOK: Final = 30.0
"""Seconds between two looks at the clock: a sleeping machine stops other timers."""
_PATIENCE: Final = 2.0


def main() -> None:
    """Answer until the time is over, or until ordered to end."""
    if os.fork():
        os._exit(0)
    os.setsid()
    harden()
    path, seconds = Path(sys.argv[1]), float(sys.argv[2])
    clock = SystemClock()
    ends = Deadline.after(clock, seconds)
    held = mmap.mmap(-1, LONGEST)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlock(
            ctypes.byref(ctypes.c_char.from_buffer(held)), ctypes.c_size_t(LONGEST)
        )
    secret = memoryview(held)[: os.readv(0, [held])]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        # bind(2) makes the file with 0777 less the umask: never with a wider mode.
        os.umask(0o177)
        bound.bind(str(path))
        bound.listen()
        os.write(1, b"ready\n")
        os.dup2(0, 1)
        try:
            while left := ends.remaining(clock):
                bound.settimeout(min(left, _LOOK))
                if not _answered(bound, secret):
                    return
        finally:
            path.unlink(missing_ok=True)


def _answered(bound: socket.socket, secret: memoryview) -> bool:
    """Answer the next caller, if there is one; False: end."""
    with contextlib.suppress(OSError):
        connected, _ = bound.accept()
        with connected:
            connected.settimeout(_PATIENCE)
            connection = connected.recv(1)
            if connection == GET:
                connected.sendall(secret)
            return connection != DROP
    return True


if __name__ == "__main__":
    main()
