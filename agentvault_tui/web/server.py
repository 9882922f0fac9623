"""Run ASGI apps on sockets bound by us, several in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Final, Self, TypeVar

import uvloop

from agentvault_tui.clock import Clock
from agentvault_tui.web.exchange import Connection, Urgent
from agentvault_tui.web.places import ConnectionSlot, Limits, Places, file_limit
from agentvault_tui.web.protocol import BoundedProtocol, written
from agentvault_tui.web.reply import App, Scope, Shape, oauth_error
from agentvault_tui.web.sockets import Peer, machine_of, peer_of, tcp_peer_uid
from agentvault_tui.web.tls import ServerTls

_log = logging.getLogger("agentvault.web")

HANDSHAKE: Final = 22
"""The first byte of a TLS connection (RFC 8446 section 5.1: ContentType)."""
_SHUTDOWN_SECONDS: Final = 2.0
"""How long a peer may owe its close_notify."""
_PAUSE_SECONDS: Final = 0.1
_AT_ONCE: Final = 16
_DROPPED_BYTES: Final = 65_536

Factory = Callable[[float, ConnectionSlot], asyncio.Protocol]


class Acceptor(ABC):
    """Accepts on one socket, and greets each peer before it is a connection."""

    def __init__(self, bound: socket.socket, seconds: float, places: Places) -> None:
        """Accept on *bound*; a peer has *seconds* until it is a connection."""
        self.seconds = seconds
        self.places = places
        self.loop = asyncio.get_running_loop()
        self._bound = bound
        self._pending: set[asyncio.Task[bool]] = set()
        self._paused: asyncio.TimerHandle | None = None

    @abstractmethod
    async def greet(
        self, connected: socket.socket, since: float, place: ConnectionSlot
    ) -> bool:
        """Take one peer until it is a connection; return whether it is one now."""

    def start(self, backlog: int) -> None:
        """Listen."""
        self._bound.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no peer any more, and drop unfinished ones."""
        self._pause()
        if self._paused is not None:
            self._paused.cancel()
        for task in self._pending:
            task.cancel()

    def _resume(self) -> None:
        self.loop.add_reader(self._bound, self._accept)

    def _pause(self) -> None:
        self.loop.remove_reader(self._bound)

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
                self._paused = self.loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            self._begin(connected)

    def _begin(self, connected: socket.socket) -> None:
        place = self.places.take(
            lambda: tcp_peer_uid(connected),
            connected.close,
            machine_of(connected),
        )
        if place is None:
            connected.close()
            return
        connected.setblocking(False)
        task = asyncio.create_task(self._greeted(connected, self.loop.time(), place))
        place.drop = task.cancel
        self._pending.add(task)
        task.add_done_callback(partial(self._ended, connected, place))

    async def _greeted(
        self, connected: socket.socket, since: float, place: ConnectionSlot
    ) -> bool:
        try:
            return await self.greet(connected, since, place)
        except (OSError, TimeoutError) as error:
            # An ssl.SSLError is an OSError: an old version, rubbish, no trust in us.
            _log.debug("a handshake failed: %s", error)
            return False

    def _ended(
        self, connected: socket.socket, place: ConnectionSlot, task: asyncio.Task[bool]
    ) -> None:
        """Close a socket that was not handed on; a task cancelled early never began."""
        connected.close()
        self._pending.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a handshake broke", exc_info=error)
        if task.cancelled() or error is not None or not task.result():
            place.leave()

    async def peek(self, connected: socket.socket, size: int = 1) -> bytes:
        """Return up to *size* first bytes, left in the socket; none at its end."""
        readable = self.loop.create_future()

        def ready() -> None:
            if not readable.done():
                readable.set_result(None)

        self.loop.add_reader(connected, ready)
        try:
            await readable
        finally:
            self.loop.remove_reader(connected)
        return connected.recv(size, socket.MSG_PEEK)

    async def connect(
        self,
        connected: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """Hand a peer on to its protocol, after a handshake where there is *tls*."""
        await self.loop.connect_accepted_socket(
            protocol,
            # From here on the transport closes it.
            socket.socket(fileno=connected.detach()),
            ssl=tls,
            ssl_handshake_timeout=self.seconds if tls else None,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS if tls else None,
        )

    async def refuse(self, connected: socket.socket, answer: bytes) -> None:
        """Send *answer* and hang up."""
        await self.loop.sock_sendall(connected, answer)
        connected.shutdown(socket.SHUT_WR)
        # What is unread at a close resets the connection, and the answer is lost.
        dropped = 0
        with contextlib.suppress(OSError):
            while dropped < _DROPPED_BYTES:
                read = await self.loop.sock_recv(connected, 4096)
                if not read:
                    return
                dropped += len(read)


class Handshakes(Acceptor):
    """Accepts TLS on one socket; who has finished its handshake is a connection."""

    def __init__(
        self,
        listener: Listener,
        bound: socket.socket,
        tls: ServerTls,
        *,
        connect: Factory,
    ) -> None:
        """Accept on *bound* for *listener*.

        *connect* makes the protocol of a connection, from when it was accepted (loop
        time) and its slot.
        """
        super().__init__(bound, listener.limits.head_seconds, listener.places)
        self._tls = tls
        self._connect = connect
        answer = listener.shape(400, "this port speaks TLS: ask with https")
        self._plain = written(answer)

    async def greet(
        self, connected: socket.socket, since: float, place: ConnectionSlot
    ) -> bool:
        """Take one peer through its handshake; return whether it is connected."""
        async with asyncio.timeout_at(since + self.seconds):
            first = await self.peek(connected)
            if first and first[0] != HANDSHAKE:
                await self.refuse(connected, self._plain)
            if not first or first[0] != HANDSHAKE:
                return False
            await self.connect(
                connected, lambda: self._connect(since, place), self._tls.context()
            )
            return True


_BACKLOG: Final = 1024
_STEPS: Final = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
_CANCEL_SECONDS: Final = 0.5
T = TypeVar("T")
AcceptorFactory = Callable[["Listener", socket.socket], Acceptor]


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
        acceptor: AcceptorFactory | None = None,
        urgent: Urgent | None = None,
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
        self._acceptor = acceptor
        self._server: asyncio.Server | Acceptor | None = None
        self.urgent = urgent
        self.places = Places(file_limit(limits.connections), urgent=urgent is not None)
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

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """Return the certificate that peers get now, if this listener has TLS."""
        return None if self._tls is None else self._tls.context()

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            return BoundedProtocol(self, loop)

        if self._acceptor is not None:
            self._server = self._acceptor(self, self._socket)
            self._server.start(_BACKLOG)
        elif self._tls is not None:
            self._server = Handshakes(
                self,
                self._socket,
                self._tls,
                connect=lambda since, slot: BoundedProtocol(self, loop, since, slot),
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
        """Return the user at the other end of a TCP connection, if it is known."""
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
        acceptor: AcceptorFactory | None = None,
        urgent: Urgent | None = None,
    ) -> Listener:
        """Serve *app* on *bound*, over TLS where given.

        `stop` closes *bound* and *held*, a socket that keeps a port from others. An
        *acceptor* decides itself which peers become connections. Where all connections
        are at work, there are more for requests that are *urgent*.
        """
        listener = Listener(
            app,
            bound,
            self._clock,
            limits or Limits(),
            shape,
            tls=tls,
            held=held,
            acceptor=acceptor,
            urgent=urgent,
        )
        self._listeners.append(listener)
        await listener.start()
        return listener

    async def drop(self, listener: Listener) -> None:
        """Stop one listener at once."""
        self._listeners.remove(listener)
        await listener.stop(0.0)

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
        its result.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def peer(scope: Scope) -> Peer:
    """Return who is at the other end of a request that came over a Unix socket."""
    peer_info: Peer = scope["state"]["peer"]
    return peer_info


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
