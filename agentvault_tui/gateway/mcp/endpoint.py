"""``POST /mcp/{name}``: MCP on the agents' listener, both eras on one endpoint.

The revision of 2026-07-28, whose requests stand alone, and those of 2025-11-25 and
2025-06-18, with a handshake and sessions. Each ``tools/call`` is one call of the
gateway's: decided, held, recorded and cut as any other. What a server says is relayed
as it wrote it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from agentvault_tui.broker.audience import PREFIX, mcp_server_of
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.request import refused
from agentvault_tui.encoder import to_json
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.calls import BODY_CAP, Call, Caller, Calls
from agentvault_tui.gateway.credentials import Credentials, take_token
from agentvault_tui.gateway.forward import body_receiver, preference
from agentvault_tui.gateway.mcp import results
from agentvault_tui.gateway.mcp.messages import (
    CALL,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    METHOD_NOT_FOUND,
    MODERN,
    VERSION_KEY,
    Envelope,
    McpError,
    Message,
    answer,
    canonical,
    check_modern,
    number_of,
    read_answer,
    read_message,
    status_of,
    text_of,
    unsupported,
    with_members,
)
from agentvault_tui.gateway.mcp.servers import McpServer, McpServers, arguments_of
from agentvault_tui.gateway.mcp.sessions import McpSession, McpSessions
from agentvault_tui.gateway.mcp.stdio import McpProcesses, Progress
from agentvault_tui.gateway.mcp.streamable import (
    Posted,
    SessionGoneError,
    headers_to_server,
    post,
)
from agentvault_tui.gateway.mcp.writer import AnswerWriter
from agentvault_tui.gateway.refusals import CallRefusedError, too_large, unauthorized
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.tools import UnmatchedToolError
from agentvault_tui.gateway.upstream import Upstream, UpstreamError
from agentvault_tui.model import Action, Agent, AgentId, Outcome, StepUpStatus
from agentvault_tui.web.exchange import Exchange
from agentvault_tui.web.reply import Header, Receive, Scope, Send, json_reply

METADATA: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728 section 3.1: before the path of the resource."""
_NOTHING: Final = Action((), "")
_UNKNOWN_BODY: Final = 65_536
"""Bytes that are read of whoever shows no token, to say which scope it needs."""
_LISTS: Final = frozenset(
    {"prompts/list", "resources/list", "resources/templates/list"}
)


