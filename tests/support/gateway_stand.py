"""A broker with its gateway on a real socket, and a real upstream that counts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT, until
from support.postgres import Database

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.follow import join_team
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.usecases.mint import mint_elevated
from agentvault_tui.broker.usecases.redeem import poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import restore_agent
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.clock import SharedClock, SystemClock
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.model import Action, Agent, Event, Evidence, StepUp, StepUpStatus
from agentvault_tui.web import Listener, Server
from agentvault_tui.web.guard import RequestGuard, loopback_hosts
from agentvault_tui.web.places import Limits
from agentvault_tui.web.reply import Receive, Scope, Send, problem
from agentvault_tui.web.sockets import Peer, loopback_pair, unix_socket

SECRET = "sk_live_51HqLyjWDarjtT1zdp7dc"


@dataclass
class Received:
    """One request as it reached the upstream."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        return found[0] if found else None


Answer = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


async def ok(_: Received, writer: asyncio.StreamWriter) -> None:
    """Answer 200 with a short body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Kept: yes\r\n\r\nok")


def answers(head: bytes, body: bytes | None = None) -> Answer:
    """Answer each request with this status line and headers, and a *body* if any."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\n" + length + b"\r\n" + (body or b""))

    return answer


async def endless(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Write *piece* again and again; return once nobody is there."""
    # uvloop says RuntimeError of a connection that the peer has closed.
    with contextlib.suppress(OSError, RuntimeError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)


@dataclass
class Upstream:
    """A small HTTP/1.1 server: keeps what it received, answers as it is told."""

    answer: Answer = ok
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    bytes_read: int = 0
    keep: int = 2**24
    """Bytes of bodies that are kept."""
    reads: asyncio.Event | None = None
    """Set once bodies are to be read; without it they are at once."""
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines)
        ]
        request = Received(method, target, headers)
        self.received.append(request)
        said = dict(headers)
        if self.reads is not None:
            await self.reads.wait()
        if said.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                piece = await reader.readexactly(size)
                self.bytes_read += size
                request.body += piece if self.bytes_read <= self.keep else b""
                await reader.readexactly(2)
            await reader.readexactly(2)
        else:
            left = int(said.get("content-length", 0))
            while left:
                piece = await reader.read(min(left, 65_536))
                if not piece:
                    return False
                left -= len(piece)
                self.bytes_read += len(piece)
                request.body += piece if self.bytes_read <= self.keep else b""
        await self.answer(request, writer)
        await writer.drain()
        return not writer.is_closing()


class Stand:
    """Bench, gateway, listener, upstream, and one agent with a token."""

    def __init__(self, bench: Bench, gateway: Gateway, upstream: Upstream) -> None:
        self.bench, self.gateway, self.upstream = bench, gateway, upstream
        self._key, self._key_for = "", tuple[str, ...]()
        """The secret key, and where it may be sent: wherever a service of it is."""
        self.listener: Listener
        self.server: Server
        self.client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.listener.url

    async def service(self, text: str = "", name: str = "api", **more: str) -> None:
        """Put a service file in force; *text* follows its head."""
        origin = more.get("origin", f"http://127.0.0.1:{self.upstream.port}")
        head = f'origin = "{origin}"\nallow_http = true\nallow_private = true\n'
        head = more.get("head", head)
        (where,) = re.findall(r'^origin = "(.*)"', head, re.MULTILINE)[:1] or ("",)
        if self._key and where not in self._key_for:
            await self.secret("key", self._key, *self._key_for, where)
        folder = self.bench.home.config / "services"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(head + text)
        await self.gateway.look()
        assert not self.gateway.warnings, self.gateway.warnings

    async def secret(
        self, name: str = "key", value: str = SECRET, *origins: str
    ) -> None:
        """Set a secret, for the upstream unless other *origins* are given."""
        to = origins or (f"http://127.0.0.1:{self.upstream.port}",)
        if name == "key":
            self._key, self._key_for = value, to
        change = self.gateway.secrets.set(name, value, OPERATOR, to)
        await self.bench.broker.record(change.draft)
        change.write()

    async def agent(self, *scopes: str, name: str = "agent") -> Agent:
        return await self.bench.agent(name, *scopes)

    async def token(self, agent: Agent, scope: str, **more: Any) -> str:
        """Return a standard token of *agent*."""
        resource = more.get("resource")
        granted = await request_token(
            self.bench.broker,
            agent,
            Action(tuple(scope.split()), scope.split(maxsplit=1)[0], resource),
            resource=resource,
            details=None,
        )
        assert isinstance(granted, Granted), granted
        return granted.access_token

    async def approve(self, stepup_id: str) -> None:
        """Approve as the tenant's answer does, without its device flow."""
        broker = self.bench.broker
        stepup = broker.stepups.get(stepup_id)
        started = _authorizing(stepup)
        broker.stepups.put(started)
        who = Evidence("auth0|alice", "alice", ("mfa",), broker.clock.now())
        assert await mint_elevated(broker, started, who, "id token")

    async def deny(self, stepup_id: str, reason: str) -> None:
        await deny(self.bench.broker, stepup_id, reason, OPERATOR)

    async def restore(self, agent: Agent) -> None:
        await restore_agent(self.bench.broker, agent.id, OPERATOR)

    async def elevated(
        self, agent: Agent, resource: str, parameters: dict[str, Any]
    ) -> str:
        """Return an elevated token for a payment, approved and fetched."""
        broker = self.bench.broker
        detail: dict[str, object] = {
            "type": "agentvault:action",
            "action": "send:payment",
            "resource": resource,
            "parameters": parameters,
        }
        asked = await request_token(
            broker,
            agent,
            Action(("send:payment",), "send:payment", resource, parameters),
            resource=None,
            details=(detail,),
            backchannel=True,
        )
        assert isinstance(asked, Escalated)
        await self.approve(asked.stepup.id)
        granted = await poll(broker, agent, asked.stepup.id)
        assert isinstance(granted, Granted)
        return granted.access_token

    async def pending(self) -> StepUp:
        """Wait for a call to be held, and return its step-up."""
        calls = self.gateway.calls
        await self.bench.until(lambda: any(call.state == "held" for call in calls))
        return self.bench.broker.stepups.open()[0]

    async def records(self) -> list[tuple[str, str]]:
        """Return type and outcome, or end, of the gateway's events."""
        return [
            (e.type.removeprefix("gateway."), e.detail.get("ended") or e.reason or "")
            for e in await self.settled()
            if e.type.startswith("gateway.")
        ]

    async def result(self) -> Event:
        """Return the event about the end of the one call, once it is recorded."""
        async with asyncio.timeout(PATIENT):
            while not await self.bench.events("gateway.result"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        (found,) = [one for one in await self.settled() if one.type == "gateway.result"]
        return found

    async def settled(self) -> list[Any]:
        """Return all events, once no call's result is still being recorded."""
        calls = self.gateway.calls
        await until(
            lambda: not calls._recording and all(c.state == "held" for c in calls)
        )
        return await self.bench.events()


def operators_http(bench: Bench) -> httpx.AsyncClient:
    """Return the operators' HTTP, as the local user 1000 reaches it."""
    app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))

    async def seated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"peer": Peer(1000, None)}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(seated)
    return httpx.AsyncClient(transport=transport, base_url="http://b")


