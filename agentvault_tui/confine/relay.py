"""Carries the connections of a confined command to AgentVault, byte for byte.

One thread waits for all of them: a thread for each direction costs a request through
the gateway more than a tenth.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from agentvault_tui.confine.network import Endpoint

Places = Sequence[tuple[int, int, int, str, Any]]
"""Addresses of one endpoint, as getaddrinfo(3) has them."""
MOST_CONNECTIONS: Final = 256
"""Connections at a time; a further one waits in the kernel's queue.

Each takes two descriptors, of which a process usually has 1,024.
"""
_PIECE: Final = 65_536
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Side:
    """One end of a connection that is carried."""

    __slots__ = ("connected", "ended", "events", "other", "pending", "places", "socket")

    def __init__(self, opened: socket.socket, places: Places = ()) -> None:
        self.socket = opened
        self.other = self
        self.pending = b""
        """Bytes of the other end that are not written yet."""
        self.ended = False
        """Whether it has sent all that it sends."""
        self.connected = not places
        self.places = places
        """Addresses that are left to connect to."""
        self.events = 0
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def wanted(self) -> int:
        """Return the events to wait for; bytes that wait to be written stop reading."""
        reads = not self.ended and self.connected and self.other.connected
        events = _READ if reads and not self.other.pending else 0
        return events | (_WRITE if self.pending or not self.connected else 0)


class Relay:
    """Accepts at sockets of the command's namespace, and connects from this one."""

    def __init__(
        self, listeners: Sequence[socket.socket], endpoints: Sequence[Endpoint]
    ) -> None:
        """Carry the bytes of each listener to the endpoint at its place."""
        self._selector = selectors.DefaultSelector()
        self._listeners = {
            listener: socket.getaddrinfo(one.host, one.port, type=socket.SOCK_STREAM)
            for listener, one in zip(listeners, endpoints, strict=True)
        }
        self._sides: set[_Side] = set()
        self._accepting = False
        self._ended, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start accepting, in a thread."""
        self._selector.register(self._ended, _READ)
        for listener in self._listeners:
            listener.setblocking(False)
        self._accept_more()
        self._thread.start()

    def stop(self) -> None:
        """Close all connections, and stop."""
        self._wake.close()
        self._thread.join()
        for side in self._sides:
            side.socket.close()
        self._ended.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._ended:
                    return
                if key.data is None:
                    self._accept(key.fileobj)
                elif key.data in self._sides:
                    self._serve(key.data, events)

    def _accept_more(self) -> None:
        """Accept if there is a place for a connection, else leave it in the queue."""
        wanted = len(self._sides) < 2 * MOST_CONNECTIONS
        if wanted is not self._accepting:
            self._accepting = wanted
            for listener in self._listeners:
                if wanted:
                    self._selector.register(listener, _READ)
                else:
                    self._selector.unregister(listener)

    def _accept(self, listener: Any) -> None:
        with suppress(OSError):
            opened, _ = listener.accept()
            inside = _Side(opened)
            self._sides.add(inside)
            self._connect(inside, self._listeners[listener])
        self._accept_more()

    def _connect(self, inside: _Side, places: Places) -> None:
        """Begin to connect to the first of *places*."""
        (family, kind, protocol, _, address), *left = places
        outside = _Side(socket.socket(family, kind, protocol), places)
        outside.places = left
        inside.other, outside.other = outside, inside
        self._sides.add(outside)
        outside.socket.connect_ex(address)
        with suppress(OSError):  # on loopback it is connected by now
            outside.socket.getpeername()
            outside.connected = True
        for side in (outside, inside):
            self._wait(side)

    def _serve(self, side: _Side, events: int) -> None:
        other = side.other
        try:
            if not side.connected:
                if side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return self._try_next(side)
                side.connected = True
            elif events & _WRITE:
                side.pending = side.pending[side.socket.send(side.pending) :]
                self._pass_end_on(other)
            elif events & _READ:
                piece = side.socket.recv(_PIECE)
                side.ended = not piece
                other.pending = piece[self._sent(other, piece) :]
                self._pass_end_on(side)
        except OSError:
            return self._close(side)
        if side.ended and other.ended and not (side.pending or other.pending):
            return self._close(side)
        self._wait(side)
        return self._wait(other)

    def _try_next(self, outside: _Side) -> None:
        """Connect to the next address after one that does not answer."""
        inside, left = outside.other, outside.places
        if not left:
            return self._close(outside)
        self._drop(outside)
        return self._connect(inside, left)

    @staticmethod
    def _sent(side: _Side, piece: bytes) -> int:
        try:
            return side.socket.send(piece) if piece else 0
        except BlockingIOError:
            return 0

    @staticmethod
    def _pass_end_on(side: _Side) -> None:
        """Close the other end for writing, once it has all bytes of *side*."""
        if side.ended and not side.other.pending:
            side.other.socket.shutdown(socket.SHUT_WR)

    def _wait(self, side: _Side) -> None:
        """Wait for the events that *side* wants."""
        wanted = side.wanted
        if wanted == side.events:
            return
        if not side.events:
            self._selector.register(side.socket, wanted, side)
        elif wanted:
            self._selector.modify(side.socket, wanted, side)
        else:
            self._selector.unregister(side.socket)
        side.events = wanted

    def _close(self, side: _Side) -> None:
        for one in (side, side.other):
            self._drop(one)
        self._accept_more()

    def _drop(self, side: _Side) -> None:
        if side.events:
            self._selector.unregister(side.socket)
            side.events = 0
        self._sides.discard(side)
        side.socket.close()