@dataclass(slots=True)
class _Asked:
    """One request of a client, and what it is answered over."""

    server: McpServer
    caller: Caller
    message: Message
    version: str
    headers: list[Header]
    session: McpSession | None
    writer: AnswerWriter
    gone: asyncio.Future[None]
    audience: str | None
    """The URL for which its token is good, where it is for this one alone."""
    upstream_session: str | None = None
    """The session that a server began for it, as that calls it."""

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    @property
    def agent(self) -> Agent:
        return self.caller.agent


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
            broker: what decides and records.
            calls: the calls there are.
            admission: decides about them.
            servers: those in force.
            processes: of servers that are programs.
            credentials: what is attached for those that are not.
            upstream: returns how one of these is reached.
        """
        self._broker = broker
        self._calls = calls
        self._admission = admission
        self._servers = servers
        self._processes = processes
        self._credentials = credentials
        self._upstream = upstream
        self._sessions = McpSessions()
        self._next = 0

    def cut(self, agent_id: AgentId | None) -> None:
        """Forget what agents have here beside their calls: sessions and processes."""
        self._sessions.cut(agent_id)
        self._processes.cut(agent_id)

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
                    "authorization_servers": [self._broker.issuer],
                    "scopes_supported": self._scopes_at_once(server),
                    "bearer_methods_supported": ["header"],
                    "resource_name": f"{server.name}, through AgentVault",
                },
            )
        await reply.send(send)

    def _scopes_at_once(self, server: McpServer) -> list[str]:
        """Return the scopes of *server* that whoever may use it can be issued at once.

        A client asks for all of them in one request, which is refused for one scope
        that its agent was not granted, and it is not known yet whose client it is: so
        those that all agents have that have any. Further ones are asked for by the
        calls that need them.
        """
        decide = self._broker.policy.decide
        common: list[str] | None = None
        for agent in self._broker.registry.agents():
            if agent.resource_server:
                continue
            own = [
                scope
                for scope in server.scopes
                if decide(agent, Action((scope,), scope)).outcome is Outcome.ALLOWED
            ]
            if own:
                common = own if common is None else [s for s in common if s in own]
        return common or []

    # One message

    async def _answer(
        self, server: McpServer, scope: Scope, receive: Receive, writer: AnswerWriter
    ) -> None:
        """Answer one request for *server*."""
        if scope["method"] not in {"POST", "DELETE"}:
            raise _refusal(405, "method_not_allowed", _WRONG_METHOD, _ALLOW)
        shown = take_token(scope["headers"], b"/", None)
        try:
            caller = await self._admission.authenticate(
                shown.secret, _detail(server.name)
            )
            audience = self._audience(server, caller)
        except CallRefusedError:
            with suppress(CallRefusedError, McpError):
                writer.message = read_message(await _read(receive, _UNKNOWN_BODY))
            raise
        session = self._session(server, caller, shown.headers)
        if scope["method"] == "DELETE":
            if session is not None:
                self._sessions.end(session)
            await writer.empty(200 if session else 404)
            return
        gone = asyncio.get_running_loop().create_future()
        writer.exchange.on_gone = lambda: _settle(gone)
        body = await _read(receive, BODY_CAP)
        try:
            writer.message = message = read_message(body)
            version = _version(message, shown.headers, session)
            await self._dispatch(
                _Asked(
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
            await writer.fail(McpError(-32603, error.text, {"error": error.code}))
        except SessionGoneError:
            if session is not None:
                self._sessions.end(session)
            raise _no_session() from None

    def _audience(self, server: McpServer, caller: Caller) -> str | None:
        """Return for which URL the caller's token is good, if for one.

        Raises:
            CallRefusedError: it is for another server.
        """
        resource = caller.token.resource
        name = mcp_server_of(resource, self._broker.issuer)
        if name is None:
            return None
        if name != server.name:
            text = "this token was issued for another resource"
            raise unauthorized("invalid_token", text)
        return resource

    def _challenge(
        self,
        refusal: CallRefusedError,
        server: McpServer,
        scope: Scope,
        message: Message | None,
    ) -> None:
        """Say in a refusal where tokens are issued, and which one it takes.

        RFC 9728 section 5.1, RFC 6750 section 3. The scope is the call's; of what is no
        call, those of the server that are issued without a person.
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
            CallRefusedError: 404 for one that is not there: its client begins anew.
        """
        named = [value for name, value in headers if name == b"mcp-session-id"]
        if not named:
            return None
        found = None
        if len(named) == 1:
            id_ = named[0].decode("latin-1")
            found = self._sessions.find(id_, caller.agent.id, server.name)
        if found is None:
            raise _no_session()
        return found

    async def _dispatch(self, asked: _Asked) -> None:
        """Answer a message of either era."""
        message, writer = asked.message, asked.writer
        if asked.modern:
            check_modern(message, asked.headers)
        if message.id is None:
            await self._notified(asked)
            await writer.empty(202)
            return
        if asked.modern:
            if message.method == "server/discover":
                greeting = await self._attended(asked, self._discover(asked))
                await writer.finish(answer(message.id, result=greeting))
                return
        elif message.method == "initialize":
            await self._initialize(asked)
            return
        elif message.method == "ping":
            await writer.finish(answer(message.id, result=Raw(b"{}")))
            return
        elif asked.session is None:
            raise McpError(INVALID_REQUEST, "initialize first: no Mcp-Session-Id")
        await self._requested(asked)

    async def _requested(self, asked: _Asked) -> None:
        """Answer what both eras have alike."""
        message, method, writer = asked.message, asked.message.method, asked.writer
        if method == "tools/list":
            await writer.finish(await self._attended(asked, self._list_tools(asked)))
        elif method == CALL and message.named == results.CHECK:
            await writer.finish(await self._check(asked))
        elif method == CALL or self._is_call(asked.server, method):
            await self._call(asked)
        elif method in _LISTS and _serves(asked.server, method):
            await writer.finish(await self._attended(asked, self._send(asked)))
        else:
            text = "this is not served through AgentVault"
            raise McpError(METHOD_NOT_FOUND, text)

    def _is_call(self, server: McpServer, method: str) -> bool:
        """Tell whether a request other than of a tool is decided as a call."""
        return (
            method in {"resources/read", "prompts/get", "completion/complete"}
            and server.rule_of("", method) is not None
        )

    async def _attended(
        self, asked: _Asked, work: Awaitable[results.Answered], call: Call | None = None
    ) -> results.Answered:
        return await asked.writer.attend(work, asked.gone, call)

    # Notifications and the handshake

    async def _notified(self, asked: _Asked) -> None:
        """Take a notification; an answer to a request of a server is for nobody."""
        message, session = asked.message, asked.session
        if session is None:
            return
        if message.method == "notifications/cancelled":
            stop = session.running.get(message.params.get("requestId"))
            if stop is not None:
                stop()
        elif message.method == "notifications/initialized" and asked.server.service:
            with suppress(UpstreamError):
                await self._post(asked, message.as_line())

    async def _initialize(self, asked: _Asked) -> None:
        """Begin a session (2025-11-25, basic/lifecycle)."""
        server, message = asked.server, asked.message
        wanted = message.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise McpError(INVALID_PARAMS, "protocolVersion is missing")
        upstream = None
        if server.service is None:
            process = self._processes.of(server, asked.agent.id, modern=False)
            await self._attended(asked, process.start())
            result = process.greeting
        else:
            # No server is told of what a client could be asked: it is never asked.
            params = Raw(msgspec.json.encode(message.params | {"capabilities": {}}))
            message.envelope["params"] = params
            told = await self._attended(asked, self._send(asked))
            if "result" not in told:
                await asked.writer.finish(told)
                return
            result, upstream = told["result"], asked.upstream_session
        agreed = text_of(read_answer(bytes(result)), "protocolVersion") or LEGACY[0]
        offered = wanted if wanted in LEGACY else LEGACY[0]
        version = min(offered, agreed)
        if version not in LEGACY:
            text = f"the server speaks MCP {agreed}, which is not served here"
            raise McpError(INVALID_REQUEST, text)
        result = with_members(
            results.without_unserved(server, result), protocolVersion=version
        )
        begun = self._sessions.begin(asked.agent.id, server.name, version, upstream)
        asked.writer.extra = ((b"mcp-session-id", begun.id.encode()),)
        await asked.writer.finish(answer(message.id, result=result))

    async def _discover(self, asked: _Asked) -> Raw:
        """Return what a server of the modern era says of itself."""
        server = asked.server
        if server.service is None:
            process = self._processes.of(server, asked.agent.id, modern=True)
            await process.start()
            result = process.greeting
        else:
            told = await self._send(asked)
            if "result" not in told:
                # Nothing else is proof of the modern era (basic/versioning).
                raise unsupported(MODERN, LEGACY)
            result = told["result"]
        try:
            versions = msgspec.json.decode(
                read_answer(bytes(result))["supportedVersions"], type=list[str]
            )
        except (ValueError, KeyError):
            raise unsupported(MODERN, LEGACY) from None
        served = [one for one in versions if one in {MODERN, *LEGACY}]
        return with_members(
            results.without_unserved(server, result), supportedVersions=served
        )

    # Tools

    async def _list_tools(self, asked: _Asked) -> Envelope:
        """Return the tools that the agent's scopes allow, for nobody else to keep."""
        told = await self._send(asked)
        if "result" not in told:
            return told
        server, agent = asked.server, self._broker.registry.agent(asked.agent.id)

        def allowed(name: str) -> bool:
            rule = server.rule_of(name)
            if rule is None:
                return False
            plain = Action((rule.scope,), rule.scope)
            verdict = self._broker.policy.decide(agent, plain)
            return verdict.outcome is not Outcome.DENIED

        told["result"] = results.listed(told["result"], allowed, modern=asked.modern)
        return told

    async def _check(self, asked: _Asked) -> Envelope:
        """Tell how a held call stands."""
        arguments = arguments_of(asked.message.params) or {}
        id_ = arguments.get("auth_req_id")
        stepup = None
        if isinstance(id_, str):
            stepup = await self._admission.find(id_)
        if stepup is None or stepup.agent_id != asked.agent.id:
            said = results.failure(
                "There is no held call of yours with that auth_req_id.",
                {"error": "access_denied", "reason": "unknown_request"},
            )
        else:
            minted = self._broker.registry.elevated(stepup.id) is not None
            status = stepup.status
            lost = status is StepUpStatus.APPROVED and not minted
            said = results.standing(stepup, StepUpStatus.EXPIRED if lost else status)
        result = results.complete(said, modern=asked.modern)
        return answer(asked.message.id, result=result)

    async def _call(self, asked: _Asked) -> None:
        """Take one call through its life, and answer with its result."""
        server, message, writer = asked.server, asked.message, asked.writer
        if not message.named and message.method == CALL:
            raise McpError(INVALID_PARAMS, "the call names no tool")
        try:
            call = await self._read_call(asked)
            told = await self._attended(asked, self._perform(asked, call), call)
        except CallRefusedError as refusal:
            scoped = refusal.error == "insufficient_scope"
            if refusal.status == 401 or (scoped and asked.version >= LEGACY[0]):
                raise
            told = results.refusal(server, asked.agent, refusal, message)
        except UpstreamError as error:
            told = results.upstream_failure(error, message)
        if "result" in told and message.method == CALL:
            told["result"] = results.complete(told["result"], modern=asked.modern)
        await writer.finish(told, _error_status(told) if asked.modern else 200)

    async def _read_call(self, asked: _Asked) -> Call:
        """Return the call that a request is.

        Raises:
            CallRefusedError: it is no action; recorded.
        """
        server, message = asked.server, asked.message
        is_tool = message.method == CALL
        tool = (message.named or "") if is_tool else message.method
        params = {k: v for k, v in message.params.items() if k != "_meta"}
        arguments = arguments_of(message.params) if is_tool else params
        held = message.held()
        detail = _detail(server.name)
        detail |= {
            "tool": tool[:200],
            "arguments_sha256": hashlib.sha256(canonical(arguments)).hexdigest(),
            "body_sha256": hashlib.sha256(held).hexdigest(),
            "body_bytes": len(held),
        }
        rule = server.rule_of(tool, message.method)
        try:
            action = server.action_of(rule, tool, arguments)
        except UnmatchedToolError as error:
            refusal = CallRefusedError(
                403, "access_denied", error.reason, error.message
            )
            about = Action((rule.scope,), rule.scope) if rule else _NOTHING
            await self._admission.refuse(asked.agent, refusal, about, detail)
        described = to_json(
            {
                "method": message.method,
                "url": f"mcp://{server.name}/{tool}",
                "headers": {},
                "body_sha256": detail["body_sha256"],
                "body_bytes": detail["body_bytes"],
            }
        )

        async def body() -> bytes:
            return held

        said = dict(asked.headers)
        retry = said.get(b"agentvault-request")
        call = Call(
            caller=asked.caller,
            service=detail["service"],
            route=rule.pattern if rule is not None else "",
            method=message.method,
            path=tool,
            action=action,
            detail=detail,
            read=body,
            describe=lambda _: described,
            gone=asked.gone,
            wait=preference(said.get(b"prefer")),
            retry=retry.decode("latin-1") if retry else None,
            audience=asked.audience,
        )
        if call.retry is None:
            call.retry = self._approved(call, described)
        return call

    def _approved(self, call: Call, described: str) -> str | None:
        """Return the approval of the same call that was not used yet."""
        broker = self._broker
        for stepup in broker.stepups.approved(call.caller.agent.id):
            if (
                stepup.request_json == described
                and stepup.action == call.action.action
                and broker.registry.elevated(stepup.id)
            ):
                return stepup.id
        return None

    async def _perform(self, asked: _Asked, call: Call) -> Envelope:
        """Decide about a call, record it, send it once, and record its result."""
        permit = await self._admission.permit(call)
        await self._calls.begin(call, permit)
        ended = "failed"

        def stop(task: asyncio.Task[Any]) -> None:
            task.cancel()

        session = asked.session
        running = asyncio.current_task()
        key = msgspec.json.decode(asked.message.id or b"null")
        if session is not None and running is not None:
            session.running[key] = lambda: stop(running)
        try:
            told = await self._send(asked, call)
            call.check()
            ended = "done"
            call.bytes_in = sum(len(bytes(one)) for one in told.values())
            if results.is_error(told):
                call.detail["tool_error"] = True
        except UpstreamError as error:
            call.problem = error.code
            call.check()
            raise
        except asyncio.CancelledError:
            call.problem = "cancelled"
            raise
        except (McpError, SessionGoneError):
            call.problem = "upstream_reset"
            raise
        finally:
            self._calls.end(call, ended)
            if session is not None:
                session.running.pop(key, None)
        return told

    # To the server

    async def _send(self, asked: _Asked, call: Call | None = None) -> Envelope:
        """Send a client's request to its server; return the answer, under its id."""
        message, server = asked.message, asked.server
        token = message.progress_token
        notes = asked.writer.notes

        def progress(params: Raw) -> None:
            if token is None or (call is not None and call.cut is not None):
                return
            with suppress(ValueError, asyncio.QueueFull):
                said = with_members(params, progressToken=token)
                notes.put_nowait(results.progress(said))

        if server.service is not None:
            self._next += 1
            mark = None if token is None else self._next
            body = message.relayed(self._next, mark)
            if call is not None:
                call.bytes_out = len(body)
            told = await self._post(asked, body, call, progress)
            if told is None:
                raise UpstreamError(502, "upstream_reset", "the server did not answer")
        else:
            process = self._processes.of(server, asked.agent.id, modern=asked.modern)
            await process.start()
            self._release(asked, call)
            cutters = [] if call is None else call.on_cut
            told = await process.ask(message, progress, lambda: _sent(call), cutters)
            if call is not None:
                call.bytes_out = len(message.envelope.get("params", b""))
        return {**told, "id": message.id or Raw(b"null")}

    async def _post(
        self,
        asked: _Asked,
        body: bytes,
        call: Call | None = None,
        progress: Progress = lambda _: None,
    ) -> Envelope | None:
        """Send a message by URL; return the answer, which a notification has not."""
        service = asked.server.service
        assert service is not None  # noqa: S101 - asked for those alone
        attachment = await self._credentials.of(service, asked.agent)
        own = service.credential.kind == "connection"
        upstream = self._upstream(service, asked.agent.id if own else None)
        session = asked.session
        posted = Posted(
            target=asked.server.target,
            body=body,
            headers=headers_to_server(
                asked.headers, session.upstream if session else None
            ),
            attachment=attachment,
            release=lambda: self._release(asked, call),
            sent=lambda: _sent(call),
            cutters=[] if call is None else call.on_cut,
        )
        told = await post(upstream, posted, progress)
        if call is not None:
            call.status = told.status
        asked.upstream_session = told.session
        return told.envelope

    def _release(self, asked: _Asked, call: Call | None) -> None:
        """Check that a message may go out, right before it does.

        Raises:
            CallRefusedError: not any more.
        """
        if call is not None:
            self._calls.release(call)
        elif why := refused(self._broker, asked.agent):
            raise unauthorized(*why)


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


