"""The forward proxy: services by their own names, and no host that is not named."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.gateway_stand import SECRET, Received, Stand, Upstream
from support.patience import PATIENT
from support.stepups import details_of
from support.tls_front import trusted
from support.web_kit import read_all

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, SettingsError
from agentvault_tui.gateway import Gateway, proxy_listener
from agentvault_tui.gateway import calls as calls_module
from agentvault_tui.gateway import proxy as proxy_module
from agentvault_tui.gateway import tunnel as tunnel_module
from agentvault_tui.gateway.call import Call
from agentvault_tui.home import Home
from agentvault_tui.model import Action, Agent
from agentvault_tui.settings import GatewaySettings, PassThrough
from agentvault_tui.web import loopback_pair
from agentvault_tui.web.local_ca import CaFiles

SERVICE = """
[credential]
kind = "bearer"
secret = "key"
[[routes]]
method = "*"
path = "/{rest*}"
scope = "write:calendar"
"""
Asked = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxied:
    """A stand whose proxy listens, and an upstream of HTTPS called ``localhost``."""

    def __init__(self, stand: Stand, secure: Upstream, url: str, ca: str) -> None:
        self.stand, self.secure, self.ca = stand, secure, ca
        self.port = int(url.rpartition(":")[2])
        self.agent: Agent
        self.token = ""
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def at(self) -> str:
        return f"localhost:{self.secure.port}"

    async def send(self, *pieces: bytes) -> Asked:
        """Send raw bytes to the proxy."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        for piece in pieces:
            writer.write(piece)
        return reader, writer

    async def close(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def connect(
        self, target: str, *, password: str | None = None, more: bytes = b""
    ) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for a tunnel; return the answer's head and the connection."""
        said = basic(self.token if password is None else password)
        line = f"CONNECT {target} HTTP/1.1\r\n".encode()
        asked = await self.send(line + said + more + b"\r\n")
        async with asyncio.timeout(PATIENT):
            head = await asked[0].readuntil(b"\r\n\r\n")
        return head, *asked

    async def secured(
        self,
        target: str,
        *,
        name: str | None = "localhost",
        password: str | None = None,
    ) -> Asked:
        """Open a tunnel to a service, and TLS in it; *name* is what TLS asks for."""
        head, reader, writer = await self.connect(target, password=password)
        assert head.startswith(b"HTTP/1.1 200"), head
        context = ssl.create_default_context(cafile=self.ca)
        if name != "localhost":
            context.check_hostname = False
        await writer.start_tls(context, server_hostname=name)
        return reader, writer

    async def ask(
        self, request: bytes, *, asked: Asked | None = None, **more: Any
    ) -> bytes:
        """Send one request in a tunnel to the service, and read to the end."""
        reader, writer = asked or await self.secured(self.at, **more)
        writer.write(request.replace(b"@", self.at.encode()))
        async with asyncio.timeout(PATIENT):
            found: bytes = await read_all(reader)
        writer.close()
        return found


def basic(password: str, user: str = "agent") -> bytes:
    said = base64.b64encode(f"{user}:{password}".encode())
    return b"Proxy-Authorization: Basic " + said + b"\r\n"


def get(path: bytes = b"/v1/x", host: bytes = b"@", more: bytes = b"") -> bytes:
    head = b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n"
    return head + b"Connection: close\r\n" + more + b"\r\n"


@pytest.fixture
async def proxied(stand: Stand, short: Path) -> AsyncIterator[Proxied]:
    """A proxy on a free port, a service of HTTPS, and an agent that may use it."""
    broker = stand.bench.broker
    other = Home.locate(short / "tls")
    other.prepare()
    tls, _, _ = trusted(other)
    secure = Upstream()
    await secure.start(tls.context())
    gateway = replace(broker.settings.gateway, proxy="127.0.0.1:0")
    broker.settings = replace(broker.settings, gateway=gateway)
    line = await stand.gateway.listen(stand.server, stand.listener)
    found = Proxied(stand, secure, str(line["proxy_url"]), str(line["ca_file"]))
    places = (
        *(f"https://{found.at}", f"https://127.0.0.1:{secure.port}"),
        *(f"http://127.0.0.1:{stand.upstream.port}", "https://other.test"),
    )
    await stand.secret("key", SECRET, *places)
    ca = CaFiles.of(other).ca
    origin = f"https://{found.at}"
    head = f'origin = "{origin}"\nallow_private = true\nca_file = "{ca}"\n'
    await stand.service(SERVICE, head=head)
    await stand.service(SERVICE, name="plain")
    found.agent = await stand.agent("read:calendar", "write:calendar")
    found.token = await stand.token(found.agent, "write:calendar")
    yield found
    await found.close()
    await secure.stop()


async def test_a_tunnel_to_a_service_ends_here_and_its_request_is_a_call(
    proxied: Proxied,
) -> None:
    """The service gets its credential, not the token; two records say what was sent."""
    reply = await proxied.ask(get(b"/v1/x?a=%2e"))
    assert reply.startswith(b"HTTP/1.1 200"), reply
    (received,) = proxied.secure.received
    assert (received.method, received.target) == ("GET", "/v1/x?a=.")
    assert received.header("authorization") == f"Bearer {SECRET}"
    assert received.header("host") == proxied.at
    assert proxied.token not in str(received)
    assert await proxied.stand.records() == [("attempt", "granted"), ("result", "done")]


async def test_several_requests_of_a_tunnel_are_decided_one_by_one(
    proxied: Proxied,
) -> None:
    """A kept connection carries many calls, each with its records."""
    reader, writer = await proxied.secured(proxied.at)
    for _ in range(3):
        writer.write(f"GET /a HTTP/1.1\r\nHost: {proxied.at}\r\n\r\n".encode())
        async with asyncio.timeout(PATIENT):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            assert await reader.readexactly(2) == b"ok"
    writer.close()
    assert len(proxied.secure.received) == 3
    assert len(await proxied.stand.records()) == 6


@pytest.mark.parametrize("offer", [b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"])
async def test_a_request_in_absolute_form_reaches_a_service_of_plain_http(
    proxied: Proxied, offer: bytes
) -> None:
    """Where a service allows http, a tool without CONNECT reaches it too.

    Java and `curl --http2` offer HTTP/2 with it, which is passed over.
    """
    upstream = proxied.stand.upstream
    at = f"127.0.0.1:{upstream.port}".encode()
    said = basic(proxied.token)
    asked = await proxied.send(get(b"http://" + at + b"/v1/x?q", at, said + offer))
    reply = await proxied.ask(b"", asked=asked)
    assert reply.startswith(b"HTTP/1.1 200"), reply
    (received,) = upstream.received
    assert received.target == "/v1/x?q="
    assert received.header("authorization") == f"Bearer {SECRET}"
    assert received.header("proxy-authorization") is None


async def test_plain_http_inside_a_tunnel_reaches_a_service_of_plain_http(
    proxied: Proxied,
) -> None:
    """As undici asks: CONNECT also for http."""
    at = f"127.0.0.1:{proxied.stand.upstream.port}"
    head, reader, writer = await proxied.connect(at)
    assert head.startswith(b"HTTP/1.1 200"), head
    reply = await proxied.ask(get(host=at.encode()), asked=(reader, writer))
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert proxied.stand.upstream.received[0].header("authorization")


async def test_the_broker_itself_is_reached_by_the_proxy_too(proxied: Proxied) -> None:
    """Tools that leave ports out of NO_PROXY ask here for the agents' listener."""
    at = f"127.0.0.1:{proxied.stand.listener.port}"
    bearer = f"Authorization: Bearer {proxied.token}\r\n".encode()
    plain = f"http://{at}/gw/api/v1/x".encode()
    asked = await proxied.send(get(plain, at.encode(), bearer + basic(proxied.token)))
    reply = await proxied.ask(b"", asked=asked)
    assert reply.startswith(b"HTTP/1.1 200"), reply
    head, *tunnel = await proxied.connect(at)
    assert head.startswith(b"HTTP/1.1 200"), head
    request = get(b"/gw/api/v1/x", at.encode(), bearer)
    reply = await proxied.ask(request, asked=(tunnel[0], tunnel[1]))
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert len(proxied.secure.received) == 2
    asked = await proxied.send(
        get(b"http://" + at.encode() + b"/gw/api/x", at.encode())
    )
    assert (await proxied.ask(b"", asked=asked)).startswith(b"HTTP/1.1 407")


# Who asks


@pytest.mark.parametrize("absolute", [False, True])
async def test_a_request_to_the_broker_by_its_proxy_has_its_clients_address(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    """The broker does not connect to itself: rules read where a request is from."""
    listener, peers = proxied.stand.listener, list[Any]()
    app = listener.app

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        peers.append(scope["client"][0])
        await app(scope, receive, send)

    monkeypatch.setattr(listener, "app", noting)
    at = f"127.0.0.1:{listener.port}".encode()
    bearer = f"Authorization: Bearer {proxied.token}\r\n".encode()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxied.port, local_addr=("127.0.0.2", 0)
    )
    path = b"/gw/api/v1/x"
    if absolute:
        path, bearer = b"http://" + at + path, bearer + basic(proxied.token)
    else:
        line = b"CONNECT " + at + b" HTTP/1.1\r\n"
        writer.write(line + basic(proxied.token) + b"\r\n")
        async with asyncio.timeout(PATIENT):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    reply = await proxied.ask(get(path, at, bearer), asked=(reader, writer))
    assert reply.startswith(b"HTTP/1.1 200"), reply
    assert peers == ["127.0.0.2"]


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize("status", [b"307", b"303", b"201"])
async def test_no_service_redirects_a_request_to_another_service(
    proxied: Proxied, method: bytes, status: bytes
) -> None:
    """The proxy's password goes along, so AgentVault would attach that credential.

    A read may be redirected to another port of its host. A relative URL, of which some
    programs read another host, reaches the client as an absolute one of the service.
    """
    same = proxied.at.partition(":")[0]
    await proxied.stand.service(name="other", origin=f"http://{same}:8080")
    to = [b""]

    async def redirect(_: Received, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 %s X\r\nContent-Length: 0\r\nLocation: " % status
        writer.write(head + to[0] + b"\r\n\r\n")

    proxied.secure.answer = redirect
    ports = proxied.stand.upstream.port, proxied.stand.listener.port
    away = [b"http://127.0.0.1:%d/pay/mallory" % one for one in ports]
    own, pay = f"https://{proxied.at}".encode(), away[0].removeprefix(b"http://")
    for to[0], read, stays in (
        *((one, one, False) for one in away),
        (away[0].removeprefix(b"http:"), b"https://" + pay, False),
        (one := f"http://{same}:8080/pay/mallory".encode(), one, method == b"GET"),
        (b"https://elsewhere.test/x", b"https://elsewhere.test/x", True),
        (own + b"/other", own + b"/other", True),
        (b"/other", own + b"/other", True),
        (b"///" + pay, own + b"/" + pay, True),
        (b"/\\" + pay, own + b"/%5C" + pay, True),
        (b"/\t/" + pay, own + b"/%09/" + pay, True),
    ):
        length = b"Content-Length: 0\r\n" if method == b"POST" else b""
        reply = await proxied.ask(get(more=length).replace(b"GET", method, 1))
        passes = stays or status == b"201"
        assert reply.startswith(b"HTTP/1.1 " + (status if passes else b"502")), reply
        assert (b"location: %s\r\n" % read in reply) is passes, (to, reply)


async def test_without_a_live_token_of_the_user_agent_nothing_opens(
    proxied: Proxied,
) -> None:
    """Each is 407 with the challenge of Basic, for tunnels and for plain requests."""
    plain = f"127.0.0.1:{proxied.stand.upstream.port}"
    bearer = b"Bearer " + proxied.token.encode()
    for said in (
        b"",
        b"Proxy-Authorization: " + bearer + b"\r\n",
        b"Proxy-Authorization: Basic !!\r\n",
        b"Authorization: " + bearer + b"\r\n",
        basic("av_t_" + "x" * 43),
        basic("av_r_" + "x" * 43),
        basic(proxied.token, user="root"),
        basic(proxied.token, user=""),
        basic(""),
    ):
        for line in (f"CONNECT {proxied.at}", f"GET http://{plain}/x"):
            head = f"{line} HTTP/1.1\r\nConnection: close\r\n".encode()
            asked = await proxied.send(head + said + b"\r\n")
            reply = await proxied.ask(b"", asked=asked)
            assert reply.startswith(b"HTTP/1.1 407"), (line, said, reply)
            assert b'proxy-authenticate: Basic realm="agentvault"' in reply
            assert b"agentvault-error: invalid_token" in reply
    assert proxied.secure.connections == proxied.stand.upstream.connections == 0


async def test_a_revocation_closes_tunnels_and_opens_no_other(proxied: Proxied) -> None:
    """The open tunnel breaks off at once; the next CONNECT is 407 and says why."""
    idle = await proxied.secured(proxied.at)
    await revoke_agent(proxied.stand.bench.broker, proxied.agent.id, "test", OPERATOR)
    assert await proxied.ask(get(), asked=idle) == b""
    head, _, writer = await proxied.connect(proxied.at)
    writer.close()
    assert head.startswith(b"HTTP/1.1 407"), head
    assert proxied.secure.received == []
    (refused,) = await proxied.stand.bench.events("gateway.refused")
    assert refused.reason == "agent_revoked"


# Where to


async def test_target_sni_and_host_agree_or_nothing_is_sent(proxied: Proxied) -> None:
    """Whichever of them names another server, it is 421 and reaches nobody."""
    for host, name, first in (
        (b"other.test", "localhost", b"/x"),
        (b"127.0.0.1", "localhost", b"/x"),
        (b"localhost", "localhost", b"/x"),
        (b"localhost.:443", "localhost", b"/x"),
        (b"@", "other.test", b"/x"),
        (b"@", "127.0.0.1", b"/x"),
        (b"@", "localhost", b"https://other.test/x"),
        (b"other.test", "localhost", b"https://@/x"),
    ):
        reply = await proxied.ask(get(first, host), name=name)
        assert reply.startswith(b"HTTP/1.1 421"), (host, name, first, reply)
    assert proxied.secure.received == []


async def test_a_tunnel_to_an_address_takes_no_name_in_its_handshake(
    proxied: Proxied, short: Path
) -> None:
    """A name of a server is none of the target's; a client of an address sends none."""
    at = f"127.0.0.1:{proxied.secure.port}"
    ca = CaFiles.of(Home.locate(short / "tls")).ca
    head = f'origin = "https://{at}"\nallow_private = true\nca_file = "{ca}"\n'
    await proxied.stand.service(SERVICE, head=head)
    for name, misdirected in (("other.test", True), ("127.0.0.1", False)):
        asked = await proxied.secured(at, name=name)
        reply = await proxied.ask(get(host=at.encode()), asked=asked)
        status = b"HTTP/1.1 421" if misdirected else b"HTTP/1.1 200"
        assert reply.startswith(status), (name, reply)


async def test_plain_http_in_a_tunnel_to_a_service_of_https_is_misdirected(
    proxied: Proxied,
) -> None:
    """A token is no reason to speak to a service of HTTPS in the clear."""
    _, reader, writer = await proxied.connect(proxied.at)
    reply = await proxied.ask(get(), asked=(reader, writer))
    assert reply.startswith(b"HTTP/1.1 421"), reply
    assert proxied.secure.connections == 0


async def test_a_host_that_is_no_service_is_refused(proxied: Proxied) -> None:
    """Also addresses, and names spelt so that only some programs read one of ours."""
    for target in (
        "example.com:443",
        "127.0.0.1:443",
        "169.254.169.254:80",
        "[::1]:443",
        "[::ffff:127.0.0.1]:443",
        "[::ffff:7f00:1]:443",
        "[fe80::1%lo]:443",
        "localhost:1",
        "localhost.:PORT",
        "2130706433:PORT",
        "0x7f.1:PORT",
        "127.1:PORT",
        "LOCALHOST.EXAMPLE:PORT",
        "loc%61lhost:PORT",
        "agent@localhost:PORT",
        "localhost:0PORT0",
        "localhost:99999",
        "localhost",
        ":PORT",
        "xn--:PORT",
    ):
        where = target.replace("PORT", str(proxied.secure.port))
        head, reader, writer = await proxied.connect(where)
        assert head.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), (where, head)
        assert await read_all(reader)
        writer.close()
        if head.startswith(b"HTTP/1.1 403"):
            refused = (await proxied.stand.bench.events("gateway.refused"))[-1]
            assert refused.reason in {"no_service", "bad_host"}
            assert refused.detail["path"] == where
    assert proxied.secure.connections == 0


async def test_a_name_in_capitals_is_the_same_name(proxied: Proxied) -> None:
    """Host names have no case (RFC 9110 section 4.2.3)."""
    asked = await proxied.secured(f"LOCALHOST:{proxied.secure.port}")
    host = f"Localhost:{proxied.secure.port}".encode()
    reply = await proxied.ask(get(host=host), asked=asked)
    assert reply.startswith(b"HTTP/1.1 200"), reply


async def test_of_two_services_at_one_place_the_proxy_takes_neither(
    proxied: Proxied,
) -> None:
    """It cannot know whose credential is meant."""
    await proxied.stand.service(SERVICE, name="again")
    head, _, writer = await proxied.connect(f"127.0.0.1:{proxied.stand.upstream.port}")
    writer.close()
    assert head.startswith(b"HTTP/1.1 403"), head
    (refused,) = await proxied.stand.bench.events("gateway.refused")
    assert refused.reason == "ambiguous_service"


async def test_a_service_that_moved_is_not_reached_through_an_older_tunnel(
    proxied: Proxied,
) -> None:
    """A tunnel is to one place; the service's file says another one now."""
    asked = await proxied.secured(proxied.at)
    await proxied.stand.service(SERVICE, head='origin = "https://other.test"\n')
    reply = await proxied.ask(get(), asked=asked)
    assert reply.startswith(b"HTTP/1.1 421"), reply


# Framing


async def test_a_connect_that_two_readers_could_read_differently_is_refused(
    proxied: Proxied,
) -> None:
    """Its head says one thing, and nothing of it is a body."""
    for more in (
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: other.test:443\r\n",
        b"Proxy-Authorization: Basic AAAA\r\n",
        b"Bad Header: x\r\n",
        b"X-Fold: a\r\n b\r\n",
        b"X-Bare: a\nY: b\r\n",
    ):
        head, _, writer = await proxied.connect(proxied.at, more=more)
        writer.close()
        assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 407", b"HTTP/1.1 421")), (
            more,
            head,
        )


async def test_a_connect_inside_a_tunnel_is_refused(proxied: Proxied) -> None:
    """A tunnel to a service leads nowhere else."""
    reply = await proxied.ask(
        b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n"
    )
    assert reply.startswith(b"HTTP/1.1 400"), reply


async def test_what_smuggles_in_a_tunnel_reaches_no_service(proxied: Proxied) -> None:
    """The rules of ``/gw/`` hold here too."""
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    for first, headers, body in (
        (b"POST /x", both, b"0\r\n\r\nGET /y HTTP/1.1\r\nHost: @\r\n\r\n"),
        (b"GET /x", b"Host: other.test\r\n", b""),
        (b"POST /x", b"Content-Length: 1\r\nContent-Length: 2\r\n", b"ab"),
        (b"GET /a/../b", b"Connection: close\r\n", b""),
        (b"OPTIONS *", b"Connection: close\r\n", b""),
    ):
        request = first + b" HTTP/1.1\r\nHost: @\r\n" + headers + b"\r\n" + body
        reply = await proxied.ask(request)
        assert reply.startswith(b"HTTP/1.1 400"), (request, reply)
    assert proxied.secure.received == []


async def test_a_head_that_comes_byte_by_byte_is_a_head(proxied: Proxied) -> None:
    """How a head is cut over packets changes nothing; none of the tunnel is eaten."""
    whole = f"CONNECT {proxied.at} HTTP/1.1\r\n".encode() + basic(proxied.token)
    reader, writer = await proxied.send()
    for at in range(0, len(whole), 7):
        writer.write(whole[at : at + 7])
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"\r\n")
    async with asyncio.timeout(PATIENT):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    context = ssl.create_default_context(cafile=proxied.ca)
    await writer.start_tls(context, server_hostname="localhost")
    reply = await proxied.ask(get(), asked=(reader, writer))
    assert reply.startswith(b"HTTP/1.1 200"), reply


async def test_a_plain_request_that_is_no_whole_url_of_http_is_refused(
    proxied: Proxied,
) -> None:
    """This listener is a proxy, and no second door to the broker."""
    plain = f"127.0.0.1:{proxied.stand.upstream.port}".encode()
    for url in (b"/x", b"https://@/x", b"ftp://@/x", b"http://agent@%/x", b"*"):
        sent = get(url, more=basic(proxied.token)).replace(b"%", plain)
        asked = await proxied.send(sent.replace(b"@", proxied.at.encode()))
        reply = await proxied.ask(b"", asked=asked)
        assert reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 421")), (url, reply)
    assert proxied.stand.upstream.received == []


# Hosts that are passed to


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets, and says how it began."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        while piece := await reader.read(65_536):
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def passing(proxied: Proxied) -> Callable[..., None]:
    """Changes which hosts may be passed to."""

    def change(*rules: PassThrough) -> None:
        proxy = proxied.stand.gateway.proxy.proxy
        assert proxy is not None
        proxy._passed = rules

    return change


@pytest.fixture
def passed(passing: Callable[..., None], echo: int) -> str:
    """Where the server is that may be passed to."""
    passing(PassThrough("localhost", allow_private=True))
    return f"localhost:{echo}"


async def test_a_host_that_may_be_passed_to_gets_an_opaque_tunnel(
    proxied: Proxied, passed: str
) -> None:
    """Bytes go both ways unread; attempt and end are recorded with host and bytes."""
    head, reader, writer = await proxied.connect(passed)
    assert head.startswith(b"HTTP/1.1 200"), head
    writer.write(b"x" * 300_000)
    writer.write_eof()
    async with asyncio.timeout(PATIENT):
        assert await reader.read() == b"hello " + b"x" * 300_000
    writer.close()
    events = [e for e in await proxied.stand.settled() if e.type.startswith("gateway")]
    attempt, tunnel = events
    assert (attempt.type, attempt.reason) == ("gateway.attempt", "pass_through")
    assert tunnel.type == "gateway.tunnel"
    assert tunnel.agent_id == attempt.agent_id == proxied.agent.id
    said = {name: tunnel.detail[name] for name in ("host", "bytes_in", "bytes_out")}
    assert said == {"host": "localhost", "bytes_in": 300_006, "bytes_out": 300_000}
    assert (tunnel.detail["bytes"], tunnel.detail["ended"]) == (600_006, "done")
    assert tunnel.detail["ms"] is not None


async def test_tunnels_that_ended_make_no_room_for_calls(
    proxied: Proxied, passed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not count among the calls that an agent may have open."""
    _, _, writer = await proxied.connect(passed)
    writer.close()
    await proxied.stand.settled()
    monkeypatch.setattr(calls_module, "MOST_OPEN", 0)
    assert (await proxied.ask(get())).startswith(b"HTTP/1.1 503")


async def test_a_passed_host_that_resolves_to_this_machine_is_not_reached(
    proxied: Proxied, passing: Callable[..., None], echo: int
) -> None:
    """The rules for addresses hold for it, unless an operator says private ones."""
    for host in ("localhost", "127.0.0.1", "[::1]"):
        passing(PassThrough(host))
        head, _, writer = await proxied.connect(f"{host}:{echo}")
        writer.close()
        assert head.startswith(b"HTTP/1.1 502"), (host, head)
        assert b"agentvault-error: upstream_refused" in head
        tunnel = (await proxied.stand.settled())[-1]
        assert (tunnel.type, tunnel.detail["ended"]) == ("gateway.tunnel", "failed")


@pytest.mark.parametrize("everyone", [False, True])
async def test_a_cut_ends_an_opaque_tunnel_and_counts_it(
    proxied: Proxied, passed: str, everyone: bool
) -> None:
    """From the reply on no byte passes; the tunnel is one of the calls cut."""
    _, reader, writer = await proxied.connect(passed)
    async with asyncio.timeout(PATIENT):
        assert await reader.readexactly(6) == b"hello "
    broker = proxied.stand.bench.broker
    if everyone:
        cut = await panic(broker, "test", OPERATOR)
    else:
        cut = await revoke_agent(broker, proxied.agent.id, "test", OPERATOR)
    assert cut.calls.cut == 1
    assert await read_all(reader) == b""
    writer.close()
    tunnel = next(
        e for e in await proxied.stand.settled() if e.type == "gateway.tunnel"
    )
    assert tunnel.detail["ended"] == "cut"


async def test_a_token_that_states_an_action_opens_no_tunnel(
    proxied: Proxied, passed: str
) -> None:
    """Bytes that nobody reads are of no action, so that they would be wider."""
    action = Action(("write:calendar",), "write:calendar", "calendar:primary")
    given = await request_token(
        proxied.stand.bench.broker,
        proxied.agent,
        action,
        resource=None,
        details=details_of(action),
    )
    assert isinstance(given, Granted)
    head, reader, writer = await proxied.connect(passed, password=given.access_token)
    assert head.startswith(b"HTTP/1.1 401"), head
    assert b"wider_than_token" in await read_all(reader)
    writer.close()


async def test_a_token_that_was_passed_on_opens_no_tunnel(
    proxied: Proxied, passed: str
) -> None:
    """No scope stands for bytes that nobody reads, so that it would be wider."""
    broker = proxied.stand.bench.broker
    first = await proxied.stand.agent("write:calendar", name="first")
    scopes = frozenset({"write:calendar"})
    await change_delegates(broker, first.id, proxied.agent.id, scopes, OPERATOR)
    mine = await issue_for(broker, first, tuple(scopes), None, OPERATOR)
    action = Action(tuple(scopes), "write:calendar")
    given = await pass_on(
        broker, first, mine.token, proxied.agent, action, resource=None, details=None
    )
    assert isinstance(given, Granted)
    head, reader, writer = await proxied.connect(passed, password=given.access_token)
    assert head.startswith(b"HTTP/1.1 401"), head
    assert b"passed_on" in await read_all(reader)
    writer.close()
    assert await proxied.stand.bench.events("gateway.attempt") == []


async def test_an_agent_revoked_while_its_tunnel_is_opened_has_none(
    proxied: Proxied, passed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again in the turn in which the attempt is recorded."""
    calls, broker = proxied.stand.gateway.calls, proxied.stand.bench.broker
    begin = calls.begin_apart

    async def late(call: Call, reason: str) -> None:
        await revoke_agent(broker, proxied.agent.id, "", OPERATOR)
        await begin(call, reason)

    monkeypatch.setattr(calls, "begin_apart", late)
    head, _, writer = await proxied.connect(passed)
    writer.close()
    assert head.startswith(b"HTTP/1.1 401"), head
    assert await proxied.stand.bench.events("gateway.attempt") == []


async def test_a_tunnel_that_cannot_be_recorded_does_not_open(
    proxied: Proxied, passed: str, monkeypatch: Any
) -> None:
    """No record, no byte."""

    async def fail(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("full")

    monkeypatch.setattr(proxied.stand.bench.broker, "record", fail)
    head, _, writer = await proxied.connect(passed)
    writer.close()
    assert head.startswith(b"HTTP/1.1 503"), head


async def test_a_tunnel_that_carries_nothing_ends(
    proxied: Proxied, passed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle tunnel has a deadline."""
    monkeypatch.setattr(tunnel_module, "IDLE_SECONDS", 0.05)
    _, reader, writer = await proxied.connect(passed)
    async with asyncio.timeout(PATIENT):
        assert await read_all(reader) in {b"", b"hello "}
    writer.close()
    tunnel = (await proxied.stand.settled())[-1]
    assert (tunnel.reason, tunnel.detail["ended"]) == ("upstream_timeout", "failed")


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "notexample.com", False),
        ("example.com:8443", "example.com", False),
        ("example.com:443", "example.com", True),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, host: str, covered: bool) -> None:
    """A star stands for names below one, and not for the name itself."""
    assert PassThrough(pattern).covers(host, 443) is covered


# Many


async def test_an_agent_has_so_many_tunnels_and_no_more(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its number it is 429, for it alone; one that closes makes room."""
    monkeypatch.setattr(proxy_module, "TUNNELS_EACH", 3)
    kept = [await proxied.secured(proxied.at) for _ in range(3)]
    head, _, writer = await proxied.connect(proxied.at)
    writer.close()
    assert head.startswith(b"HTTP/1.1 429"), head
    other = await proxied.stand.agent("write:calendar", name="other")
    token = await proxied.stand.token(other, "write:calendar")
    assert (await proxied.ask(get(), password=token)).startswith(b"HTTP/1.1 200")
    kept[0][1].close()
    proxy = proxied.stand.gateway.proxy.proxy
    assert proxy is not None
    await proxied.stand.bench.until(lambda: len(proxy._tunnels) == 2)
    assert (await proxied.ask(get())).startswith(b"HTTP/1.1 200")
    for _, writer in kept:
        writer.close()


@pytest.mark.slow
async def test_a_thousand_idle_connections_keep_nobody_out(proxied: Proxied) -> None:
    """Peers that open and say nothing, or half a head, give way to one that asks."""
    idle = [await proxied.send(b"CONN" if n % 2 else b"") for n in range(1100)]
    assert (await proxied.ask(get())).startswith(b"HTTP/1.1 200")
    for _, writer in idle:
        writer.transport.abort()


# The authority


async def test_the_authoritys_key_is_private_and_its_certificate_is_published(
    proxied: Proxied,
) -> None:
    """Keys are 0600 in the folder of keys; no certificate's key stays on disk."""
    await proxied.ask(get())
    home = proxied.stand.bench.home
    key, public = home.keys / "gateway-ca-key.pem", home.run / "gateway-ca.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert proxied.ca == str(public)
    published = public.read_bytes()
    assert published == (home.keys / "gateway-ca.pem").read_bytes()
    assert not list(home.keys.glob("gateway-leaf*")), "a leaf's key was left"
    assert b"PRIVATE" not in published


async def test_a_held_call_in_a_tunnel_waits_for_a_person(proxied: Proxied) -> None:
    """What policy escalates is held here as at ``/gw/``."""
    stand = proxied.stand
    payer = await stand.agent("send:payment", "read:calendar", name="payer")
    token = await stand.token(payer, "read:calendar")
    text = SERVICE.replace("write:calendar", "send:payment")
    await stand.service(text, name="plain")
    at = f"127.0.0.1:{stand.upstream.port}"
    head, reader, writer = await proxied.connect(at, password=token)
    assert head.startswith(b"HTTP/1.1 200"), head
    waiting = asyncio.create_task(
        proxied.ask(
            get(host=at.encode(), more=b"Prefer: wait=60\r\n"), asked=(reader, writer)
        )
    )
    broker = stand.bench.broker
    await stand.bench.until(lambda: bool(broker.stepups.open()))
    (stepup,) = broker.stepups.open()
    assert stepup.request is not None
    assert stepup.request["url"] == f"http://{at}/v1/x"
    await stand.approve(stepup.id)
    assert (await waiting).startswith(b"HTTP/1.1 200")


async def test_a_download_in_a_tunnel_is_cut_by_a_revocation(proxied: Proxied) -> None:
    """No byte of the answer comes after the revocation's reply."""

    async def stream(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
        )
        await writer.drain()
        await asyncio.sleep(PATIENT)

    proxied.secure.answer = stream
    reader, writer = await proxied.secured(proxied.at)
    writer.write(get().replace(b"@", proxied.at.encode()))
    async with asyncio.timeout(PATIENT):
        await reader.readuntil(b"x" * 100)
    broker = proxied.stand.bench.broker
    cut = await revoke_agent(broker, proxied.agent.id, "test", OPERATOR)
    assert (cut.calls.cut, cut.calls.sent) == (1, 1)
    writer.transport.abort()


def test_the_settings_of_the_proxy_are_checked() -> None:
    """A place that is not this machine, or a pattern that names no host, is refused."""
    for wrong in ("0.0.0.0:1", "example.com:1", "7718"):
        with pytest.raises(SettingsError):
            GatewaySettings(proxy=wrong)
    for pattern in ("*", "*.", "https://example.com", "EXAMPLE.com", "a b", ""):
        with pytest.raises(SettingsError):
            GatewaySettings(pass_through=(pattern,))


async def test_a_taken_port_is_told_with_the_process_that_has_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` listens elsewhere, and status and log say so; a fixed port is refused."""
    bound, held = loopback_pair("127.0.0.1", 0)
    port = int(bound.getsockname()[1])
    monkeypatch.setattr(proxy_listener, "USUAL", ("127.0.0.1", port))
    broker = stand.bench.broker
    settings = replace(
        broker.settings,
        broker=replace(broker.settings.broker, listen="127.0.0.1:7717"),
        gateway=replace(broker.settings.gateway, proxy="auto"),
    )
    broker.settings = settings
    try:
        line = await stand.gateway.listen(stand.server, stand.listener)
        assert str(port) not in str(line["proxy_url"])
        (notice,) = stand.gateway.notices
        assert f"port {port} is taken by" in notice
        assert f"(pid {os.getpid()})" in notice
        assert notice in caplog.text
        broker.extensions.gateway = stand.gateway
        assert notice in warnings(broker)
        fixed = replace(settings.gateway, proxy=f"127.0.0.1:{port}")
        broker.settings = replace(settings, gateway=fixed)
        other = Gateway(broker)
        with pytest.raises(ConflictError, match=rf"in use, by .*pid {os.getpid()}"):
            await other.listen(stand.server, stand.listener)
    finally:
        for one in (bound, held):
            if one is not None:
                one.close()
