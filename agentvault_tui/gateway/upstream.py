"""Reach a service: addresses checked and pinned, TLS verified, everything bounded.

One connection pool a service (one an agent, where the credential is the agent's own).
Nothing is retried, redirected, decompressed or taken from the environment: a request
leaves at most once, and as it was built.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from agentvault_tui.gateway.echo import Echo, EchoedError, PackedEcho
from agentvault_tui.gateway.services import Service, ServiceOrigin
from agentvault_tui.web.sockets import abort

Header = tuple[str, str]
_CONNECTIONS: Final = 512
"""To one service; further calls wait for one, as long as for a new one."""
_KEPT_SECONDS: Final = 4.0
"""An idle connection is reused: below the five seconds after which common servers
close theirs, since a request on a closed one is lost and not repeated."""
_BUFFER: Final = 65_536
_HEADERS: Final = 128
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that IANA has allocated as global; others (site-local, IPv4-compatible) may still
be routed to inner networks."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""Encodings of answers that are searched for the credential."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""RFC 9110 section 7.6.1."""


class UpstreamError(Exception):
    """The service gave no answer, or one that must not be passed on."""

    def __init__(self, status: int, code: str, text: str) -> None:
        """Keep the HTTP *status* and *code* for the agent; the text holds no secret."""
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Bounds:
    """Deadlines in seconds and caps in bytes of one request."""

    connect: float = 10.0
    idle: float = 120.0
    """Until the answer begins, and between two pieces of it or of the request."""
    whole: float = 3_600.0
    answer_bytes: int = 16 * 2**30
    head_bytes: int = 65_536


def may_reach(address: str, *, private: bool) -> bool:
    """Tell whether a service may be at *address*.

    Args:
        address: an IP address, resolved.
        private: whether loopback, link-local and private ones are allowed.

    Returns:
        whether it is unicast, and public unless *private*. What an IPv6 address
        embeds (mapped, NAT64, 6to4, Teredo) is judged instead of it.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            ip = inner
    if ip.is_multicast or ip.is_unspecified or ip == _BROADCAST:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST:
        return private
    return private or ip.is_global


_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


class _RefusedAddressError(OSError):
    """A name stands for an address that its service may not have."""


class _CheckedResolver(AbstractResolver):
    """Resolves a name once a connection, which then goes to an address checked here."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of *host*; none if any of them is not allowed."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys((kind, at[0]) for kind, *_, at in found))
        for _, address in addresses:
            if not may_reach(str(address), private=self._private):
                raise _RefusedAddressError(errno.EACCES, "address not allowed")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=kind,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, address in addresses
        ]

    async def close(self) -> None:
        """Hold nothing."""


async def connected_to(host: str, port: int, *, private: bool) -> socket.socket:
    """Connect to a host that is no service, at an address checked here.

    Args:
        host: a name or an address.
        port: of TCP.
        private: see `may_reach`.

    Raises:
        UpstreamError: it cannot be reached, or may not.
    """
    loop, bounds = asyncio.get_running_loop(), Bounds()
    try:
        async with asyncio.timeout(bounds.connect):
            resolver = _CheckedResolver(private=private)
            found = await resolver.resolve(host, port, socket.AF_UNSPEC)
            for one in found:
                connected = socket.socket(one["family"], socket.SOCK_STREAM)
                connected.setblocking(False)
                try:
                    await loop.sock_connect(connected, (one["host"], port))
                except BaseException as error:
                    connected.close()
                    if not isinstance(error, OSError):
                        raise
                else:
                    return connected
    except TimeoutError:
        raise UpstreamError(504, "upstream_timeout", "it took too long") from None
    except OSError as error:
        if isinstance(error, _RefusedAddressError):
            raise _refused() from None
    raise UpstreamError(502, "upstream_unreachable", "the host cannot be reached")


def trust(ca_file: str) -> ssl.SSLContext:
    """Return what verifies a service's certificate.

    Args:
        ca_file: PEM; empty for the system's authorities, wherever the environment
            would have them.

    Raises:
        OSError: the file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        context.load_verify_locations(ca_file)
        return context
    # Not set_default_verify_paths(), which would read SSL_CERT_FILE.
    paths = ssl.get_default_verify_paths()
    if os.path.isfile(paths.openssl_cafile):  # noqa: PTH113
        context.load_verify_locations(paths.openssl_cafile)
    elif os.path.isdir(paths.openssl_capath) and os.listdir(paths.openssl_capath):  # noqa: PTH112, PTH208
        context.load_verify_locations(capath=paths.openssl_capath)
    else:
        context.load_verify_locations(certifi.where())
    return context


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
    """Called when the connection stands, right before the first byte leaves: checks
    that the call may still go out, and adds the credential. Raises to stop it."""
    echo: Echo
    """What the answer must not hold."""
    transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Send and receive nothing any more; what the kernel holds is dropped."""
        if self.transport is not None:
            abort(self.transport)


