"""One HTTP request and its answer, as the ASGI channel that an app is called with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final, Protocol

from agentvault_tui.web.places import ConnectionSlot, Limits, Places
from agentvault_tui.web.reply import App, Header, Message, Scope, Shape
from agentvault_tui.web.sockets import abort

_log = logging.getLogger("agentvault.web")

_BUFFERED: Final = 65_536
"""Bytes of a body that are read ahead of the app."""
_CONTROLS: Final = bytes({*range(32), 127} - {9})
"""Characters that no header may hold (RFC 9110 section 5.5), and two bytes at a line's
end."""
_WITHOUT_BODY: Final = frozenset({204, 304})
STATUS_LINE: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
    for status in HTTPStatus
}


class ClientGoneError(Exception):
    """The client left before its request was whole; the answer has no receiver."""


Urgent = Callable[[Scope], bool]
"""Tells whether a request may use the connections that are reserved."""


RESERVED: Final = "reserved"
"""In the state of a request that came over one of those connections."""


class Port(Protocol):
    """A connection's view of the listener that accepted it."""

    app: App
    limits: Limits
    shape: Shape
    places: Places
    connections: set[Connection]
    tasks: set[asyncio.Task[None]]
    urgent: Urgent | None
    """None: no connections are reserved."""
    date: bytes
    """The ``Date`` header, as a line."""

    def admit(self, transport: asyncio.Transport) -> dict[str, object] | None:
        """Return the handlers' facts of the peer, or `None` to hang up."""

    def peer_uid(self, transport: asyncio.Transport) -> int | None:
        """Return the user at the other end of a TCP connection, if it is known."""

    def tick(self, now: float) -> None:
        """Update `date`."""


class Connection(Protocol):
    """A request's view of the connection that it came over."""

    port: Port
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    slot: ConnectionSlot | None
    """Its slot of the listener, while it has one."""
    writable: asyncio.Event | None
    """Set once the peer reads again, where it does not."""

    def pause_reading(self) -> None:
        """Let the peer wait until its bytes are read."""

    def resume_reading(self) -> None:
        """Take more from the peer."""

    def answered(self, *, keep_alive: bool) -> None:
        """Go on with the next request."""

    def finish(self) -> None:
        """Close after the running answer."""


_CURRENT: Final[ContextVar[Exchange | None]] = ContextVar("exchange", default=None)
"""The request that the running task answers."""


def count_connection(agent: str) -> bool:
    """Count the connection of the running request for the agent that it authenticated.

    Args:
        agent: its id, or the chain of a passed-on token.

    Returns:
        False if the agent has its share of the connections: the caller refuses the
        request with 503, and the connection closes after that answer.
    """
    exchange = _CURRENT.get()
    if exchange is None or exchange.slot is None or exchange.slot.count_for(agent):
        return True
    exchange.keep_alive = False
    return False


class Exchange:
    """One request and its answer: the two ends of an ASGI channel.

    Where the answer's length is known its head waits for the body, so that both leave
    in one write. A stream's head goes ahead.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_expects_100",
        "_head",
        "_left",
        "_news",
        "_waiter",
        "complete",
        "disconnected",
        "keep_alive",
        "more_body",
        "on_gone",
        "scope",
        "started",
        "task",
    )

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        *,
        keep_alive: bool,
        expects_100: bool,
    ) -> None:
        self.scope = scope
        self.task: asyncio.Task[None] | None = None
        """Which answers."""
        self.keep_alive = keep_alive
        self.more_body = True
        """Whether the request is still arriving."""
        self.started = False
        self.complete = False
        """Whether the answer is out."""
        self.disconnected = False
        self.on_gone: Callable[[], None] | None = None
        """Called when the peer is gone, or not listened to any more."""
        self._connection = connection
        self._expects_100 = expects_100
        self._body = bytearray()
        self._news = False
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._left: int | None = 0
        """Bytes of the answer that are still to come, where its length is known."""
        self._chunked = False

    @property
    def slot(self) -> ConnectionSlot | None:
        """Return the place of its connection among the listener's."""
        return self._connection.slot

    async def run(self) -> None:
        """Have the app answer; where it does not, answer for it or hang up."""
        port = self._connection.port
        _CURRENT.set(self)  # of this task, which is this request's alone
        try:
            try:
                await port.app(self.scope, self.receive, self.send)
            except ClientGoneError:
                return  # RFC 9112 section 8: a request that broke off has no answer
            except Exception:  # noqa: BLE001 - it is logged, and answered for
                _log.exception("a request failed")
            if self.complete or self.disconnected:
                return
            self.keep_alive = False
            if self.started:
                self._connection.transport.close()
            else:
                fault = port.shape(500, "the server failed: see its log")
                await fault.send(self.send)
        finally:
            if self.task is not None:
                port.tasks.discard(self.task)

    def put(self, body: bytes) -> None:
        """Take a piece of the request's body."""
        self._body += body
        if len(self._body) > _BUFFERED:
            self._connection.pause_reading()
        self.wake()

    def disconnect(self) -> None:
        """Know that the peer is gone, or not listened to any more."""
        self.disconnected = True
        self.wake()
        if self.on_gone is not None:
            self.on_gone()

    def abort(self) -> None:
        """Send the peer nothing any more; the kernel's unsent bytes are dropped."""
        self.disconnect()
        abort(self._connection.transport)

    def wake(self) -> None:
        """Let `receive` look again: something arrived, or nothing will any more."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """Wait for the next part of the request (ASGI)."""
        connection = self._connection
        if self._expects_100 and not connection.transport.is_closing():
            self._expects_100 = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.complete:
            connection.resume_reading()
            if not self._news:
                self._waiter = connection.loop.create_future()
                await self._waiter
            self._news = False
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        connection.resume_reading()  # only a read shows that the peer has left
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send head or body of the answer (ASGI)."""
        connection = self._connection
        if connection.writable is not None:
            await connection.writable.wait()
        if self.disconnected or connection.transport.is_closing():
            return  # the peer left, and the protocol is told of it only later
        if not self.started:
            self._start(message["status"], message["headers"])
            return
        if self.complete:
            raise RuntimeError("the answer is out already")
        more = message.get("more_body", False)
        body = self._framed(message.get("body", b""), more=more)
        if self._head:
            body, self._head = self._head + body, b""
        if body:
            connection.transport.write(body)
        if not more:
            self.complete = True
            self.wake()
            connection.answered(keep_alive=self.keep_alive)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            return b""
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return body if more else body + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer has another length than it says")
        return body

    def _start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        self._expects_100 = False
        length = None
        line = STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        lines, date = [line], self._connection.port.date
        for name, value in headers:
            if name == b"date":
                date = b""  # the origin's own counts (RFC 9110 section 6.6.1)
            if name == b"content-length":
                length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        if date:
            lines.insert(1, date)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        stream = (
            length is None
            and self.scope["method"] != "HEAD"
            and status not in _WITHOUT_BODY
        )
        self._left = None if stream else length or 0
        # RFC 9112 section 6.1: to HTTP/1.0 the end of the connection ends the answer.
        self._chunked = stream and self.scope["http_version"] != "1.0"
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = head = b"".join(lines)
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines):
            raise RuntimeError("a header holds a control character")
        if stream:
            self._connection.transport.write(self._head)
            self._head = b""
