"""The forward proxy: unmodified tools reach services by the services' own names.

A request for a service goes the way of ``/gw/``: TLS ends here, with a certificate of
the home's own authority. Any other host is refused, or is one that an operator lets
pass: then a tunnel that is not read, under the same rules for addresses.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NoReturn

from agentvault_tui.broker.surroundings import peer_of
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.app import answer
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.connect import (
    asked_detail,
    malformed,
    misdirected_request,
    no_way,
    parse_authority,
    parse_connect,
    proxy_password,
    unauthenticated,
)
from agentvault_tui.gateway.forward import Forwarder
from agentvault_tui.gateway.refusals import CallRefusedError, too_many_connections
from agentvault_tui.gateway.runs import RUN_KEY, CommandRun, Runs
from agentvault_tui.gateway.services import Service, is_host
from agentvault_tui.gateway.tunnel import carry, tunnel_call
from agentvault_tui.model import Action, AgentId, sha256_hex
from agentvault_tui.settings import PassThrough
from agentvault_tui.text import visible
from agentvault_tui.web.local_ca import ProxyAuthority, asked_name
from agentvault_tui.web.places import ConnectionSlot, Limits
from agentvault_tui.web.protocol import BoundedProtocol, written
from agentvault_tui.web.reach import connected_to
from agentvault_tui.web.reply import Header, Receive, Scope, Send
from agentvault_tui.web.server import HANDSHAKE, Acceptor, Listener
from agentvault_tui.web.service_connection import UpstreamError
from agentvault_tui.web.sockets import abort

LIMITS: Final = Limits(streamed=(b"/",))
TUNNELS_EACH: Final = 256
"""Tunnels that one agent may have open."""
_CONNECT: Final = b"CONNECT "
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_NOTHING: Final = Action((), "")


@dataclass(frozen=True, slots=True)
class ProxyClient:
    """Who uses the proxy: an agent, by a token or by the key of a run."""

    agent_id: AgentId
    token: str
    """The SHA-256 of the token that was shown."""
    run: CommandRun | None

    @property
    def token_sha256(self) -> str:
        """Return the SHA-256 of the token that counts now; a run renews its own."""
        return self.run.token_sha256 if self.run else self.token


@dataclass(eq=False, slots=True)
class Tunnel:
    """One ``CONNECT`` of an agent."""

    client: ProxyClient
    host: str
    port: int
    service: str = ""
    """The service of its requests; empty for an opaque one."""
    own: bool = False
    """Whether its requests are for the broker's own listener."""
    close: Callable[[], object] = field(default=lambda: None)
    """Ends it at once."""
    problem: CallRefusedError | None = None
    """Why every request in it is refused."""


