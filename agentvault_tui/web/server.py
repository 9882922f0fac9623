"""Run ASGI apps on sockets bound by us, several in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Final, Self, TypeVar

import uvloop

from agentvault_tui.clock import Clock
from agentvault_tui.web.exchange import Connection
from agentvault_tui.web.limits import Limits, file_limit
from agentvault_tui.web.places import ConnectionSlot, Places
from agentvault_tui.web.protocol import BoundedProtocol, written
from agentvault_tui.web.reply import App, Scope, Shape, oauth_error
from agentvault_tui.web.sockets import Peer, peer_of, tcp_peer_uid
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
    """Accepts TLS on one socket; who has finished its handshake is a connection."""

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
        """Accept on *bound*; *plain* is the answer to HTTP without TLS.

        *connect* makes the protocol of a connection, from when it was accepted (loop
        time) and its slot.
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
        """Accept a few at a time: connections that are open want the loop too."""
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
        """Return the first byte, left in the socket."""
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
        """Answer in plain HTTP that this port speaks TLS."""
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


_BACKLOG: Final = 1024
_STEPS: Final = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
_CANCEL_SECONDS: Final = 0.5
T = TypeVar("T")


class Listener:
    """One socket and its app; to a Unix socket only our own user and root connect."""

    def __init__(
        self,
        app: App,
        bound: socket.socket,
        clock: Clock,
        limits: Limits,
        shape: Shape,
        *,
        tls: ServerTls | None,
        held: socket.socket | None,
    ) -> None:
        self.limits = limits
        self.shape = shape
        self.app = app
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.date = b""
        self._clock = clock
        self._socket = bound
        self._held = held
        self._unix = bound.family == socket.AF_UNIX
        self._address = bound.getsockname()
        self._inode = _inode(self.path) if self._unix else None
        self._tls = tls
        self._server: asyncio.Server | Handshakes | None = None
        self.places = Places(file_limit(limits.connections))
        self._dated = -1.0

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._address[1])

    @property
    def path(self) -> Path:
        """The Unix socket's path."""
        return Path(self._address)

    @property
    def url(self) -> str:
        """Where a TCP listener is reached, without a slash at the end."""
        host = self._address[0]
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            return BoundedProtocol(self, loop)

        if self._tls is not None:
            told = self.shape(400, "this port speaks TLS: ask with https")
            self._server = Handshakes(
                self._socket,
                self._tls,
                self.limits,
                connect=lambda since, slot: BoundedProtocol(self, loop, since, slot),
                places=self.places,
                plain=written(told),
            )
            self._server.start(_BACKLOG)
        else:
            create = loop.create_unix_server if self._unix else loop.create_server
            self._server = await create(connect, sock=self._socket, backlog=_BACKLOG)

    async def stop(self, grace: float) -> None:
        """Let running requests finish for *grace* seconds; end streams at once."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        if self._held is not None:
            self._held.close()
        for connection in list(self.connections):
            connection.finish()
        await self._emptied(grace)
        for connection in list(self.connections):
            connection.transport.abort()
        await self._emptied(_CANCEL_SECONDS)
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=_CANCEL_SECONDS)
        if self._inode is not None and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)

    async def _emptied(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Two sets have no event to wait for; most are empty at once.
                steps = chain(_STEPS, repeat(_STEPS[-1]))
                while self.connections or self.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(next(steps))

    # What a connection asks of its listener

    def admit(self, transport: asyncio.Transport) -> dict[str, object] | None:
        """Return the peer for handlers; `None` for another user's process."""
        if not self._unix:
            return {}
        try:
            peer = peer_of(transport)
        except OSError:
            return None
        return {"peer": peer} if peer.uid in {os.geteuid(), 0} else None

    def peer_uid(self, transport: asyncio.Transport) -> int | None:
        """Return whose the other end of a TCP connection is, where that is told."""
        if self._unix:
            return None
        connected: socket.socket = transport.get_extra_info("socket")
        return tcp_peer_uid(connected)

    def tick(self, now: float) -> None:
        """Renew the ``Date`` header once a second (RFC 9110 section 6.6.1)."""
        if now - self._dated >= 1.0:
            self._dated = now
            date = format_datetime(self._clock.now(), usegmt=True).encode()
            self.date = b"date: %b\r\n" % date


class Server:
    """The listeners of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []

    async def listen(
        self,
        app: App,
        bound: socket.socket,
        *,
        limits: Limits | None = None,
        shape: Shape = oauth_error,
        tls: ServerTls | None = None,
        held: socket.socket | None = None,
    ) -> Listener:
        """Serve *app* on *bound*, over TLS where given.

        `stop` closes *bound* and *held*, a socket that keeps a port from others.
        """
        listener = Listener(
            app, bound, self._clock, limits or Limits(), shape, tls=tls, held=held
        )
        self._listeners.append(listener)
        await listener.start()
        return listener

    async def stop(self, grace: float = 2.0) -> None:
        """Stop every listener within about *grace* seconds and one more."""
        listeners, self._listeners = self._listeners, []
        await asyncio.gather(*(listener.stop(grace) for listener in listeners))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def run(main: Coroutine[object, object, T]) -> T:
    """Run *main* on uvloop.

    Args:
        main: the program.

    Returns:
        what it returns.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def peer(scope: Scope) -> Peer:
    """Return who is at the other end of a request that came over a Unix socket."""
    found: Peer = scope["state"]["peer"]
    return found


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
