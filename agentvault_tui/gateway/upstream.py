"""Reach a service: addresses checked and pinned, TLS verified, everything bounded.

A connection carries the requests of one agent only.
Nothing is retried, redirected, decompressed or taken from the environment: a request
leaves at most once, and as it was built.
"""

from __future__ import annotations

import asyncio
import codecs
import encodings.aliases
import pkgutil
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final

from agentvault_tui.gateway.answer_headers import passed_on
from agentvault_tui.gateway.echo import (
    Echo,
    EchoedError,
    PackedEcho,
    next_turn,
    search_headers,
)
from agentvault_tui.gateway.services import Service
from agentvault_tui.model import AgentId
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.web.reach import service_connection, trust, unreachable
from agentvault_tui.web.service_connection import (
    Bounds,
    ServiceConnection,
    UpstreamError,
    late,
)
from agentvault_tui.web.shares import SharedPlaces

Header = tuple[str, str]
_CONNECTIONS: Final = 512
"""To one service; further calls wait for one, as long as for a new one."""
_IDLE: Final = 512
_IDLE_SHARE: Final = _IDLE // 8
"""Idle connections of one agent at most, to all services together."""
_KEPT_SECONDS: Final = 4.0
"""An idle connection is reused: below the five seconds after which common servers
close theirs, since a request on a closed one is lost and not repeated."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHARSET: Final = re.compile(rb"charset\s*=[\s\"']*([^\s\"';,]+)")
_LONGEST_TYPE: Final = 512
"""Bytes of an answer's ``Content-Type``."""
_CODECS: Final = frozenset(one.name for one in pkgutil.iter_modules(encodings.__path__))
"""A charset is looked up in this table alone: `codecs` would try an import for each
other name, and retain it."""
_WIDE: Final = re.compile("utf-(16|32)(?:-[bl]e)?")
_ASCII: Final = bytes(range(32, 127))
_PACKED: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
"""Encodings of answers that are searched for the credential."""


@dataclass(slots=True)
class Outgoing:
    """One request as it leaves, but for its credential."""

    method: str
    target: str
    """Path and query, sent byte for byte."""
    headers: list[Header]
    body: bytes | AsyncIterator[bytes] | None
    length: int | None
    """Of the body, where it is streamed and its length is known."""
    attach: Callable[[Outgoing], None]
    """Called when the connection is open, right before the first byte leaves: checks
    that the call may still go out, and adds the credential. Raises to stop it."""
    echo: Echo
    """The values that the answer must not hold."""
    agent_id: AgentId | None = None
    """The agent that makes the call. Without it, the connection is not used again."""
    reuse: bool | None = None
    """Whether the service reads its body to the end, so that the connection may carry
    another request; left out: only if there is no body."""
    connection: ServiceConnection | None = None
    """Which it went out on, until that is used for another one."""

    @property
    def may_reuse(self) -> bool:
        """Whether another request may follow this one on its connection.

        A service that leaves a body unread takes it for the next request (RFC 9112
        section 9.3), and that one would be the agent's to write.
        """
        return not self.body if self.reuse is None else self.reuse

    @property
    def unsent_bytes(self) -> int:
        """How much of the request the kernel does not have yet."""
        if self.connection is None:
            return 0
        return self.connection.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Send and receive nothing any more; the kernel's bytes are dropped."""
        if self.connection is not None:
            self.connection.abort()