class Proxy:
    """Lets agents' tools through to services, and to hosts that may be passed to."""

    def __init__(
        self,
        forwarder: Forwarder,
        admission: Admission,
        calls: Calls,
        services: Iterable[Service],
        runs: Runs,
        *,
        agents: Listener,
        authority: ProxyAuthority,
        pass_through: Iterable[PassThrough],
    ) -> None:
        """Use these.

        Args:
            forwarder: performs requests for services.
            admission: tells who asks.
            calls: records tunnels, and cuts them.
            services: the services of agents.
            runs: commands that an operator runs as agents.
            agents: the broker's own listener, which some tools also ask by a proxy.
            authority: vouches for services' hosts.
            pass_through: hosts that are no service and may be reached.
        """
        self._forwarder = forwarder
        self._admission = admission
        self._calls = calls
        self._services = services
        self._runs = runs
        self._agents = agents
        self.authority = authority
        self._passed = tuple(pass_through)
        self._tunnels: set[Tunnel] = set()

    def cut(self, agent_id: AgentId | None) -> None:
        """Close the tunnels of an agent, or of all, before this returns."""
        for tunnel in list(self._tunnels):
            if agent_id in {None, tunnel.client.agent_id}:
                tunnel.close()

    def cut_run(self, run: CommandRun) -> None:
        """Close the tunnels of a run that has ended."""
        for tunnel in list(self._tunnels):
            if tunnel.client.run is run:
                tunnel.close()

    @property
    def _own(self) -> tuple[str, int]:
        """Return host and port of the broker itself."""
        return parse_authority(self._agents.url.partition("://")[2])

    def _service(self, name: str) -> Service | None:
        return next((one for one in self._services if one.name == name), None)

    # Who asks, and for what

    async def client(
        self, headers: list[Header], detail: dict[str, Any]
    ) -> tuple[ProxyClient, Caller]:
        """Return who asks (RFC 9110 section 11.7.2).

        Raises:
            CallRefusedError: 407; 429 for an agent that floods.
        """
        password = proxy_password(headers)
        run, hashed = None, sha256_hex(password or "")
        if password is None:
            text = "show a live token: Proxy-Authorization: Basic agent:av_t_…"
            raise unauthenticated("no_token", text)
        if password.startswith(RUN_KEY):
            run = self._runs.by_key(hashed)
            if run is None:
                raise unauthenticated("invalid_token", "this run has ended")
            hashed = run.token_sha256
        try:
            caller = await self._admission.authenticate(None, detail, hashed)
        except CallRefusedError as refusal:
            if refusal.status == 401:
                raise unauthenticated(
                    refusal.reason, refusal.text, refusal.decision_id
                ) from None
            raise
        return ProxyClient(caller.agent.id, hashed, run), caller

    def service_at(self, client: ProxyClient, host: str, port: int) -> Service | None:
        """Return the service at that host and port, if there is one.

        Raises:
            CallRefusedError: there are several, or the run is not for it.
        """
        at = [
            o for o in self._services if (o.origin.host, o.origin.port) == (host, port)
        ]
        if client.run is not None and client.run.services and at:
            at = [one for one in at if one.name in client.run.services]
            if not at:
                raise no_way("service_not_in_run", "this run is for other services")
        if len(at) > 1:
            names = ", ".join(sorted(one.name for one in at))
            text = f"several services are there ({names}): use /gw/, or run --service"
            raise no_way("ambiguous_service", text)
        return at[0] if at else None

    def rule_for(self, client: ProxyClient, host: str, port: int) -> PassThrough | None:
        """Return the rule by which *client* may reach a foreign host, if any."""
        own = client.run.pass_through if client.run else ()
        covering = [one for one in (*self._passed, *own) if one.covers(host, port)]
        # Of several the one that allows more: an operator wrote each of them.
        return max(covering, key=lambda one: one.allow_private, default=None)

    async def open(self, head: bytes) -> tuple[Tunnel, Caller, PassThrough | None]:
        """Return the tunnel of a ``CONNECT``.

        Returns:
            the tunnel, its agent, and the rule if it is to no service.

        Raises:
            CallRefusedError: nothing.
        """
        target, headers = parse_connect(head)
        detail = asked_detail(target)
        client, caller = await self.client(headers, detail)
        try:
            tunnel, rule = self._target(client, target, headers)
        except CallRefusedError as refusal:
            await self._refuse(caller, refusal, detail)
        return tunnel, caller, rule

    def _target(
        self, client: ProxyClient, target: str, headers: list[Header]
    ) -> tuple[Tunnel, PassThrough | None]:
        """Find the target of a ``CONNECT``.

        Raises:
            CallRefusedError: nothing that *client* may reach.
        """
        host, port = parse_authority(target)
        host_header = (
            dict(headers).get(b"host", target.encode()).decode("latin-1").lower()
        )
        if host_header not in {target.lower(), target.lower().rpartition(":")[0]}:
            raise misdirected_request("Host names another than the target")
        if not is_host(host):
            raise no_way("bad_host", "this is no host as programs print it")
        mine = [t for t in self._tunnels if t.client.agent_id == client.agent_id]
        if len(mine) >= TUNNELS_EACH:
            text = f"an agent may have {TUNNELS_EACH} tunnels"
            raise CallRefusedError(429, "slow_down", "too_many_tunnels", text)
        if (host, port) == self._own:
            # Not connected to: its requests would come from the broker's own address.
            return Tunnel(client, host, port, own=True), None
        service = self.service_at(client, host, port)
        if service is not None:
            return Tunnel(client, host, port, service.name), None
        rule = self.rule_for(client, host, port)
        if rule is None:
            text = f"no service is at {visible(target, 120)}, nor may it pass"
            raise no_way("no_service", text)
        return Tunnel(client, host, port), rule

    async def _refuse(
        self,
        caller: Caller,
        refusal: CallRefusedError,
        detail: dict[str, Any],
    ) -> NoReturn:
        self._calls.observe(caller, "refused")
        await self._admission.refuse(caller, refusal, _NOTHING, detail)

    def opened(self, tunnel: Tunnel, close: Callable[[], object]) -> None:
        """Note that *tunnel* is open; *close* ends it at once."""
        tunnel.close = close
        self._tunnels.add(tunnel)

    def closed(self, tunnel: Tunnel) -> None:
        """Note that *tunnel* is closed."""
        self._tunnels.discard(tunnel)

    # Requests for services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, out of a tunnel or in absolute form (RFC 9112 3.2.2)."""
        tunnel: Tunnel | None = scope["state"].get("tunnel")
        try:
            if tunnel is None:
                tunnel = await self._plain(scope)
            if tunnel.problem is not None:
                raise tunnel.problem
            if tunnel.own:
                await self._agents.app(scope, receive, send)
                return
            self._check(tunnel, scope)
        except CallRefusedError as refusal:
            await refusal.reply().send(send)
            return
        await answer(
            self._forwarder,
            scope,
            receive,
            send,
            service=tunnel.service,
            raw_target=scope["raw_target"],
            # The connection is the agent's own: what it says of proxies counts nothing.
            source=peer_of(scope),
            token_sha256=tunnel.client.token_sha256,
            leads_away=partial(self._leads_away, tunnel.service),
        )

    def _leads_away(self, name: str, host: str, port: int) -> bool:
        """Check whether another service than *name*, or the broker, is at a place."""
        there = {
            one.name
            for one in self._services
            if (one.origin.host, one.origin.port) == (host, port)
        }
        return (host, port) == self._own or (bool(there) and name not in there)

    async def _plain(self, scope: Scope) -> Tunnel:
        """Take a request in absolute form for a service of plain HTTP."""
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        detail = asked_detail(f"http://{host}", scope["method"])
        client, caller = await self.client(scope["headers"], detail)
        try:
            return self._plain_target(client, host)
        except CallRefusedError as refusal:
            await self._refuse(caller, refusal, detail)

    def _plain_target(self, client: ProxyClient, host_header: str) -> Tunnel:
        host, port = parse_authority(host_header, 80)
        if (host, port) == self._own:
            return Tunnel(client, host, port, own=True)
        service = self.service_at(client, host, port)
        if service is None or service.origin.scheme != "http":
            text = "no service of plain HTTP is there; other hosts take CONNECT"
            raise no_way("no_service", text)
        return Tunnel(client, host, port, service.name)

    def _check(self, tunnel: Tunnel, scope: Scope) -> None:
        """Check that a request is for the service that its tunnel was opened to.

        Raises:
            CallRefusedError: 421 (RFC 9110 section 7.4); 400 for a request of no path.
        """
        if "exchange" not in scope:
            raise malformed("only the path / and those below it are asked for")
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        service = self._service(tunnel.service)
        at = (tunnel.host, tunnel.port)
        if service is None or (service.origin.host, service.origin.port) != at:
            raise misdirected_request("the service is elsewhere now: connect again")
        origin = service.origin
        if host not in {origin.authority, f"{origin.authority}:{origin.port}"}:
            raise misdirected_request("Host names another than the tunnel's target")

    def context_of(self, tunnel: Tunnel) -> ssl.SSLContext:
        """Return the certificate that a tunnel's client gets."""
        if tunnel.own and (context := self._agents.tls_context) is not None:
            return context
        return self.authority.context(tunnel.host)

    def greet_tunnel(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        """Note a mismatch between a tunnel's handshake and its target."""
        service = self._service(tunnel.service)
        secured = transport.get_extra_info("sslcontext") is not None
        scheme = service.origin.scheme if service is not None else ""
        if tunnel.own:
            scheme = self._agents.url.partition(":")[0]
        if scheme != ("https" if secured else "http"):
            tunnel.problem = misdirected_request("the service speaks another scheme")
        elif secured and not tunnel.own:
            name = asked_name(transport)
            # RFC 6066 section 3: an address is no name that a client asks for.
            allowed = {tunnel.host, *([None] if _is_address(tunnel.host) else [])}
            if (name and name.lower()) not in allowed:
                text = "the handshake asks for another name than the tunnel's target"
                tunnel.problem = misdirected_request(text)

    # Tunnels to other hosts

    async def pass_on(
        self,
        tunnel: Tunnel,
        caller: Caller,
        rule: PassThrough,
        connected: socket.socket,
    ) -> None:
        """Carry bytes between an agent and a host that is no service, to the end.

        Raises:
            CallRefusedError: before anything was carried.
        """
        call = tunnel_call(caller, tunnel.host, tunnel.port)
        await self._calls.begin_apart(call, "pass_through")

        def close() -> None:
            call.cut = call.cut or no_way("run_ended", "this run has ended")
            for act in call.on_cut:
                act()

        self.opened(tunnel, close)
        ended = "failed"
        try:
            far = await connected_to(
                tunnel.host, tunnel.port, private=rule.allow_private
            )
            with far:
                call.check()
                await asyncio.get_running_loop().sock_sendall(connected, _ESTABLISHED)
                await carry(call, connected, far)
            ended = "done"
        except UpstreamError as error:
            call.problem = error.code
            code, text = error.code, error.text
            raise CallRefusedError(
                error.status, code, code, text, decision_id=call.decision_id
            ) from None
        except TimeoutError:
            call.problem = "upstream_timeout"
        except OSError:
            call.problem = "upstream_reset"
        finally:
            self.closed(tunnel)
            call.detail["bytes"] = call.bytes_in + call.bytes_out
            self._calls.end(call, ended)


class ProxyAcceptor(Acceptor):
    """Takes each peer of the proxy to its target."""

    def __init__(self, proxy: Proxy, listener: Listener, bound: socket.socket) -> None:
        """Accept on *bound* for *listener*; its app is *proxy*."""
        super().__init__(bound, listener.limits.head_seconds, listener.places)
        self.proxy = proxy
        self.listener = listener

    async def greet(
        self, connected: socket.socket, since: float, place: ConnectionSlot
    ) -> bool:
        """Open the tunnel that a peer asks for, or have its plain requests answered."""
        try:
            async with asyncio.timeout_at(since + self.seconds):
                head = await self._head(connected)
            if head is None:
                return False
            if not head.startswith(_CONNECT):
                await self._hand_on(connected, since, place, head=head)
                return True
            tunnel, caller, rule = await self.proxy.open(head)
            if not place.count_for(caller.token.requester):
                raise too_many_connections()
            if rule is not None:
                self.places.works(place)
                await self.proxy.pass_on(tunnel, caller, rule, connected)
                return False
        except CallRefusedError as refusal:
            async with asyncio.timeout(self.seconds):
                await self.refuse(connected, written(refusal.reply()))
            return False
        return await self._terminate(connected, place, tunnel)

    async def _terminate(
        self, connected: socket.socket, place: ConnectionSlot, tunnel: Tunnel
    ) -> bool:
        """End a tunnel to a service here, with its TLS."""
        since = self.loop.time()
        self.proxy.opened(tunnel, place.drop)
        handed = False
        try:
            async with asyncio.timeout_at(since + self.seconds):
                await self.loop.sock_sendall(connected, _ESTABLISHED)
                first = await self.peek(connected)
                if first:
                    secured = first[0] == HANDSHAKE
                    tls = self.proxy.context_of(tunnel) if secured else None
                    await self._hand_on(connected, since, place, tunnel=tunnel, tls=tls)
                    handed = True
        finally:
            if not handed:
                self.proxy.closed(tunnel)
        return handed

    async def _hand_on(
        self,
        connected: socket.socket,
        since: float,
        place: ConnectionSlot,
        *,
        tunnel: Tunnel | None = None,
        head: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        def protocol() -> asyncio.Protocol:
            return _Proxied(self, since, place, tunnel=tunnel, head=head)

        await self.connect(connected, protocol, tls)

    async def _head(self, connected: socket.socket) -> bytes | None:
        """Read the head of a ``CONNECT``, and not a byte beyond it.

        Returns:
            the head; of any other request the read part; None if the peer left.
        """
        head = b""
        while True:
            piece = await self.peek(connected, 4096)
            if not piece:
                return None
            whole = head + piece
            if whole[: len(_CONNECT)] != _CONNECT[: len(whole)]:
                return head
            end = whole.find(b"\r\n\r\n")
            taken = len(piece) if end < 0 else end + 4 - len(head)
            connected.recv(taken)
            head = whole[: len(head) + taken]
            if end >= 0:
                return head
            if len(head) > self.listener.limits.head_bytes:
                code, text = "invalid_request", "the headers are too long"
                raise CallRefusedError(431, code, code, text)


class _Proxied(BoundedProtocol):
    """Requests for services: in a tunnel that ends here, or in absolute form."""

    def __init__(
        self,
        acceptor: ProxyAcceptor,
        since: float,
        place: ConnectionSlot,
        *,
        tunnel: Tunnel | None,
        head: bytes,
    ) -> None:
        super().__init__(acceptor.listener, acceptor.loop, since, place)
        self._proxy = acceptor.proxy
        self._tunnel = tunnel
        self._read = head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, with its read part."""
        super().connection_made(transport)
        if self._tunnel is not None:
            self._proxy.opened(self._tunnel, lambda: abort(transport))
            self._proxy.greet_tunnel(self._tunnel, transport)
            self._members = {**self._members, "tunnel": self._tunnel}
        if self._read:
            self.data_received(self._read)

    def connection_lost(self, error: Exception | None) -> None:
        """Give up the tunnel."""
        if self._tunnel is not None:
            self._proxy.closed(self._tunnel)
        super().connection_lost(error)

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Begin again with the whole URL, of which the path is left by now."""
        if self._tunnel is None and self._url.startswith(b"/"):
            self._url = b"http://" + dict(self._headers).get(b"host", b"") + self._url
        super()._pass_over_upgrade(rest)

    def _check_target(self) -> None:
        """Refuse an absolute target that ``Host`` does not agree with."""
        host = dict(self._headers).get(b"host")
        absolute = not self._url.startswith((b"/", b"*"))
        if self._tunnel is None and not absolute:
            self._fail(400, "this is a proxy: ask for a whole URL")
        super()._check_target()
        counts = dict(self._headers).get(b"host", b"")
        if host is not None and host.lower() != counts.lower():
            self._fail(421, "the request target and Host name different servers")


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
