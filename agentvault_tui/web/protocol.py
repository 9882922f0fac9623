"""HTTP/1.1 on one connection, with the bounds that uvicorn's protocol lacks."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from agentvault_tui.web.limits import Limits
from agentvault_tui.web.places import Place, Places
from agentvault_tui.web.reply import Reply, Shape

_SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"transfer-encoding",
    }
)
"""Said twice, two readers could each believe another one (RFC 9112 section 11)."""
_SLICE: Final = 4_096
"""Bytes the parser is fed at a time: it keeps unfinished lines; we count between."""
_CHUNK_FRAMING: Final = 24
"""A chunk's size in 16 hexadecimal digits, and its two line ends, rounded up."""


class Port(Protocol):
    """What a connection needs from the listener that accepted it."""

    config: Config
    state: ServerState
    limits: Limits
    shape: Shape
    places: Places

    def admit(self, transport: asyncio.Transport) -> dict[str, Any] | None:
        """Return what handlers may know of the peer, or `None` to hang up."""
        ...

    def peer_uid(self, transport: asyncio.Transport) -> int | None:
        """Return whose the other end of a TCP connection is, where that is told."""
        ...

    def tick(self, now: float) -> None:
        """Keep the ``Date`` header right."""
        ...


class _Joined:
    """One answer's way out: the head waits for the body, so that both leave at once.

    One write instead of two, and a client that wakes up once. Only where the body's
    length is known does it follow by itself; a stream's head goes ahead.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send *data*, or keep it if it is the head of a body to come."""
        cycle = self._cycle
        if self._head is not None:
            data, self._head = self._head + data, b""
        elif (
            cycle.response_started
            and cycle.expected_content_length > 0
            and cycle.scope["method"] != "HEAD"
        ):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether it is being closed."""
        return self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """One connection: a deadline for every phase, a cap on every buffer."""

    def __init__(
        self,
        port: Port,
        loop: asyncio.AbstractEventLoop,
        since: float | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(port.config, port.state, {}, loop)
        self._since = since
        """When the peer connected, if that was before its handshake."""
        self._place = place
        """Given already for the handshake, if there was one."""
        self._port = port
        self._limits = port.limits
        self._now = loop.time
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stalled: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._in_head = False
        self._number = self._fed = self._parsed = self._count = self._discarded = 0
        self._framing = port.limits.framing_bytes
        """How much of the body's framing may be fed."""
        self._seen: set[bytes] = set()
        self._fault: tuple[int, str] | None = None
        self._refused = False

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or hang up on whoever may not have it."""
        super().connection_made(transport)
        known = self._port.admit(transport)
        if known is None:
            transport.abort()
        elif not self._placed(transport):
            self._refuse(503, "too many connections")
        else:
            self.app_state = known
            shaken = self._now() - self._since if self._since is not None else 0.0
            self._arm(max(self._limits.head_seconds - shaken, 0.0))

    def _placed(self, transport: asyncio.Transport) -> bool:
        """Take a place, or the one of the handshake; tell whether there is one."""
        if self._place is not None:
            self._place.drop = transport.abort
        else:
            self._place = self._port.places.take(
                lambda: self._port.peer_uid(transport), transport.abort
            )
        return self._place is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock of this connection."""
        self._deadline = None
        if self._place is not None:
            self._port.places.leave(self._place)
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse *data*; refuse what is malformed or past a cap, and hang up."""
        if self.transport.is_closing() or self._refused:
            return
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._arm(self._limits.head_seconds)
        if len(data) <= _SLICE:
            self._feed(data)
            return
        for start in range(0, len(data), _SLICE):
            self._feed(data[start : start + _SLICE])
            if self.transport.is_closing() or self._refused:
                return

    def _feed(self, data: bytes) -> None:
        """Parse a slice, and count what of it became neither headers nor body."""
        number = self._number
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(*(self._fault or (400, "this is not well-formed HTTP")))
        else:
            self._weigh(len(data) if number == self._number else 0)

    def pause_writing(self) -> None:
        """Give a peer that does not read a bounded time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(
                self._limits.write_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        """Forget the stall."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one whose peer never read our answer."""
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Go on with the next request, or give the place up if it is wanted."""
        super().on_response_complete()
        if self._place is not None and not self._answering():
            self._port.places.waits(self._place)

    def finish(self) -> None:
        """Close after the running answer; a stream, which has no end, right away."""
        self.shutdown()
        if self._answering() and self.cycle.response_started:
            self.transport.close()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Start counting a request."""
        super().on_message_begin()
        self._in_head = True
        self._number += 1
        self._fed = self._parsed = self._count = self._discarded = 0
        self._framing = self._limits.framing_bytes
        if self._seen:
            self._seen = set()
        self._began = self._now()
        self._arm(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """Count the request line as part of the head."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, and refuse a second one of those that must be alone."""
        if not self._in_head:
            # A trailer: uvicorn would add it to the headers after the app saw them.
            return
        self._count += 1
        if self._count > self._limits.headers:
            self._fail(431, "there are too many headers")
        self._measure(len(name) + len(value) + 4)
        lowered = name.lower()
        if lowered in _SINGLE:
            if lowered in self._seen:
                self._fail(400, f"the header {lowered.decode()} stands there twice")
            self._seen.add(lowered)
        elif lowered == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((lowered, value))

    def on_headers_complete(self) -> None:
        """Start the request; its body still has to arrive in time."""
        self._in_head = False
        # The rest of this slice is counted whole, the head in it too.
        self._fed = -_SLICE
        self._check_version()
        if self.parser.get_method() != b"CONNECT":
            self._check_target()
        if self.parser.should_upgrade():
            return  # `_pass_over_upgrade` goes on
        if len(self.pipeline) >= self._limits.pipelined:
            self._fail(429, "too many requests were sent before their answers")
        now = self._now()
        self._port.tick(now)
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", _Joined(self.cycle))
        self._arm(self._began + self._limits.request_seconds - now)

    def on_chunk_header(self) -> None:
        """Allow for the framing of one more chunk."""
        self._framing += _CHUNK_FRAMING

    def on_body(self, body: bytes) -> None:
        """Pass the body on, or drop it once the answer is out."""
        self._fed -= len(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self._limits.discarded_bytes:
                self.transport.abort()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the request is whole, the rest is up to us."""
        if self.parser.should_upgrade():
            return
        self._deadline = None
        if self._place is not None and self._answering():
            self._port.places.works(self._place)
        super().on_message_complete()

    # Rules that the parser leaves to us

    def _check_version(self) -> None:
        """Refuse what is not HTTP/1.x, and framing its version does not know.

        A request line without a version is HTTP/0.9 to the parser. A message without
        a body's length that both ends agree on is refused (RFC 9112 section 6.1).
        """
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            self._fail(505, "this server speaks HTTP/1.1")
        for name, value in self.headers:
            if name == b"transfer-encoding":
                if version == "1.0":
                    self._fail(400, "HTTP/1.0 has no Transfer-Encoding")
                if value.lower() != b"chunked":
                    self._fail(501, "the only transfer coding is chunked")

    def _check_target(self) -> None:
        """Bring the request target to origin form (RFC 9112 section 3.2).

        An absolute target says whom the request is for, whatever ``Host`` says
        (section 3.2.2): its authority takes the place of that header, which is then
        judged like any other.
        """
        target = self.url
        if target.startswith(b"/"):
            if b"#" in target:
                self._fail(400, "a request target has no fragment")
            return
        if target == b"*":
            if self.parser.get_method() != b"OPTIONS":
                self._fail(400, "only OPTIONS is asked of a whole server")
            return
        scheme, found, rest = target.partition(b"://")
        authority, path = _split_authority(rest)
        if not found or not authority or b"@" in authority or b"#" in path:
            self._fail(400, "this is no request target")
        if scheme.lower() != self.scope["scheme"].encode():
            self._fail(421, "the request target does not name this server")
        self.url = path if path.startswith(b"/") else b"/" + path
        self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
        self.headers.append((b"host", authority))

    # Bounds

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol as if it did not.

        RFC 9110 section 7.8 lets us, and some clients offer HTTP/2 every time. The
        parser believes in the offer and skips the body, so another one starts over.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "this is not a proxy")
            return
        head = [method, b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _arm(self, seconds: float) -> None:
        """Set the deadline; the timer only moves when it would come too late."""
        self._deadline = deadline = self._now() + seconds
        if self._timer is None or self._timer_at > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self.loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._now()
        if left <= 0.0:
            # abort, not close: a peer that does not read must not hold us either.
            self.transport.abort()
        else:
            self._timer_at = self._deadline
            self._timer = self.loop.call_later(left, self._on_timer)

    def _weigh(self, size: int) -> None:
        """Count what was fed to the parser, which keeps an unfinished header whole."""
        self._fed += size
        if self._in_head:
            if self._fed > self._limits.head_bytes:
                self._refuse(431, "the headers are too long")
        elif self._fed > self._framing:
            self._refuse(400, "the body's framing is too long")

    def _measure(self, size: int) -> None:
        self._parsed += size
        if self._parsed > self._limits.head_bytes:
            self._fail(431, "the headers are too long")

    def _fail(self, status: int, text: str) -> None:
        """Leave the parser; `data_received` answers."""
        self._fault = (status, text)
        raise ValueError(text)

    def _refuse(self, status: int, text: str) -> None:
        """Answer *status* and hang up, without getting ahead of an earlier answer."""
        self._refused = True
        self._deadline = None
        if self.pipeline:
            self.transport.abort()
        elif self._answering() and not self.cycle.more_body:
            # That request was whole: it gets its answer, which is the last one.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        elif self._answering() and self.cycle.response_started:
            self.transport.abort()
        else:
            if self._answering():
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(written(self._port.shape(status, text)))
            self.transport.close()

    def _answering(self) -> bool:
        """Tell whether a handler is at work; uvicorn has no cycle before the first."""
        return bool(self.cycle) and not self.cycle.response_complete


def _split_authority(rest: bytes) -> tuple[bytes, bytes]:
    """Return what of an absolute target is the authority, and the path and query."""
    ends = [at for mark in b"/?#" if (at := rest.find(mark)) >= 0]
    end = min(ends, default=len(rest))
    return rest[:end], rest[end:]


def written(reply: Reply) -> bytes:
    """Return *reply* as the last one of its connection."""
    lines = [b"%s: %s\r\n" % header for header in reply.headers]
    lines += [b"connection: close\r\n\r\n", reply.body]
    return STATUS_LINE[reply.status] + b"".join(lines)
