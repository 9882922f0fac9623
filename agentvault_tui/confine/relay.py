"""Carries the connections of a confined command to AgentVault, byte for byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from agentvault_tui.confine.network import Endpoint

Places = Sequence[tuple[int, int, int, str, Any]]
"""Addresses of one endpoint, as getaddrinfo(3) has them."""
MOST_CONNECTIONS: Final = 256
"""Connections at a time; a further one waits in the kernel's queue.

Each takes two descriptors, of which a process usually has 1,024.
"""
_PAUSE_S: Final = 0.1
_PIECE: Final = 65_536
_DIAL_S: Final = 10.0


class Relay:
    """Accepts at sockets of the command's namespace, and connects from this one."""

    def __init__(
        self, listeners: Sequence[socket.socket], endpoints: Sequence[Endpoint]
    ) -> None:
        """Carry what arrives at each listener to the endpoint at its place."""
        found = (
            socket.getaddrinfo(one.host, one.port, type=socket.SOCK_STREAM)
            for one in endpoints
        )
        self._pairs = tuple(zip(listeners, found, strict=True))
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def start(self) -> None:
        """Start accepting, in threads that end with the process."""
        for pair in self._pairs:
            threading.Thread(target=self._accept, args=pair, daemon=True).start()

    def _accept(self, listener: socket.socket, places: Places) -> None:
        while True:
            self._slots.acquire()
            try:
                inside, _ = listener.accept()
            except OSError:
                self._slots.release()
                if listener.fileno() < 0:
                    return  # it was closed
                time.sleep(_PAUSE_S)  # there is no descriptor left for now
                continue
            carried = (inside, places)
            threading.Thread(target=self._carry, args=carried, daemon=True).start()

    def _carry(self, inside: socket.socket, places: Places) -> None:
        try:
            with ExitStack() as opened, suppress(OSError):
                opened.enter_context(inside)
                outside = opened.enter_context(_dial(places))
                outside.settimeout(None)
                for one in (inside, outside):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(
                    target=_copy, args=(outside, inside), daemon=True
                )
                back.start()
                _copy(inside, outside)
                back.join()
        finally:
            self._slots.release()


def _dial(places: Places) -> socket.socket:
    """Connect to the first address that answers."""
    failed: OSError | None = None
    for family, kind, protocol, _, address in places:
        outside = socket.socket(family, kind, protocol)
        outside.settimeout(_DIAL_S)
        try:
            outside.connect(address)
        except OSError as error:
            outside.close()
            failed = error
        else:
            return outside
    raise failed or OSError("it has no address")


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy to the end of *source*, and pass the end on; after an error, close both."""
    try:
        while piece := source.recv(_PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
