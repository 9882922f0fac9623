"""Accepts TLS connections: handshakes have a deadline, and a bound on their number.

uvloop's own TLS server tells nobody of a connection before its handshake is over, so
whoever connects and says nothing would count nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from agentvault_tui.web.limits import Limits
from agentvault_tui.web.places import ConnectionSlot, Places
from agentvault_tui.web.sockets import tcp_peer_uid
from agentvault_tui.web.tls import ServerTls

_log = logging.getLogger("agentvault.web")

_HANDSHAKE: Final = 22
"""The first byte of a TLS connection (RFC 8446 section 5.1: ContentType)."""
_SHUTDOWN_SECONDS: Final = 2.0
"""How long a peer may owe its close_notify."""
_PAUSE_SECONDS: Final = 0.1
_AT_ONCE: Final = 16
_DROPPED_BYTES: Final = 65_536

Factory = Callable[[float, ConnectionSlot], asyncio.Protocol]


class Handshakes:
    """Accepts on one socket; whoever has finished its handshake is a connection."""

    def __init__(
        self,
        bound: socket.socket,
        tls: ServerTls,
        limits: Limits,
        *,
        connect: Factory,
        places: Places,
        plain: bytes,
    ) -> None:
        """Be ready to accept.

        Args:
            bound: a TCP socket, not listening yet.
            tls: what is shown.
            limits: the handshake, too, must be over within ``head_seconds``.
            connect: makes the protocol of a connection accepted at that loop time,
                which has that place.
            places: those of the listener: a handshake takes one.
            plain: the whole answer to someone who speaks HTTP without TLS.
        """
        self._bound = bound
        self._tls = tls
        self._seconds = limits.head_seconds
        self._connect = connect
        self._places = places
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Task[bool]] = set()
        self._paused: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen."""
        self._bound.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept nobody any more, and drop who has not finished."""
        self._pause()
        if self._paused is not None:
            self._paused.cancel()
        for task in self._pending:
            task.cancel()

    def _resume(self) -> None:
        self._loop.add_reader(self._bound, self._accept)

    def _pause(self) -> None:
        self._loop.remove_reader(self._bound)

    def _accept(self) -> None:
        """Take who waits, a few at a time: those who are in want the loop too."""
        for _ in range(_AT_ONCE):
            try:
                connected, _ = self._bound.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: the queue would wake us again at once.
                _log.warning("nobody is accepted for a moment: %s", error)
                self._pause()
                self._paused = self._loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            self._begin(connected)

    def _begin(self, connected: socket.socket) -> None:
        place = self._places.take(lambda: tcp_peer_uid(connected), connected.close)
        if place is None:
            connected.close()
            return
        task = asyncio.create_task(self._greet(connected, self._loop.time(), place))
        place.drop = task.cancel
        self._pending.add(task)
        task.add_done_callback(partial(self._ended, connected, place))

    def _ended(
        self, connected: socket.socket, place: ConnectionSlot, task: asyncio.Task[bool]
    ) -> None:
        """Close what was not handed on; a task cancelled early never began."""
        connected.close()
        self._pending.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a handshake broke", exc_info=error)
        if task.cancelled() or error is not None or not task.result():
            self._places.leave(place)

    async def _greet(
        self, connected: socket.socket, since: float, place: ConnectionSlot
    ) -> bool:
        """Take one peer through its handshake; tell whether it is a connection now."""
        try:
            connected.setblocking(False)
            async with asyncio.timeout_at(since + self._seconds):
                first = await self._peek(connected)
                if not first:
                    return False
                if first[0] != _HANDSHAKE:
                    await self._refuse(connected)
                    return False
                await self._loop.connect_accepted_socket(
                    lambda: self._connect(since, place),
                    # From here on the transport closes it.
                    socket.socket(fileno=connected.detach()),
                    ssl=self._tls.context(),
                    ssl_handshake_timeout=self._seconds,
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
                return True
        except (OSError, TimeoutError) as error:
            # An ssl.SSLError is an OSError: an old version, rubbish, no trust in us.
            _log.debug("a handshake failed: %s", error)
        return False

    async def _peek(self, connected: socket.socket) -> bytes:
        """Wait for the first byte and leave it where it is."""
        readable = self._loop.create_future()

        def ready() -> None:
            if not readable.done():
                readable.set_result(None)

        self._loop.add_reader(connected, ready)
        try:
            await readable
        finally:
            self._loop.remove_reader(connected)
        return connected.recv(1, socket.MSG_PEEK)

    async def _refuse(self, connected: socket.socket) -> None:
        """Say in plain HTTP that this port speaks TLS, so that it can be read."""
        await self._loop.sock_sendall(connected, self._plain)
        connected.shutdown(socket.SHUT_WR)
        # What is unread at a close resets the connection, and the answer is lost.
        dropped = 0
        with contextlib.suppress(OSError):
            while dropped < _DROPPED_BYTES:
                read = await self._loop.sock_recv(connected, 4096)
                if not read:
                    return
                dropped += len(read)