class Answer:
    """A service's answer: status and headers are here, the body is streamed."""

    def __init__(
        self,
        connection: ServiceConnection,
        outgoing: Outgoing,
        done: Callable[[ServiceConnection], None],
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        self.status = connection.status
        self.headers = passed_on(connection.headers)
        self.bytes_in = 0
        self.packed: PackedEcho | None = None
        """The search of the unpacked body, if it is compressed."""
        self._connection = connection
        self._outgoing = outgoing
        self._rest = b""
        """Bytes that have arrived and were not searched yet."""
        self._done: Callable[[ServiceConnection], None] | None = done
        self._pace = pace

    @property
    def has_arrived(self) -> bool:
        """Whether some of the body is here, or all of it."""
        return self._connection.has_body or self._connection.complete

    async def read(self) -> bytes:
        """Return the next piece of the body; an empty one at its end.

        Raises:
            UpstreamError: it broke off, holds the credential, or is past a bound.
        """
        echo = self._outgoing.echo
        try:
            while arrived := self._rest or await self._connection.read():
                if echo.needles and echo.is_slow(arrived):
                    await self._pace()
                chunk, self._rest = arrived[: echo.window], arrived[echo.window :]
                self.bytes_in += len(chunk)
                if clean := await self._searched(echo.pass_on(chunk)):
                    return clean
            return await self._searched(echo.rest(), last=True)
        except EchoedError:
            raise echoed() from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; see `read`."""
        while piece := await self.read():
            yield piece

    async def _searched(self, piece: bytes, *, last: bool = False) -> bytes:
        """Return the part of a compressed piece that may be passed on."""
        if self.packed is None:
            return piece
        data = await self.packed.pass_on(piece)
        return data + self.packed.rest() if last else data

    def close(self) -> None:
        """Let go of the connection: reused where the answer was read to its end."""
        done, self._done = self._done, None
        if done is not None:
            self._outgoing.connection = None
            done(self._connection)


_Owner = tuple["Upstream", ServerOrigin, AgentId]


def _user(owner: _Owner | None) -> str:
    """Return the agent that a connection counts for; empty for the broker's own."""
    return "" if owner is None else owner[2]


class IdleConnections:
    """Open connections, each of which waits for one agent's next request."""

    def __init__(self) -> None:
        """Start with none."""
        self._owners: dict[ServiceConnection, _Owner] = {}
        """The longest idle first."""
        self._by_owner: dict[_Owner, list[ServiceConnection]] = {}
        self._counts: Counter[AgentId] = Counter()
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, owner: _Owner) -> ServiceConnection | None:
        """Return an idle connection of an owner, if one can be used again."""
        least = asyncio.get_running_loop().time() - _KEPT_SECONDS
        while waiting := self._by_owner.get(owner):
            connection = waiting[-1]
            self._forget(connection)
            if connection.idle_since > least and connection.reusable:
                return connection
            connection.abort()
        return None

    def put(self, owner: _Owner, connection: ServiceConnection) -> None:
        """Retain an open connection; if there are too many, close the longest idle."""
        loop, agent_id = asyncio.get_running_loop(), owner[2]
        if self._counts[agent_id] >= _IDLE_SHARE:
            self.close(lambda one: one[2] == agent_id, most=1)
        elif len(self._owners) >= _IDLE:
            self.close(lambda _: True, most=1)
        connection.idle_since = loop.time()
        self._owners[connection] = owner
        self._by_owner.setdefault(owner, []).append(connection)
        self._counts[agent_id] += 1
        if self._sweep is None:
            self._sweep = loop.call_later(_KEPT_SECONDS, self._swept)

    def close(self, chosen: Callable[[_Owner], bool], most: int = _IDLE) -> None:
        """Close connections of the chosen owners, the longest idle first."""
        connections = [one for one, owner in self._owners.items() if chosen(owner)]
        for connection in connections[:most]:
            self._forget(connection)
            connection.abort()

    def close_of(self, agent_id: AgentId | None) -> None:
        """Close the connections of an agent that was revoked; None: of every agent."""
        self.close(lambda owner: agent_id in {None, owner[2]})

    def _forget(self, connection: ServiceConnection) -> None:
        owner = self._owners.pop(connection)
        waiting = self._by_owner[owner]
        waiting.remove(connection)
        if not waiting:
            del self._by_owner[owner]
        self._counts[owner[2]] -= 1
        if not self._counts[owner[2]]:
            del self._counts[owner[2]]
        if not self._owners and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _swept(self) -> None:
        """Close the connections that were idle for too long."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        least = loop.time() - _KEPT_SECONDS
        for connection in list(self._owners):
            if connection.idle_since > least:
                break
            self._forget(connection)
            connection.abort()
        if self._owners:
            self._sweep = loop.call_later(_KEPT_SECONDS, self._swept)


class Upstream:
    """One service's connections; no two agents share one."""

    def __init__(
        self,
        service: Service,
        bounds: Bounds = Bounds(),  # noqa: B008 - immutable
        idle: IdleConnections | None = None,
        pace: Callable[[], Awaitable[None]] = next_turn,
    ) -> None:
        """Connect to nothing yet.

        Args:
            service: the service.
            bounds: of each request.
            idle: where connections wait that can be used again, shared with others.
            pace: waits for a turn; awaited before a slow part of an answer is searched.

        Raises:
            OSError: the system's authorities cannot be read.
        """
        self.service = service
        self._bounds = bounds
        self.pace = pace
        self._idle = idle or IdleConnections()
        # Reading the system's authorities takes 35 ms: not for a service on http.
        secure = service.origin.scheme == "https" or service.authorities
        self._trust = trust(service.authorities) if secure else None
        self._places = SharedPlaces(_CONNECTIONS, time.monotonic)
        self._busy: dict[ServiceConnection, _Owner | None] = {}
        self._retired = False

    async def _connected(
        self, origin: ServerOrigin, owner: _Owner | None
    ) -> ServiceConnection:
        """Return an idle connection of the owner, or a new one.

        Raises:
            UpstreamError: there is none, or the agent has its share of them.
        """
        user = _user(owner)
        if not self._places.reserve(user, 1):
            code = "temporarily_unavailable"
            text = "this agent has its share of the connections to the service"
            raise UpstreamError(503, code, text)
        try:
            if owner and (idle := self._idle.take(owner)):
                return idle
            async with asyncio.timeout(self._bounds.connect):
                return await self._connect(origin)
        except BaseException as error:
            self._places.release(user, 1)
            if isinstance(error, TimeoutError):
                raise late() from None
            if isinstance(error, OSError):  # an ssl.SSLError is one
                raise unreachable() from None
            raise

    async def _connect(self, origin: ServerOrigin) -> ServiceConnection:
        secure = origin.scheme == "https"
        if secure and self._trust is None:
            self._trust = trust(self.service.authorities)
        return await service_connection(
            origin.host,
            origin.port,
            private=self.service.allow_private,
            tls=self._trust if secure else None,
            bounds=self._bounds,
        )

    async def send(
        self, outgoing: Outgoing, origin: ServerOrigin | None = None
    ) -> Answer:
        """Send a request, once, and return the answer when it has begun.

        Args:
            outgoing: the request.
            origin: where to, if not to the service itself.

        Returns:
            the answer, to be closed.

        Raises:
            UpstreamError: there is none.
        """
        to = origin or self.service.origin
        agent_id = outgoing.agent_id
        owner = None if agent_id is None else (self, to, agent_id)
        connection = await self._connected(to, owner)
        self._busy[connection] = owner
        outgoing.connection = connection
        connection.begin(outgoing.method, reuse=outgoing.may_reuse)
        answer: Answer | None = None
        try:
            outgoing.attach(outgoing)
            headers = [("Host", to.authority), *outgoing.headers]
            connection.send(outgoing.target, headers, outgoing.body, outgoing.length)
            await connection.answered()
            needles = outgoing.echo.needles
            await search_headers(connection.headers, needles, self.pace)
            answer = Answer(connection, outgoing, self._done, self.pace)
            if (width := _width_packed(connection, outgoing)) is not None:
                answer.packed = PackedEcho(needles, width, self.pace)
        except BaseException as error:
            connection.abort()
            outgoing.connection = None
            self._done(connection)
            if isinstance(error, EchoedError):
                raise echoed() from None
            raise
        return answer

    def _done(self, connection: ServiceConnection) -> None:
        """Retain a connection that its agent can use again; close any other."""
        owner = self._busy.pop(connection)
        self._places.release(_user(owner), 1)
        if owner is None or self._retired or not connection.reusable:
            connection.abort()
        else:
            self._idle.put(owner, connection)

    def retire(self) -> None:
        """Send nothing new; close connections once their calls have ended."""
        self._retired = True
        self._idle.close(lambda owner: owner[0] is self)

    async def aclose(self) -> None:
        """Close every connection; calls under way break off."""
        self.retire()
        for connection in self._busy:
            connection.abort()


