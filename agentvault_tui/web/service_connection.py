"""HTTP/1.1 on one connection to a service: one request at a time, everything bounded.

llhttp parses the answers, strictly; the parts it leaves to its user are checked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import httptools

from agentvault_tui.web.sockets import abort
from agentvault_tui.web.turns import ReceivedBytes

_BUFFER: Final = 65_536
"""Bytes of an answer that wait to be read, from which on no more are taken."""
_HEADERS: Final = 128
_CHUNK_FRAMING: Final = 24
"""A chunk's size in 16 hexadecimal digits, and its two line ends, rounded up."""
_CONTROLS: Final = bytes({*range(32), 127} - {9})
"""Characters that no header may hold (RFC 9110 section 5.5), and two bytes at a line's
end."""
_INTERIM: Final = frozenset({100, 102, 103})
_BODILESS: Final = frozenset({204, 304})
_WITHOUT_CONTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods whose requests have no length without content."""


class UpstreamError(Exception):
    """The service gave no answer, or one that must not be passed on."""

    def __init__(self, status: int, code: str, text: str) -> None:
        """Store the HTTP *status* and *code* for the agent; no secrets."""
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Bounds:
    """Deadlines in seconds and caps in bytes of one request."""

    connect: float = 10.0
    idle: float = 120.0
    """Until the answer begins, and between two pieces of it."""
    whole: float = 3_600.0
    answer_bytes: int = 16 * 2**30
    head_bytes: int = 65_536
    """Of an answer's head, and of the framing of its body."""


def broken() -> UpstreamError:
    """Return the error of an answer that ended early, or is not HTTP."""
    return UpstreamError(502, "upstream_reset", "the service broke the connection off")


def late() -> UpstreamError:
    """Return the error of an answer that did not come in time."""
    return UpstreamError(504, "upstream_timeout", "the service took too long")


