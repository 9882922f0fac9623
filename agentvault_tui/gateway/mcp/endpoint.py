"""``POST /mcp/{name}``: MCP on the agents' listener, both eras on one endpoint.

The revision of 2026-07-28, whose requests are independent, and those of 2025-11-25 and
2025-06-18, with a handshake and sessions. Each ``tools/call`` is one call of the
gateway's: decided, held, recorded and cut as any other. A server's messages are relayed
as it wrote them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import Raw

from agentvault_tui.broker.audience import PREFIX, audiences_of
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.app import body_receiver
from agentvault_tui.gateway.body import PACED, BodyRoom, read_apart, weight
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.credentials import Credentials, take_token
from agentvault_tui.gateway.mcp import results
from agentvault_tui.gateway.mcp.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    McpError,
    SessionGoneError,
)
from agentvault_tui.gateway.mcp.members import CALLED, VERSION_KEY
from agentvault_tui.gateway.mcp.messages import (
    CALL,
    LEGACY,
    MODERN,
    Envelope,
    Message,
    answer,
    check_modern,
    is_id,
    read_message,
    unsupported,
    with_members,
    without_capabilities,
)
from agentvault_tui.gateway.mcp.processes import McpProcesses
from agentvault_tui.gateway.mcp.relay import AskedMessage, McpRelay
from agentvault_tui.gateway.mcp.servers import McpServer, McpServers
from agentvault_tui.gateway.mcp.sessions import McpSession, McpSessions
from agentvault_tui.gateway.mcp.toolcalls import McpCalls, detail_of
from agentvault_tui.gateway.mcp.writer import AnswerWriter
from agentvault_tui.gateway.refusals import CallRefusedError, too_large, unauthorized
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.upstream import Upstream
from agentvault_tui.model import Action, AgentId, Outcome
from agentvault_tui.text import visible
from agentvault_tui.web.exchange import Exchange
from agentvault_tui.web.reply import Header, Receive, Scope, Send, json_reply
from agentvault_tui.web.service_connection import UpstreamError

METADATA: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728 section 3.1: before the path of the resource."""
_UNKNOWN_BODY: Final = 65_536
"""Bytes that are read of a request without a token, to say which scope it needs."""
_AT_ONCE_KEPT: Final = 2.0
"""Seconds for which strangers who ask need not all agents be looked at again."""
_LISTS: Final = frozenset(
    {"prompts/list", "resources/list", "resources/templates/list"}
)