def _width_packed(connection: ServiceConnection, outgoing: Outgoing) -> int | None:
    """Check the head of an answer; return the width of its characters if compressed.

    Raises:
        UpstreamError: it must not be passed on, or is compressed, unasked, in a way
            that is not searched.
    """
    echo, headers = outgoing.echo, connection.headers
    if _CONTROL.search(b"".join(chain.from_iterable(headers))):
        text = "a header of the answer holds a control character"
        raise UpstreamError(502, "upstream_reset", text)
    ranged = any(name.lower() == "range" for name, _ in outgoing.headers)
    if connection.status == 206 and not ranged:
        # RFC 9110 section 15.3.7. A credential split over two answers is not found.
        text = "the service sent a part of an answer that was not asked for"
        raise UpstreamError(502, "upstream_reset", text)
    if outgoing.method == "HEAD" or connection.status in {204, 304}:
        return None
    if echo.needles:
        echo.width = _width(headers)
    packings = [v.lower() for n, v in headers if n.lower() == b"content-encoding"]
    names = b",".join(packings).split(b",")
    codings = {one.strip() for one in names} - {b"", b"identity"}
    if not packings or not echo.needles:
        return None
    # One that names no coding is searched both ways: programs differ about it.
    if len(codings) > 1 or len(names) > 1 or not codings <= _PACKED:
        text = "the answer is compressed in a way that may hide the credential"
        raise UpstreamError(502, "credential_echoed", text)
    return echo.width