class ServiceConnection(asyncio.Protocol):
    """One connection; its attributes describe the latest answer."""

    transport: asyncio.Transport

    def __init__(self, bounds: Bounds) -> None:
        """Take connections' callbacks; `send` comes after `connection_made`."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """Of the answer, as received."""
        self.has_body = False
        """Whether some of the answer's body has arrived."""
        self.complete = True
        """Whether the answer has arrived whole; also before the first request."""
        self.idle_since = 0.0
        """In loop time."""
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self.has_surplus = False
        """Whether the service sent more than one answer to a request."""
        self._keep = False
        """Whether the service takes another request after this one."""
        self._may_reuse = False
        """Whether our side allows another request after this one."""
        self._method = ""
        self._in_head = self._to_end = self._in_chunks = False
        self._framing = self._received = self._buffered = 0
        self._pieces: list[bytes] = []
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        self._paused = self._held = False
        self._arrived = ReceivedBytes(self._loop, self._parse, self._hold)
        self._lost: tuple[Exception | None] | None = None
        """The reason for the end of the connection, until all bytes are parsed."""
        self._timer: asyncio.TimerHandle | None = None
        self._active = self._ends = 0.0

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Store the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer; close the connection if it is malformed."""
        if self._error is not None:
            return
        if self.complete and not self._arrived.waits:
            self._end_idle()
            return
        self._active = self._loop.time()
        if self._in_head or self._in_chunks or self._arrived.waits:
            self._arrived.take(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> bool:
        """Parse a part of the answer; return whether more of it is wanted."""
        if self._error is not None:
            return False
        self._framing += len(data)
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                self._fail(broken())
                return False
            self._keep = False  # surplus bytes, or an answer that has no content
        if self._framing > self._bounds.head_bytes:
            self._fail(broken())
        elif self._received > self._bounds.answer_bytes:
            self._fail(UpstreamError(504, "upstream_timeout", "the answer is too long"))
        else:
            self._wake()
        return self._error is None

    def _hold(self, wait: bool) -> None:
        """Let the service wait until its bytes are parsed, or no more."""
        self._held = wait
        self._set_reading()
        if not wait and self._lost is not None:
            self._lose(*self._lost)

    def _set_reading(self) -> None:
        """Read from the service unless it has to wait."""
        if self.transport.is_closing():
            return
        if self._paused or self._held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """End the answer, once all bytes before the end of the connection are parsed.

        TLS reports an end that arrives with the bytes at once, also while they wait.
        """
        self._keep = False
        if self._arrived.waits and self._error is None:
            self._lost = (error,)
        else:
            self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        """Complete an answer that is delimited by the close; fail any other."""
        self._arrived.drop()
        self._lost = None
        self._keep = False
        if self._timer is not None:
            self._timer.cancel()
        if self._upload is not None:
            self._upload.cancel()
        if self._to_end and not self._in_head and error is None:
            self.complete = True
        if not self.complete:
            self._error = self._error or broken()
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        """Pause the request body while the service does not read."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Resume the request body."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Refuse an unsolicited answer (RFC 9112 section 9.2)."""
        if self.complete:
            self.has_surplus = True
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are dropped."""
        if self._in_head:
            self.headers.append((name, value))
            if len(self.headers) > _HEADERS:
                raise ValueError

    def on_headers_complete(self) -> None:
        """Determine how the answer's body is delimited (RFC 9112 section 6.3)."""
        status = self._parser.get_status_code()
        codings, has_length = [], False
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"transfer-encoding":
                codings.append(value.lower())
            has_length |= lowered == b"content-length"
        if status in _INTERIM and not codings and not has_length:
            return
        if (
            status < 200
            or codings not in ([], [b"chunked"])
            or (codings and has_length)
        ):
            raise ValueError
        self.status, self._in_head = status, False
        if not self._is_sent:
            # RFC 9112 section 9.3: the service may take the rest of the body for
            # another request, or may never read it.
            self._may_reuse = False
        if self._method == "HEAD" or (status in _BODILESS and (codings or has_length)):
            # RFC 9112 section 6.3: no content, but the parser would read some.
            self.complete = True
            raise ValueError
        self._in_chunks = bool(codings)
        self._to_end = not codings and not has_length and status not in _BODILESS

    def on_chunk_header(self) -> None:
        """Do not count the framing of one more chunk towards the head."""
        self._framing -= _CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        """Buffer a piece of the body until it is read."""
        self._framing -= len(body)
        self.has_body = True
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered >= _BUFFER and not self._paused:
            self._paused = True
            self._set_reading()

    def on_message_complete(self) -> None:
        """Mark the answer complete; after an interim one, wait for the final one."""
        if self._in_head:
            self.headers = []
            return
        self.complete = True
        # HTTP/1.0 has no persistence of its own, only a convention (RFC 9112 appendix
        # C.2.2) that servers differ about.
        self._keep = (
            self._may_reuse
            and self._parser.get_http_version() == "1.1"
            and self._parser.should_keep_alive()
        )

    # A request

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent (RFC 9112 section 9.3).

        Only once this answer was read to its end, and its request written to its end.
        """
        return (
            self._keep
            and self.complete
            and not self._pieces
            and not self._arrived.waits
            and self._is_sent
            and not self.transport.is_closing()
            and not self._has_unread
        )

    @property
    def _is_sent(self) -> bool:
        """Whether the kernel has the whole request."""
        done = self._upload is None or self._upload.done()
        return done and not self.transport.get_write_buffer_size()

    @property
    def _has_unread(self) -> bool:
        """Whether the kernel has bytes, or an end, that the event loop has not read.

        Bytes that were sent before a request are not its answer.
        """
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def settle(self, timeout_s: float) -> None:
        """Wait until the service closes, or sends more than one answer.

        Args:
            timeout_s: seconds to wait at most.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.has_surplus and not self.transport.is_closing():
                    await self._wait()

    def begin(self, method: str, *, reuse: bool = True) -> None:
        """Expect the answer to a request of this method.

        Args:
            method: of the request.
            reuse: whether another request may follow the answer on this connection.
        """
        self._method, self.headers, self._may_reuse = method, [], reuse
        self.complete = self.has_body = self._to_end = self._keep = False
        self._in_head, self._in_chunks = True, False
        self._framing = self._received = 0
        self._upload = None
        if self.transport.is_closing():
            self._error = self._error or broken()
        now = self._active = self._loop.time()
        self._ends = now + self._bounds.whole
        if self._timer is None:
            self._arm(min(self._bounds.idle, self._bounds.whole))

    def send(
        self,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        length: int | None,
    ) -> None:
        """Write the request of `begin`, whose body may follow as it comes.

        *target* is sent byte for byte. *headers* are all but those of the body's
        length, and *length* is of a body in pieces, if it is known.

        Raises:
            UpstreamError: a header cannot be sent as it is; nothing was written.
        """
        streamed = None if body is None or isinstance(body, bytes) else body
        content = body if isinstance(body, bytes) else b""
        lines = [f"{self._method} {target} HTTP/1.1"]
        if streamed is None:
            if body is not None or self._method not in _WITHOUT_CONTENT:
                lines.append(f"Content-Length: {len(content)}")
        elif length is None:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in headers]
        if not self._may_reuse:
            # A service that answers before it has read the body would take the body for
            # its next request (RFC 9112 sections 9.3 and 9.6).
            lines.append("Connection: close")
        head = "\r\n".join((*lines, "", "")).encode()
        if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines) - 2:
            raise broken()
        self.transport.write(head + content)
        if streamed is not None:
            sends = self._stream(streamed, length)
            self._upload = self._loop.create_task(sends)

    async def _stream(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Write a body as it comes; abort if its length is not the declared one."""
        left = length
        try:
            async for piece in pieces:
                if self._writable is not None:
                    await self._writable
                if self.transport.is_closing():
                    return
                if left is None:
                    self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    continue
                left -= len(piece)
                if left < 0:
                    break
                self.transport.write(piece)
            if left is None:
                self.transport.write(b"0\r\n\r\n")
            elif left:
                self._fail(broken())
        except BaseException as error:
            self._fail(broken())
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._active = self._loop.time()

    async def answered(self) -> None:
        """Wait for the head of the answer.

        Raises:
            UpstreamError: it does not come, or not in time.
        """
        while self._in_head and self._error is None:
            await self._wait()
        if self._error is not None and self._in_head:
            raise self._error

    async def read(self) -> bytes:
        """Return the arrived part of the body, at least a byte; none at its end.

        Raises:
            UpstreamError: it broke off, or did not come in time.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._wait()
        data, self._pieces = b"".join(self._pieces), []
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._set_reading()
        return data

    def abort(self) -> None:
        """Close the connection at once; data buffered in the kernel is dropped."""
        self._fail(broken())

    async def _wait(self) -> None:
        self._active = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        """End the connection at once, and wake its waiter."""
        self._error = self._error or error
        self._pieces.clear()
        self._keep = False
        if self._upload is not None and self._upload is not asyncio.current_task():
            self._upload.cancel()
        abort(self.transport)
        self._wake()

    def _end_idle(self) -> None:
        """Close an idle connection on which a byte arrives.

        No request is under way, so the byte belongs to no answer (RFC 9112 section
        9.2). An empty line counts too: the parser would pass over it.
        """
        self.has_surplus, self._keep = True, False
        abort(self.transport)
        self._wake()

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        """Fail late steps; the timer is set again only once it has fired."""
        self._timer, now = None, self._loop.time()
        if self.complete and not self._pieces:
            return
        uploads = self._upload is not None and not self._upload.done()
        waits = self._waiter is not None and not uploads
        idle = self._active + self._bounds.idle if waits else now + self._bounds.idle
        due = min(idle, self._ends)
        if due <= now:
            self._fail(late())
        else:
            self._arm(due - now)
