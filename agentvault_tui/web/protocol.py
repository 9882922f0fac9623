"""HTTP/1.1 on one connection: a deadline for every phase, a cap on every buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final
from urllib.parse import unquote

import httptools

from agentvault_tui.web.exchange import RESERVED, STATUS_LINE, Exchange, Port
from agentvault_tui.web.places import ConnectionSlot
from agentvault_tui.web.reply import Header, Reply
from agentvault_tui.web.sockets import machine_of
from agentvault_tui.web.turns import SLICE, ReceivedBytes

_SINGLE: Final = frozenset(
    b"authorization content-length content-type host transfer-encoding".split()
)
"""Said twice, two readers could each believe another one (RFC 9112 section 11)."""
_BAD_TARGET: Final = (
    "the request target holds a byte that no URL has: percent-encode everything but"
    " visible ASCII"
)
_PAUSED_SECONDS: Final = 3_600.0
"""How long a body may wait for whom it is passed on to."""
_LINGER_SECONDS: Final = 1.0
_CHUNK_FRAMING: Final = 24
"""A chunk's size in 16 hexadecimal digits, and its two line ends, rounded up."""
_SMALL_CHUNKS: Final = 2_000
"""Chunks of any size. Each costs some 10 microseconds of the event loop, so that the
mean of further ones has a bound."""
_MEAN_CHUNK: Final = 16