@contextlib.asynccontextmanager
async def gateway_of(bench: Bench) -> AsyncIterator[Gateway]:
    """Run the gateway of a broker, with the files that its home has."""
    gateway = bench.broker.extensions.gateway = Gateway(bench.broker)
    await gateway.start()
    yield gateway
    await gateway.aclose()


@contextlib.asynccontextmanager
async def served_at_home(bench: Bench) -> AsyncIterator[None]:
    """Run the gateway, and the operators' HTTP on the socket that the home has."""
    async with gateway_of(bench), Server(bench.clock) as server:
        app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))
        guard = RequestGuard(app, hosts=None, shape=problem)
        await server.listen(guard, unix_socket(bench.home.socket), shape=problem)
        yield


def _authorizing(stepup: StepUp) -> StepUp:
    return replace(stepup, status=StepUpStatus.AUTHORIZING)


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def standing(folder: Path, store: Database | None = None) -> AsyncIterator[Stand]:
    """Open a stand, of one of a team's brokers if there is a *store*; close all again.

    A team's brokers go by the real clock, as their leases in the store do.
    """
    home = Home.locate(folder / "home")
    clock: Any = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    if store is not None:
        clock = SharedClock(SystemClock())
    bench = await Bench.open(home, clock, settings=store.settings if store else None)
    upstream = Upstream()
    await upstream.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bench.close)
        stack.push_async_callback(upstream.stop)
        broker = bench.broker
        if (shared := broker.ledger.shared) is not None:
            await join_team(broker, shared)
            bench.listen_as_served()
            beating = asyncio.ensure_future(broker.team.brokers.run(lambda: None))
            stack.push_async_callback(_ended, beating)
        gateway = Gateway(broker, bench.feed.tell if store else None)
        broker.extensions.gateway = gateway
        await gateway.start()
        stack.push_async_callback(gateway.aclose)
        stand = Stand(bench, gateway, upstream)
        server = await stack.enter_async_context(Server(clock))
        bound, held = loopback_pair("127.0.0.1", 0)
        port = bound.getsockname()[1]
        streaming = gateway.streaming_apps()
        app = RequestGuard(
            AgentsApi(broker, f"http://127.0.0.1:{port}"),
            hosts=loopback_hosts(port),
            streaming=streaming,
        )
        limits = Limits(streamed=tuple(streaming))
        stand.server = server
        stand.listener = await server.listen(app, bound, limits=limits, held=held)
        async with httpx.AsyncClient(base_url=stand.url, timeout=PATIENT) as client:
            stand.client = client
            yield stand