_OUTGOING: ContextVar[Outgoing] = ContextVar("outgoing")
"""What aiohttp is asked to send in this task."""


class _UpstreamRequest(aiohttp.ClientRequest):
    """Attaches the credential to a request whose connection stands."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.outgoing = _OUTGOING.get()

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request."""
        outgoing = self.outgoing
        outgoing.transport = conn.transport
        outgoing.attach(outgoing)
        self.url = _url(str(self.url.origin()), outgoing.target)
        framing = [(n, self.headers[n]) for n in _FRAMING if n in self.headers]
        self.headers.clear()
        self.headers.extend([*framing, *outgoing.headers])
        return await super().send(conn)


_FRAMING: Final = ("Host", "Content-Length", "Transfer-Encoding")


def _url(origin: str, target: str) -> URL:
    return URL(origin + target, encoded=True)


class Answer:
    """A service's answer: status and headers are here, the body is streamed."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        outgoing: Outgoing,
        bounds: Bounds,
        done: Callable[[], None],
    ) -> None:
        self.status = response.status
        self.headers = end_to_end(response.raw_headers)
        self.bytes_in = 0
        self.packed: PackedEcho | None = None
        """What searches the body besides, where it is compressed."""
        self._response = response
        self._outgoing = outgoing
        self._bounds = bounds
        self._done: Callable[[], None] | None = done
        self._ends = asyncio.get_running_loop().time() + bounds.whole

    @property
    def has_arrived(self) -> bool:
        """Whether some of the body is here, or all of it."""
        content = self._response.content
        return content.is_eof() or content.total_bytes > 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            UpstreamError: it broke off, holds the credential, or is past a bound.
        """
        echo, bounds = self._outgoing.echo, self._bounds
        now, content = asyncio.get_running_loop().time, self._response.content
        try:
            while True:
                if content.is_eof():  # all of it is here
                    chunk = await content.readany()
                else:
                    # aiohttp's own deadline is gone where a chunk's framing is wrong.
                    async with asyncio.timeout(bounds.idle):
                        chunk = await content.readany()
                if not chunk:
                    break
                self.bytes_in += len(chunk)
                if self.bytes_in > bounds.answer_bytes or now() > self._ends:
                    raise UpstreamError(
                        504, "upstream_timeout", "the answer is too long"
                    )
                if clean := await self._searched(echo.pass_on(chunk)):
                    yield clean
            if rest := await self._searched(echo.rest(), last=True):
                yield rest
        except EchoedError:
            raise echoed() from None
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from None

    async def _searched(self, piece: bytes, *, last: bool = False) -> bytes:
        """Return what of a piece may be passed on, where the body is compressed."""
        if self.packed is None:
            return piece
        found = await self.packed.pass_on(piece)
        return found + self.packed.rest() if last else found

    def close(self) -> None:
        """Let go of the connection: reused where the answer was read to its end."""
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._outgoing.abort()
            self._response.close()
        done, self._done = self._done, None
        if done is not None:
            done()