class BoundedProtocol(asyncio.Protocol):
    """One connection, which answers one request after another."""

    transport: asyncio.Transport

    def __init__(
        self,
        port: Port,
        loop: asyncio.AbstractEventLoop,
        since: float | None = None,
        place: ConnectionSlot | None = None,
    ) -> None:
        self.port = port
        self.loop = loop
        self.writable: asyncio.Event | None = None
        self._latest: Exchange | None = None
        """The latest request, if there was one."""
        self._parser = self._new_parser()
        self._url = b""
        self._headers: list[Header] = []
        self._template: dict[str, Any] = {}
        """The connection's part of every request's scope."""
        self._members: dict[str, Any] = {}
        self._expects_100 = self._paused = self._held = self._idle = False
        self._arrived = ReceivedBytes(loop, self._feed, self._hold)
        self._pipeline: deque[Exchange] = deque()
        self._since = since
        """When the peer connected, if that was before its handshake."""
        self.slot = place
        """Given already for the handshake, if there was one."""
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
        self._chunks = self._content = 0
        """Of the body: its chunks so far, and its bytes."""
        self._seen: set[bytes] = set()
        self._fault: tuple[int, str] | None = None
        self._refused = False
        self._streamed = False
        """Whether the body that arrives may be of any size."""
        self._progress = 0
        """Bytes of it since its deadline was moved."""

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or hang up on a peer that may not have it."""
        self.transport = transport
        self.port.connections.add(self)
        admitted = self.port.admit(transport)
        if admitted is None:
            transport.abort()
        elif not self._placed(transport):
            self._refuse(503, "too many connections")
        else:
            self._members = admitted
            tls = transport.get_extra_info("sslcontext") is not None
            self._template = {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "server": _address(transport.get_extra_info("sockname")),
                "client": _address(transport.get_extra_info("peername")),
                "scheme": "https" if tls else "http",
                "root_path": "",
            }
            shaken = self._now() - self._since if self._since is not None else 0.0
            self._arm(max(self._limits.head_seconds - shaken, 0.0))

    def _placed(self, transport: asyncio.Transport) -> bool:
        """Take a place, or the one of the handshake; return whether there is one."""
        if self.slot is not None:
            self.slot.drop = transport.abort
        else:
            self.slot = self.port.places.take(
                lambda: self.port.peer_uid(transport),
                transport.abort,
                machine_of(transport),
            )
        return self.slot is not None

    def connection_lost(self, _: Exception | None) -> None:
        """Stop every clock of this connection, and wake its waiters."""
        self.port.connections.discard(self)
        self._arrived.drop()
        self._deadline = None
        if self.slot is not None:
            self.slot.leave()
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        if self._latest is not None:
            self._latest.disconnect()
        if self.writable is not None:
            self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse *data*; refuse malformed or oversized input, and hang up."""
        if self.transport.is_closing() or self._refused:
            return
        if self._deadline is None or self._idle:
            self._idle = False
            self._arm(self._limits.head_seconds)
        self._arrived.take(data)

    def _feed(self, data: bytes) -> bool:
        """Parse a slice, and count the bytes that became neither headers nor body.

        The parser buffers unfinished lines, so they are counted between two slices.

        Returns:
            whether to go on.
        """
        number = self._number
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidURLError:
            self._refuse(*(self._fault or (400, _BAD_TARGET)))
        except httptools.HttpParserError:
            self._refuse(*(self._fault or (400, "this is not well-formed HTTP")))
        else:
            self._weigh(len(data) if number == self._number else 0)
        return not (self.transport.is_closing() or self._refused)

    def _hold(self, wait: bool) -> None:
        """Let the peer wait until its bytes are parsed, or no more."""
        self._held = wait
        self._set_reading()

    def _set_reading(self) -> None:
        """Read from the peer unless it has to wait."""
        if self.transport.is_closing():
            return
        if self._paused or self._held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Give a peer that does not read a bounded time."""
        self.writable = asyncio.Event()
        if self._stalled is None:
            self._stalled = self.loop.call_later(
                self._limits.write_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        """Forget the stall."""
        if self.writable is not None:
            self.writable.set()
            self.writable = None
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def pause_reading(self) -> None:
        """Let the peer wait until its bytes are read."""
        if not self._paused:
            self._paused = True
            self._set_reading()
            if self._streamed:
                self._arm(_PAUSED_SECONDS)

    def resume_reading(self) -> None:
        """Take more from the peer."""
        if self._paused:
            self._paused = False
            self._set_reading()
            if self._streamed:
                self._progress = 0
                self._arm(self._limits.request_seconds)

    def answered(self, *, keep_alive: bool) -> None:
        """Go on with the next request, or give the place up if it is wanted."""
        if self.slot is not None and self._unanswered is None:
            self.slot.waits()
        if not keep_alive:
            self.transport.close()
        if self.transport.is_closing():
            return
        if self._unread:
            # The rest of the body is read only so that the answer arrives (RFC 9112
            # section 9.6): its bytes extend no deadline.
            self._streamed = False
            left = self._limits.unread_seconds
            if self._deadline is not None:
                left = min(left, self._deadline - self._now())
            self._arm(max(left, 0.0))
        self.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        elif self._deadline is None:
            self._wait_for_next()

    def finish(self) -> None:
        """Close after the running answer; a stream, which has no end, right away."""
        exchange = self._unanswered
        if exchange is None or exchange.started:
            self.transport.close()
        else:
            exchange.keep_alive = False

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Start counting a request."""
        self._url, self._headers, self._expects_100 = b"", [], False
        self._in_head = True
        self._number += 1
        self._fed = self._parsed = self._count = self._discarded = 0
        self._streamed, self._progress = False, 0
        self._framing = self._limits.framing_bytes
        self._chunks = self._content = 0
        if self._seen:
            self._seen = set()
        self._began = self._now()
        self._arm(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """Count the request line as part of the head."""
        self._measure(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, and refuse a second one of those that must be alone."""
        if not self._in_head:
            return  # a trailer, which nobody reads
        self._count += 1
        if self._count > self._limits.headers:
            self._fail(431, "there are too many headers")
        self._measure(len(name) + len(value) + 4)
        lowered = name.lower()
        if lowered in _SINGLE:
            if lowered in self._seen:
                self._fail(400, f"the header {lowered.decode()} is given twice")
            self._seen.add(lowered)
        elif lowered == b"expect" and value.lower() == b"100-continue":
            self._expects_100 = True
        self._headers.append((lowered, value))

    def on_headers_complete(self) -> None:
        """Start the request; its body still has to arrive in time."""
        self._in_head = False
        # The rest of this slice is counted whole, the head in it too.
        self._fed = -SLICE
        self._check_version()
        if self._parser.get_method() != b"CONNECT":
            self._check_target()
        if self._parser.should_upgrade():
            return  # `_pass_over_upgrade` goes on
        if len(self._pipeline) >= self._limits.pipelined:
            self._fail(429, "too many requests were sent before their answers")
        now = self._now()
        self.port.tick(now)
        self._arm(self._began + self._limits.request_seconds - now)
        self._streamed = self._url.startswith(self._limits.streamed)
        waits = self._unanswered is not None
        exchange = self._exchange()
        if self.slot is not None and self.slot.reserved:
            exchange.scope["state"][RESERVED] = True
            if self.port.urgent is None or not self.port.urgent(exchange.scope):
                self._fail(503, "too many connections")
        self._latest = exchange
        if waits:
            self.pause_reading()
            self._pipeline.append(exchange)
        else:
            self._start(exchange)

    def on_chunk_header(self) -> None:
        """Allow for the framing of one more chunk, unless most of them are tiny."""
        self._framing += _CHUNK_FRAMING
        self._chunks += 1
        if self._chunks > _SMALL_CHUNKS and self._content < self._chunks * _MEAN_CHUNK:
            self._fail(400, "the body comes in too many small chunks")

    def on_body(self, body: bytes) -> None:
        """Pass the body on, or drop it once the answer is out."""
        self._fed -= len(body)
        self._content += len(body)
        if self._streamed and not self._paused:
            self._progress += len(body)
            if self._progress >= self._limits.progress_bytes:
                self._progress = 0
                self._arm(self._limits.request_seconds)
        if (exchange := self._unanswered) is not None:
            exchange.put(body)
            return
        self._discarded += len(body)
        if self._discarded > self._limits.unread_bytes:
            self._stop_reading()

    def on_message_complete(self) -> None:
        """Stop the clock: the request is whole, the rest is up to us."""
        if self._parser.should_upgrade():
            return
        self._deadline, self._streamed = None, False
        if (exchange := self._unanswered) is None:
            self._wait_for_next()
            return
        if self.slot is not None:
            self.slot.works()
        exchange.more_body = False
        exchange.wake()

    # Rules that the parser leaves to us

    def _check_version(self) -> None:
        """Refuse other protocols than HTTP/1.x, and framing its version does not know.

        Both ends must agree on a message's length (RFC 9112 section 6.1).
        """
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            self._fail(505, "this server speaks HTTP/1.1")
        if b"transfer-encoding" in self._seen:
            if version == "1.0":
                self._fail(400, "HTTP/1.0 has no Transfer-Encoding")
            if dict(self._headers)[b"transfer-encoding"].lower() != b"chunked":
                self._fail(501, "the only transfer coding is chunked")

    def _check_target(self) -> None:
        """Bring the request target to origin form (RFC 9112 section 3.2).

        The authority of an absolute target takes the place of ``Host`` (section 3.2.2).
        """
        target = self._url
        if target.startswith(b"/"):
            if b"#" in target:
                self._fail(400, "a request target has no fragment")
            return
        if target == b"*":
            if self._parser.get_method() != b"OPTIONS":
                self._fail(400, "only OPTIONS is asked of a whole server")
            return
        scheme, separator, rest = target.partition(b"://")
        authority, path = _split_authority(rest)
        if not separator or not authority or b"@" in authority or b"#" in path:
            self._fail(400, "this is no request target")
        if scheme.lower() != self._template["scheme"].encode():
            self._fail(421, "the request target does not name this server")
        self._url = path if path.startswith(b"/") else b"/" + path
        self._headers[:] = [pair for pair in self._headers if pair[0] != b"host"]
        self._headers.append((b"host", authority))

    # Bounds

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol without (RFC 9110 section 7.8).

        The parser believes in the offer and skips the body, so another one starts over.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._answer_connect()
            return
        version = self._parser.get_http_version().encode()
        head = [method, b" ", self._url, b" HTTP/", version, b"\r\n"]
        for name, value in self._headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self._parser = self._new_parser()
        data = b"".join([*head, b"\r\n", rest])
        for start in range(0, len(data), SLICE):
            if not self._feed(data[start : start + SLICE]):
                return

    def _answer_connect(self) -> None:
        """Let the app refuse a ``CONNECT`` to a path, and read nothing behind it.

        A host and port (RFC 9110 section 9.3.6) are for proxies.
        """
        if not self._url.startswith(b"/") or self._unanswered is not None:
            self._refuse(400, "this is not a proxy")
            return
        self._streamed = self._url.startswith(self._limits.streamed)
        self._latest = exchange = self._exchange()
        exchange.keep_alive = exchange.more_body = self._streamed = False
        self._refused, self._deadline = True, None
        self.pause_reading()
        self._start(exchange)

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
        """Count the parser's input, which buffers an unfinished header whole."""
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
        """Leave the parser by an exception; `_feed` answers."""
        self._fault = (status, text)
        raise ValueError(text)

    def _refuse(self, status: int, text: str) -> None:
        """Answer *status* and hang up, without getting ahead of an earlier answer."""
        self._refused = True
        self._deadline = None
        exchange = self._unanswered
        if exchange is not None and not self._pipeline and not exchange.more_body:
            # That request was whole: it gets its answer, which is the last one.
            exchange.keep_alive = False
            self.pause_reading()
        elif exchange is not None and (self._pipeline or exchange.started):
            self.transport.abort()
        else:
            if exchange is not None:
                exchange.disconnect()
            self.transport.write(written(self.port.shape(status, text)))
            self.transport.close()

    @property
    def _unanswered(self) -> Exchange | None:
        """The latest request, if its answer is not out yet."""
        latest = self._latest
        return None if latest is None or latest.complete else latest

    def _stop_reading(self) -> None:
        """Close our side, and reset the connection after a moment.

        RFC 9112 section 9.6: a reset may discard an answer that is not read yet. TLS
        has no half-closed connection here; the moment is the same.
        """
        self._refused = True
        self.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(_LINGER_SECONDS)

    @property
    def _unread(self) -> bool:
        """Whether the latest request was answered before its whole body was read."""
        latest = self._latest
        return latest is not None and latest.complete and latest.more_body

    def _wait_for_next(self) -> None:
        """Close an idle connection in time, also if its peer reads no answer."""
        self._idle = True
        self._arm(self._limits.idle_seconds)

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # A request that says `close` may have more behind it, which is not read.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _exchange(self) -> Exchange:
        raw_path, _, query = self._url.partition(b"?")
        path = raw_path.decode("ascii")
        version = self._parser.get_http_version()
        scope = {
            **self._template,
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "raw_target": self._url,
            "headers": self._headers,
            "state": self._members.copy(),
        }
        keep_alive = version != "1.0" and self._parser.should_keep_alive()
        exchange = Exchange(
            self, scope, keep_alive=keep_alive, expects_100=self._expects_100
        )
        if self._streamed:
            scope["exchange"] = exchange  # its app takes it out
        return exchange

    def _start(self, exchange: Exchange) -> None:
        exchange.task = self.loop.create_task(exchange.run())
        self.port.tasks.add(exchange.task)


def _address(address: Any) -> tuple[str, int | None] | None:
    """Return an end of the connection as ASGI has it: a Unix socket has no port."""
    if isinstance(address, str):
        return (address, None) if address else None
    return (str(address[0]), int(address[1])) if address else None


def _split_authority(rest: bytes) -> tuple[bytes, bytes]:
    """Split an absolute target into the authority, and path and query."""
    ends = [at for mark in b"/?#" if (at := rest.find(mark)) >= 0]
    end = min(ends, default=len(rest))
    return rest[:end], rest[end:]


def written(reply: Reply) -> bytes:
    """Return *reply* as the last one of its connection."""
    lines = [b"%s: %s\r\n" % header for header in reply.headers]
    lines += [b"connection: close\r\n\r\n", reply.body]
    return STATUS_LINE[reply.status] + b"".join(lines)