def _width(headers: list[tuple[bytes, bytes]]) -> int:
    """Return how many bytes a character of an answer has at least, by its charset.

    Raises:
        UpstreamError: the charset encodes ASCII differently: nothing would be found.
    """
    widths = {1}
    for name, value in headers:
        if name.lower() != b"content-type":
            continue
        charsets = set(_CHARSET.findall(value.lower()))
        if len(charsets) > 1 or len(value) > _LONGEST_TYPE:
            raise _hidden()
        codec = _codec(*charsets) if charsets else None
        if codec is None:
            continue
        try:
            ascii_stays = _ASCII.decode(codec.name) == _ASCII.decode()
        except UnicodeDecodeError:
            ascii_stays = False
        except (LookupError, ValueError):
            continue  # no text encoding
        if wide := _WIDE.fullmatch(codec.name):
            widths.add(int(wide[1]) // 8)
        elif codec.name == "utf-7" or not ascii_stays:
            raise _hidden()
    if len(widths) > 2:
        raise _hidden()
    return max(widths)


def _codec(charset: bytes) -> codecs.CodecInfo | None:
    """Return the codec of a charset; None if it is unknown."""
    name = encodings.normalize_encoding(charset.decode("latin-1"))
    alias = encodings.aliases.aliases.get(name, name)
    return codecs.lookup(alias) if alias in _CODECS else None


def _hidden() -> UpstreamError:
    text = "the answer is in a charset that may hide the credential"
    return UpstreamError(502, "credential_echoed", text)


def echoed() -> UpstreamError:
    """Return the error of an answer that holds the credential."""
    return UpstreamError(
        502, "credential_echoed", "the service's answer holds its credential"
    )