class Upstream:
    """One service's connections."""

    def __init__(self, service: Service, bounds: Bounds | None = None) -> None:
        """Connect to nothing yet.

        Raises:
            OSError: its ``ca_file`` cannot be read.
        """
        self.service = service
        self._bounds = bounds or Bounds()
        self._trust = trust(service.ca_file)
        self._session: aiohttp.ClientSession | None = None
        self._open = 0
        """Requests under way."""
        self._closing: asyncio.Task[None] | None = None
        self._retired = False

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            bounds = self._bounds
            self._session = session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_CheckedResolver(private=self.service.allow_private),
                    ssl=self._trust,
                    limit=_CONNECTIONS,
                    use_dns_cache=False,
                    keepalive_timeout=_KEPT_SECONDS,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=_UpstreamRequest,
                auto_decompress=False,
                trust_env=False,
                requote_redirect_url=False,
                skip_auto_headers=("Content-Type",),
                timeout=aiohttp.ClientTimeout(
                    connect=bounds.connect, sock_read=bounds.idle
                ),
                read_bufsize=_BUFFER,
                max_line_size=bounds.head_bytes,
                max_field_size=bounds.head_bytes,
                max_headers=_HEADERS,
            )
            # A request on a connection that the service had closed may have arrived.
            session._retry_connection = False  # noqa: SLF001 - has no public setting
        return self._session

    async def send(
        self, outgoing: Outgoing, origin: ServiceOrigin | None = None
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
        with suppress(ValueError):
            # A literal address is not resolved.
            if not may_reach(to.host, private=self.service.allow_private):
                raise _refused()

        headers = {}
        if outgoing.length is not None:
            # Read by the writer of the body; all others are set when it is sent.
            headers["Content-Length"] = str(outgoing.length)
        bounds = self._bounds
        self._open += 1
        _OUTGOING.set(outgoing)
        try:
            async with asyncio.timeout(bounds.whole):
                response = await self._connected().request(
                    outgoing.method,
                    _url(str(to), outgoing.target),
                    data=outgoing.body,
                    headers=headers,
                    allow_redirects=False,
                )
        except BaseException as error:
            outgoing.abort()
            self._done()
            if isinstance(error, aiohttp.ClientError | OSError | ValueError):
                raise _fault(error) from None
            raise
        answer = Answer(response, outgoing, bounds, self._done)
        try:
            answer.packed = _checked(response, outgoing)
        except UpstreamError:
            answer.close()
            raise
        return answer

    def _done(self) -> None:
        self._open -= 1
        if self._retired and not self._open:
            self._closing = asyncio.create_task(self.aclose())

    def retire(self) -> None:
        """Send nothing new; close the connections once what is under way has ended."""
        self._retired, self._open = True, self._open + 1
        self._done()

    async def aclose(self) -> None:
        """Close every connection; what is under way breaks off."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _checked(response: aiohttp.ClientResponse, outgoing: Outgoing) -> PackedEcho | None:
    """Check the head of an answer; return what searches its body, if compressed.

    Raises:
        UpstreamError: it must not be passed on, or is compressed, unasked, in a way
            that is not searched.
    """
    echo = outgoing.echo
    if response.status == 101:
        raise UpstreamError(502, "upstream_reset", "the service changed protocols")
    if echo.is_in_headers(response.raw_headers):
        raise echoed()
    if any(map(_CONTROL.search, chain(*response.raw_headers))):
        text = "a header of the answer holds a control character"
        raise UpstreamError(502, "upstream_reset", text)
    if outgoing.method == "HEAD" or response.status in {204, 304}:
        return None
    said = ",".join(response.headers.getall("Content-Encoding", ())).lower().split(",")
    codings = {one.strip() for one in said} - {"", "identity"}
    if not codings or not echo.needles:
        return None
    if len(codings) > 1 or len(said) > 1 or not codings <= _PACKED:
        text = "the answer is compressed in a way that may hide the credential"
        raise UpstreamError(502, "credential_echoed", text)
    return PackedEcho(echo.needles)


def end_to_end(raw: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that are passed on.

    Hop-by-hop ones are left out, those that only the gateway says, and cookies: what
    a service gives in exchange for a credential stands for it.
    """
    named = {
        token.strip().lower()
        for name, value in raw
        if name.lower() == b"connection"
        for token in value.decode("latin-1").split(",")
    }
    dropped = HOP_BY_HOP | named | {"set-cookie", "set-cookie2"}
    return [
        (lowered, value)
        for name, value in raw
        if (lowered := name.lower()).decode("latin-1") not in dropped
        and not lowered.startswith(b"agentvault-")
    ]


def echoed() -> UpstreamError:
    """Return the error of an answer that holds the credential."""
    return UpstreamError(
        502, "credential_echoed", "the service's answer holds its credential"
    )


def _refused() -> UpstreamError:
    return UpstreamError(
        502, "upstream_refused", "the service's address is not one it may have"
    )


def _fault(error: Exception) -> UpstreamError:
    """Say what went wrong; nothing of the exception's own text, which may be long."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, _RefusedAddressError):
        return _refused()
    if isinstance(error, TimeoutError):
        return UpstreamError(504, "upstream_timeout", "the service took too long")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamError(
            502, "upstream_unreachable", "the service cannot be reached"
        )
    return UpstreamError(502, "upstream_reset", "the service broke the connection off")