class McpApp:
    """The endpoint of every MCP server, and its metadata."""

    def __init__(
        self,
        broker: Broker,
        *,
        calls: Calls,
        admission: Admission,
        servers: McpServers,
        processes: McpProcesses,
        credentials: Credentials,
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Serve *servers*.

        Args:
            broker: the broker that decides and records.
            calls: the calls there are.
            admission: decides about them.
            servers: those in effect.
            processes: of servers that are programs.
            credentials: the source of attachments for the others.
            upstream: returns how one of these is reached.
        """
        self._broker = broker
        self._admission = admission
        self._servers = servers
        self._processes = processes
        self._relay = McpRelay(broker, calls, processes, credentials, upstream)
        self._calls = McpCalls(broker, calls, admission, self._relay, servers)
        self._sessions = McpSessions()
        self._room = BodyRoom()
        self._at_once: dict[str, tuple[McpServer, float, list[str]]] = {}
        """By server: until when these are the scopes that are issued at once."""

    def cut(self, agent_id: AgentId | None) -> None:
        """Drop the sessions and processes of an agent, next to its calls."""
        self._sessions.cut(agent_id)
        self._processes.cut(agent_id)
        self._relay.cut()

    def cut_tokens(self) -> None:
        """Cancel pending requests, other than calls, of tokens that have ended."""
        self._relay.cut()

    async def record(self, *, ending: bool = False) -> None:
        """Record the messages that were not calls; see `MessageCounts`."""
        await self._relay.counts.record(ending=ending)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange: Exchange = scope.pop("exchange")
        writer = AnswerWriter(exchange, send, scope["headers"])
        server = self._servers.get(scope["path"].removeprefix(PREFIX))
        if server is None:
            await writer.refuse(_refusal(404, "unknown_service", _NO_SERVER))
            return
        try:
            await self._answer(server, scope, receive, writer)
        except CallRefusedError as refusal:
            if refusal.status == 401 or refusal.error == "insufficient_scope":
                self._challenge(refusal, server, scope, writer.message)
            await writer.refuse(refusal)

    async def metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer which authorization server issues tokens for a server (RFC 9728)."""
        del receive
        scope.pop("exchange")
        path = scope["path"].removeprefix(METADATA)
        server = self._servers.get(path.removeprefix(PREFIX))
        if server is None or scope["method"] not in {"GET", "HEAD"}:
            status = 404 if server is None else 405
            reply = json_reply(status, {"error": "not_found"})
        else:
            reply = json_reply(
                200,
                {
                    "resource": f"{scope['scheme']}://{_host(scope)}{path}",
                    "authorization_servers": [self._broker.admitting.url],
                    "scopes_supported": self._scopes_at_once(server),
                    "bearer_methods_supported": ["header"],
                    "resource_name": f"{server.name}, through AgentVault",
                },
            )
        await reply.send(send)

    def _scopes_at_once(self, server: McpServer) -> list[str]:
        """Return the scopes of *server* that are issued at once to an agent with them.

        A client asks for all of them in one request, which is refused for one scope
        that its agent was not granted, and the client is not known yet. So they are the
        scopes that all agents with any of them have; if there is none, the one that
        most have. Further ones are asked for by the calls that need them.
        """
        now, cached = self._broker.clock.boot(), self._at_once.get(server.name)
        if cached is not None and cached[0] is server and now < cached[1]:
            return cached[2]
        own, holders, holds = set(server.scopes), 0, Counter[str]()
        allowed: dict[str, bool] = {}
        for agent in self._broker.registry.agents():
            granted = own & set(agent.scopes)
            if not granted or agent.resource_server:
                continue
            for scope in granted:
                if scope not in allowed:
                    verdict = foresee(self._broker, agent, Action((scope,), scope))
                    allowed[scope] = verdict.outcome is Outcome.ALLOWED
            if usable := [scope for scope in granted if allowed[scope]]:
                holders += 1
                holds.update(usable)
        scopes = [scope for scope in server.scopes if holds[scope] == holders > 0]
        scopes = scopes or [scope for scope, _ in holds.most_common(1)]
        self._at_once[server.name] = server, now + _AT_ONCE_KEPT, scopes
        return scopes

    # One message

    async def _answer(
        self, server: McpServer, scope: Scope, receive: Receive, writer: AnswerWriter
    ) -> None:
        """Answer one request for *server*."""
        if scope["method"] not in {"POST", "DELETE"}:
            raise _refusal(405, "method_not_allowed", _WRONG_METHOD, _ALLOW)
        shown = take_token(scope["headers"], b"/", None)
        try:
            source = self._broker.deciding.surroundings.source_of(scope)
            caller = await self._admission.authenticate(
                shown.secret, detail_of(server.name), source=source
            )
            audience = self._audience(server, caller)
        except CallRefusedError:
            with suppress(CallRefusedError, McpError):
                writer.message = read_message(await _read(receive, _UNKNOWN_BODY))
            raise
        session = self._session(server, caller, shown.headers)
        if scope["method"] == "DELETE":
            if session is None:  # as in the era without any
                raise _refusal(405, "method_not_allowed", _WRONG_METHOD, _ALLOW)
            self._sessions.end(session)
            await writer.empty(200)
            return
        gone = asyncio.get_running_loop().create_future()
        writer.exchange.on_gone = lambda: _settle(gone)
        agent_id = caller.token.requester
        with self._room.counted(agent_id) as take:
            taken = self._taking(caller, take)
            body = await _read(receive, server.max_body, taken, self._admission.pace)
            try:
                size = weight(body)
                message = await read_apart(agent_id, size, read_message, body)
                writer.message = message
                if not self._servers.has(server):  # changed while the body came
                    raise _refusal(503, "temporarily_unavailable", _CHANGED)
                version = _version(message, shown.headers, session)
                await self._dispatch(
                    AskedMessage(
                        server=server,
                        caller=caller,
                        message=message,
                        version=version,
                        headers=shown.headers,
                        session=session,
                        writer=writer,
                        gone=gone,
                        audience=audience,
                    )
                )
            except McpError as error:
                await writer.fail(error)
            except UpstreamError as error:
                await writer.fail(
                    McpError(INTERNAL_ERROR, error.text, {"error": error.code})
                )
            except SessionGoneError:
                if session is not None:
                    self._sessions.end(session)
                raise _no_session() from None

    def _taking(
        self, caller: Caller, take: Callable[[int], None]
    ) -> Callable[[int], None]:
        """Return the function that counts a piece of an agent's body."""

        def taken(size: int) -> None:
            self._admission.check_live(caller)
            take(size)

        return taken

    def _audience(self, server: McpServer, caller: Caller) -> str | None:
        """Return for which URL the caller's token is good, if for one.

        Raises:
            CallRefusedError: it is for another server.
        """
        audience = self._admission.audience(caller, PREFIX + server.name)
        if audience is None and audiences_of(
            caller.token.resource, self._broker.admitting.url
        ):
            text = "this token was issued for another resource"
            raise unauthorized("invalid_token", text)
        return audience

    def _challenge(
        self,
        refusal: CallRefusedError,
        server: McpServer,
        scope: Scope,
        message: Message | None,
    ) -> None:
        """Say in a refusal where tokens are issued, and which one it takes.

        RFC 9728 section 5.1, RFC 6750 section 3. The scope is the call's; of other
        requests, those of the server that are issued without a person.
        """
        rule = None
        if message is not None and message.method == CALL:
            rule = server.rule_of(message.named or "")
        scopes = self._scopes_at_once(server) if rule is None else [rule.scope]
        parts = []
        if refusal.reason != "no_token":
            parts.append(f'error="{refusal.error}"')
        if scopes:
            parts.append(f'scope="{" ".join(scopes)}"')
        url = f"{scope['scheme']}://{_host(scope)}{METADATA}{PREFIX}{server.name}"
        parts.append(f'resource_metadata="{url}"')
        challenge = (b"www-authenticate", f"Bearer {', '.join(parts)}".encode())
        refusal.headers = (challenge,)

    def _session(
        self, server: McpServer, caller: Caller, headers: list[Header]
    ) -> McpSession | None:
        """Return the session that a request names, if it names one.

        Raises:
            CallRefusedError: 404 for one that is not there: its client begins again.
        """
        named = [value for name, value in headers if name == b"mcp-session-id"]
        if not named:
            return None
        session = None
        if len(named) == 1:
            id_ = named[0].decode("latin-1")
            session = self._sessions.find(id_, caller.agent.id, server.name)
        if session is None:
            raise _no_session()
        return session

    async def _dispatch(self, incoming: AskedMessage) -> None:
        """Answer a message of either era."""
        message, writer = incoming.message, incoming.writer
        if incoming.modern:
            check_modern(message, incoming.headers)
        if message.id is None:
            await self._notified(incoming)
            await writer.empty(202)
            return
        if incoming.modern:
            if message.method == "server/discover":
                greeting = await incoming.attended(self._discover(incoming))
                await writer.finish(answer(message.id, result=greeting))
                return
        elif message.method == "initialize":
            await self._initialize(incoming)
            return
        elif message.method == "ping":
            await writer.finish(answer(message.id, result=Raw(b"{}")))
            return
        elif incoming.session is None:
            raise McpError(INVALID_REQUEST, "initialize first: no Mcp-Session-Id")
        await self._requested(incoming)

    async def _requested(self, incoming: AskedMessage) -> None:
        """Answer the requests that both eras share."""
        message, method, writer = (
            incoming.message,
            incoming.message.method,
            incoming.writer,
        )
        if method == "tools/list":
            await writer.finish(await incoming.attended(self._list_tools(incoming)))
        elif method == CALL and message.named == results.CHECK:
            await writer.finish(await self._calls.check(incoming))
        elif method == CALL or self._is_call(incoming.server, method):
            await self._calls.call(incoming)
        elif method in _LISTS and _serves(incoming.server, method):
            await writer.finish(await incoming.attended(self._relay.ask(incoming)))
        else:
            text = "this is not served through AgentVault"
            raise McpError(METHOD_NOT_FOUND, text)

    def _is_call(self, server: McpServer, method: str) -> bool:
        """Check whether a request other than of a tool is decided as a call."""
        return method in CALLED and server.rule_of("", method) is not None

    # Notifications and the handshake

    async def _notified(self, incoming: AskedMessage) -> None:
        """Take a notification; an answer to a request of a server is dropped.

        Raises:
            McpError: it is a request without an id, or cancels an unknown request.
        """
        message, session = incoming.message, incoming.session
        if message.method and not message.method.startswith("notifications/"):
            raise McpError(INVALID_REQUEST, "a request needs an id")
        if message.method == "notifications/cancelled":
            id_ = message.params.get("requestId")
            if not is_id(id_):
                raise McpError(INVALID_PARAMS, "requestId is no text and no integer")
            stop = session.running.get(id_) if session is not None else None
            if stop is not None:
                stop()
        elif session is None or incoming.server.service is None:
            return
        elif message.method == "notifications/initialized":
            with suppress(UpstreamError):
                await self._relay.notify(incoming)

    async def _initialize(self, incoming: AskedMessage) -> None:
        """Begin a session (2025-11-25, basic/lifecycle)."""
        server, message = incoming.server, incoming.message
        wanted = message.params.get("protocolVersion")
        if wanted is None:
            raise McpError(INVALID_PARAMS, "protocolVersion is missing")
        upstream = None
        if server.service is None:
            process = self._relay.process_of(incoming)
            await incoming.attended(process.start())
            result = process.greeting
        else:
            # Servers are not told the client's capabilities: the client is never asked.
            incoming.message = without_capabilities(message)
            envelope = await incoming.attended(self._relay.ask(incoming))
            if "result" not in envelope:
                await incoming.writer.finish(envelope)
                return
            result, upstream = envelope["result"], incoming.upstream_session
        greeting = await _greeting(incoming, bytes(result))
        agreed = greeting.version or LEGACY[0]
        offered = wanted if wanted in LEGACY else LEGACY[0]
        version = min(offered, agreed)
        if version not in LEGACY:
            text = f"the server speaks MCP {visible(agreed, 60)}, which is not served"
            raise McpError(INVALID_REQUEST, text)
        result = with_members(Raw(greeting.result), protocolVersion=version)
        begun = self._sessions.begin(incoming.agent.id, server.name, version, upstream)
        incoming.writer.extra = ((b"mcp-session-id", begun.id.encode()),)
        await incoming.writer.finish(answer(message.id, result=result))

    async def _discover(self, message: AskedMessage) -> Raw:
        """Return a modern server's own description."""
        server = message.server
        if server.service is None:
            process = self._relay.process_of(message)
            await process.start()
            result = process.greeting
        else:
            envelope = await self._relay.ask(message)
            if "result" not in envelope:
                # Nothing else is proof of the modern era (basic/versioning).
                raise unsupported(MODERN, LEGACY)
            result = envelope["result"]
        with suppress(ValueError):
            greeting = await _greeting(message, bytes(result))
            if greeting.versions is not None:
                return Raw(greeting.result)
        raise unsupported(MODERN, LEGACY)

    # Tools

    async def _list_tools(self, message: AskedMessage) -> Envelope:
        """Return the tools that the agent's scopes allow, which no other may cache."""
        envelope = await self._relay.ask(message)
        if "result" not in envelope:
            return envelope
        await self._relay.note_tools(message, envelope["result"])
        server, agent = message.server, self._broker.registry.agent(message.agent.id)
        caller = message.caller._replace(agent=message.caller.token.principal(agent))

        usable = {
            scope
            for scope in server.scopes
            if caller.foresee(self._broker, Action((scope,), scope)).outcome
            is not Outcome.DENIED
        }
        rules = (*server.tools.rules, server.tools.unmatched_rule)
        allowed = frozenset(
            at for at, rule in enumerate(rules) if rule and rule.scope in usable
        )
        result = bytes(envelope["result"])
        listed = partial(results.listed, modern=message.modern)
        served = await read_apart(
            message.agent.id, len(result), listed, result, server.names, allowed
        )
        envelope["result"] = Raw(served)
        return envelope


async def _greeting(message: AskedMessage, result: bytes) -> results.Greeting:
    """Return a server's greeting as its clients get it; see `results.read_greeting`."""
    families = ("resources", "prompts", "completion")
    served = frozenset(one for one in families if results.serves(message.server, one))
    read = results.read_greeting
    return await read_apart(message.agent.id, len(result), read, result, served)


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


def _version(
    message: Message, headers: list[Header], session: McpSession | None
) -> str:
    """Return the version of MCP that a message is of.

    Raises:
        McpError: it is none that is served here.
    """
    if message.method == "initialize":
        return LEGACY[0]
    stated = [v.decode("latin-1") for n, v in headers if n == b"mcp-protocol-version"]
    in_body = message.meta.get(VERSION_KEY)
    if in_body is not None or MODERN in stated:
        if message.id is not None and in_body is None:
            raise McpError(INVALID_PARAMS, f"_meta names no {VERSION_KEY}")
        return MODERN
    if session is not None:
        return session.version
    if stated and stated[0] not in LEGACY:
        raise unsupported(stated[0], (MODERN, *LEGACY))
    return stated[0] if stated else LEGACY[-1]


async def _read(
    receive: Receive,
    cap: int,
    take: Callable[[int], None] | None = None,
    pace: Callable[[], Awaitable[None]] | None = None,
) -> bytes:
    """Return the whole body; *take* is called with the size of each piece.

    Between two pieces *pace* waits for a turn.

    Raises:
        CallRefusedError: 413; 503 where too much is in memory.
    """
    pieces, size = [], 0
    next_piece = body_receiver(receive)
    while piece := await next_piece():
        pieces.append(piece)
        size += len(piece)
        if take is not None:
            take(len(piece))
        if size > cap:
            raise too_large(cap)
        if pace is not None and size > PACED:
            await pace()
    return b"".join(pieces)


def _host(scope: Scope) -> str:
    """Return the ``Host`` header, which the guard has checked."""
    host: bytes = dict(scope["headers"]).get(b"host", b"")
    return host.decode("latin-1")


def _serves(server: McpServer, method: str) -> bool:
    """Check whether anything of the family of *method* is allowed."""
    return results.serves(server, method.partition("/")[0])


_NO_SERVER: Final = "there is no MCP server of that name"
_CHANGED: Final = "the server's file was changed meanwhile: send it again"
_WRONG_METHOD: Final = "send POST; this endpoint sends no unsolicited messages"
_ALLOW: Final = (b"allow", b"POST, DELETE")


def _refusal(status: int, code: str, text: str, *headers: Header) -> CallRefusedError:
    return CallRefusedError(status, code, code, text, *headers)


def _no_session() -> CallRefusedError:
    text = "the session is over: initialize again"
    return _refusal(404, "session_not_found", text)