def _sent(call: Call | None) -> None:
    """Note that a call has gone out."""
    if call is not None:
        call.sent, call.state = True, "streaming"


def _detail(server: str) -> dict[str, Any]:
    """Return what the events of a call say of it, for the time being."""
    return {
        "service": f"mcp/{server}",
        "server": server,
        "tool": None,
        "arguments_sha256": None,
        "method": "POST",
        "path": PREFIX + server,
        "query": None,
        "body_sha256": None,
        "body_bytes": None,
    }


def _version(
    message: Message, headers: list[Header], session: McpSession | None
) -> str:
    """Return the version of MCP that a message is of.

    Raises:
        McpError: it is none that is served here.
    """
    if message.method == "initialize":
        return LEGACY[0]
    said = [v.decode("latin-1") for n, v in headers if n == b"mcp-protocol-version"]
    in_body = message.meta.get(VERSION_KEY)
    if in_body is not None or MODERN in said:
        if message.id is not None and in_body is None:
            raise McpError(INVALID_PARAMS, f"_meta names no {VERSION_KEY}")
        return MODERN
    if session is not None:
        return session.version
    if said and said[0] not in LEGACY:
        raise unsupported(said[0], (MODERN, *LEGACY))
    return said[0] if said else LEGACY[-1]


async def _read(receive: Receive, cap: int) -> bytes:
    """Return the whole body.

    Raises:
        CallRefusedError: 413.
    """
    pieces, size = [], 0
    next_piece = body_receiver(receive)
    while piece := await next_piece():
        pieces.append(piece)
        size += len(piece)
        if size > cap:
            raise too_large(cap)
    return b"".join(pieces)


def _host(scope: Scope) -> str:
    """Return the ``Host`` header, which the guard has checked."""
    found: bytes = dict(scope["headers"]).get(b"host", b"")
    return found.decode("latin-1")


def _serves(server: McpServer, method: str) -> bool:
    """Tell whether anything of the family of *method* is allowed."""
    return results.serves(server, method.partition("/")[0])


def _error_status(told: Envelope) -> int:
    if "error" not in told:
        return 200
    with suppress(ValueError):
        return status_of(number_of(read_answer(bytes(told["error"])), "code") or 0)
    return 200


_NO_SERVER: Final = "there is no MCP server of that name"
_WRONG_METHOD: Final = "send POST; nothing is told here unasked"
_ALLOW: Final = (b"allow", b"POST, DELETE")


def _refusal(status: int, code: str, text: str, *headers: Header) -> CallRefusedError:
    return CallRefusedError(status, code, code, text, *headers)


def _no_session() -> CallRefusedError:
    text = "the session is over: initialize again"
    return _refusal(404, "session_not_found", text)
