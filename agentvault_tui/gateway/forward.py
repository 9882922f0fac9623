"""Requests to services: parsed once, decided, rebuilt, sent, and streamed back.

`Forwarder.perform` is one call, whichever face it came by.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentvault_tui.encoder import to_json
from agentvault_tui.errors import BadPathError, UnreadableBodyError
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.body import STREAM_CAP, Body, BodyRoom, read_apart
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.credentials import Credentials, Shown, take_token
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.overrides import OVERRIDES, OverrideScan
from agentvault_tui.gateway.refusals import CallRefusedError, too_large
from agentvault_tui.gateway.routes import (
    action_of,
    check_plain,
    match,
    may_hold_fields,
)
from agentvault_tui.gateway.services import Service, Services, UpstreamCredential
from agentvault_tui.gateway.target import Target, parse_target
from agentvault_tui.gateway.upstream import HOP_BY_HOP, Answer, Outgoing, Upstream
from agentvault_tui.model import Action, AgentId
from agentvault_tui.web.reply import Header
from agentvault_tui.web.service_connection import UpstreamError

_NOTHING: Final = Action((), "")
_LARGE: Final = 65_536
_STALLED_SECONDS: Final = 120.0
"""A service may take no byte of a body."""
_FIRST_SECONDS: Final = 0.1
"""Until the head of an answer goes ahead of its body."""
_DROPPED: Final = (
    frozenset(name.encode() for name in HOP_BY_HOP)
    | OVERRIDES
    | frozenset(
        (
            b"accept-encoding",
            b"agentvault-request",
            b"authorization",
            b"content-length",
            b"cookie",
            b"expect",
            b"forwarded",
            b"host",
            b"via",
            b"x-real-ip",
        )
    )
)
"""What no agent says to a service; nor what begins with one of `_PREFIXES`."""
_PREFIXES: Final = (b"proxy-", b"x-forwarded-", b"agentvault-")
_UNHELD: Final = frozenset(
    (
        "user-agent",
        "prefer",
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "sentry-trace",
        "x-request-id",
        "x-correlation-id",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
    )
)
"""Headers that differ between two tries of a client: no part of what is approved."""
_UNHELD_PREFIXES: Final = ("accept", "x-b3-", "x-datadog-")
_CONTROLS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_WAIT: Final = re.compile(r"wait\s*=\s*\"?([0-9]{1,9})\"?")


@dataclass(slots=True)
class Incoming:
    """One request of an agent, as any face parsed it."""

    service: str
    method: str
    raw_target: bytes
    """Path and query at the service, as received."""
    headers: list[Header]
    """Names in lower case; hop-by-hop ones are still there."""
    receive: Callable[[], Awaitable[bytes]]
    """Returns the next piece of the body, empty at its end."""
    gone: asyncio.Future[None]
    """Done when the agent has left."""
    token_sha256: str | None = None
    """Of the agent's token, where the face has its own place for it."""
    source: str | None = None
    """The agent's address, if that is known."""


@dataclass(eq=False, slots=True)
class Relayed:
    """The service's answer on its way to the agent; to be closed."""

    call: Call
    """Its `Call.on_cut` takes what ends the agent's connection at once."""
    _answer: Answer
    _outgoing: Outgoing
    _body: Body
    _calls: Calls
    _pace: Callable[[], Awaitable[None]]
    """Waits for its turn between two pieces of a long answer."""
    _first: bytes | asyncio.Task[bytes] | None = None

    @property
    def status(self) -> int:
        """The service's."""
        return self._answer.status

    @property
    def headers(self) -> list[Header]:
        """The service's, with the decision's id."""
        head = self._answer.headers
        if self.status in {204, 304}:
            head = [pair for pair in head if pair[0] != b"content-length"]
        decided = (self.call.decision_id or "").encode()
        return [*head, (b"agentvault-decision", decided)]

    async def begin(self) -> None:
        """Have the first piece scanned before any byte of the answer leaves.

        Where a service that has sent its head takes its time, the head goes ahead.

        Raises:
            UpstreamError: see `Answer.read`.
            CallRefusedError: the call was cut.
        """
        if self._answer.has_arrived:
            self._first = await self._read()
        else:
            waits = self._first = asyncio.ensure_future(self._read())
            await asyncio.wait({waits}, timeout=_FIRST_SECONDS)
            if waits.done():
                self._first = waits.result()
        self.call.check()

    async def read(self) -> bytes:
        """Return the next piece; an empty one at the end, when the result is recorded.

        Raises:
            UpstreamError: see `Answer.read`.
            CallRefusedError: the call was cut.
        """
        first, self._first = self._first, None
        if first is None:
            return await self._read()
        return first if isinstance(first, bytes) else await first

    async def _read(self) -> bytes:
        call, answer = self.call, self._answer
        try:
            if call.bytes_in > _LARGE:
                await self._pace()
            call.check()
            piece = await answer.read()
            call.bytes_in = answer.bytes_in
            if piece:
                call.check()
        except BaseException as error:
            if isinstance(error, UpstreamError):
                call.problem = error.code
            self._end("failed")
            raise
        if not piece:
            self._end("done")
        return piece

    def close(self) -> None:
        """Let go of the service; what has not come to its end has failed."""
        if isinstance(self._first, asyncio.Task):
            self._first.cancel()
        self._end("failed")

    def _end(self, ended: str) -> None:
        """Record the result, once."""
        self.call.bytes_in = self._answer.bytes_in
        if not self.call.sent:
            self._outgoing.abort()
        self._answer.close()
        self._body.close()
        self._calls.end(self.call, ended)


class _Parsed(NamedTuple):
    """One request for a service, without the agent's token."""

    service: Service
    target: Target
    headers: list[Header]
    body: Body
    outgoing: list[tuple[str, str]]
    """The headers that go to the service, but for the credential."""


class Forwarder:
    """Sends agents' requests to services."""

    def __init__(
        self,
        calls: Calls,
        admission: Admission,
        services: Services,
        credentials: Credentials,
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Use these.

        Args:
            calls: records them, and cuts them.
            admission: decides about them.
            services: those in force.
            credentials: what is attached.
            upstream: returns how a service is reached, for one agent where its
                credential is that agent's own.
        """
        self._calls = calls
        self._room = BodyRoom()
        self._admission = admission
        self._services = services
        self._credentials = credentials
        self._upstream = upstream

    async def perform(self, incoming: Incoming) -> Relayed:
        """Take one request through its whole life, up to the answer's first byte.

        Returns:
            the service's answer; its result is recorded when it ends or is closed.

        Raises:
            CallRefusedError: what the agent is told instead.
            ClientGoneError: nobody waits for an answer.
        """
        service = self._services.get(incoming.service)
        credential = service.credential if service else None
        shown = take_token(incoming.headers, incoming.raw_target, credential)
        path, _, query = shown.raw_target.partition(b"?")
        body = Body(incoming.headers, incoming.receive, self._room)
        detail = _detail(incoming, path, query, body)
        caller = await self._admission.authenticate(
            shown.secret, detail, incoming.token_sha256, incoming.source
        )
        body.agent_id = caller.token.requester
        try:
            try:
                parsed = await self._parsed(service, shown, body, caller, detail)
                call = await self._read(incoming, parsed, caller, detail)
            except CallRefusedError:
                self._calls.observe(caller, "refused")
                raise
            await self._admission.admit(call)
            return await self._send(call, parsed)
        except BaseException:
            body.close()
            raise

    async def _parsed(
        self,
        service: Service | None,
        shown: Shown,
        body: Body,
        caller: Caller,
        detail: dict[str, object],
    ) -> _Parsed:
        if service is None:
            refusal = CallRefusedError(
                404, "unknown_service", "unknown_service", "there is no such service"
            )
            await self._admission.refuse(caller, refusal, _NOTHING, detail)
        try:
            target = parse_target(shown.raw_target)
        except BadPathError as error:
            refusal = CallRefusedError(400, "bad_path", "bad_path", error.what)
            await self._admission.refuse(caller, refusal, _NOTHING, detail)
        return _Parsed(service, target, shown.headers, body, [])

    async def _read(
        self,
        incoming: Incoming,
        parsed: _Parsed,
        caller: Caller,
        detail: dict[str, object],
    ) -> Call:
        """Find the route of a request, and read the action it is."""
        refuse = self._admission.refuse
        service, target, headers, body, outgoing = parsed
        found = match(service, incoming.method, target)
        if found is None:
            text = "no route of the service allows this"
            refusal = CallRefusedError(403, "access_denied", "no_route", text)
            await refuse(caller, refusal, _NOTHING, detail)
        about = Action((found.scope,), found.scope, found.resource)
        try:
            if (body.length or 0) > STREAM_CAP:
                raise too_large(STREAM_CAP)
            lines = _headers(headers, service.credential)
            outgoing.extend(_combined(lines))
            # Only what is sent counts: `Connection` may name a header that is dropped.
            sent = [(name.encode(), value.encode()) for name, value in lines]
            if found.reads_body(sent):
                await body.whole()
            elif found.overridable and not body.empty and may_hold_fields(sent):
                check_plain(sent)
                body.check = OverrideScan().check
            if body.known is not None:
                _known(detail, body.known)
            known = body.known
            action = await read_apart(
                len(known or b""), lambda: action_of(found, target, sent, known)
            )
        except UnreadableBodyError as error:
            code = "unreadable_body"
            refusal = CallRefusedError(400, code, code, error.what)
            await refuse(caller, refusal, about, detail)
        except CallRefusedError as refusal:
            await refuse(caller, refusal, about, detail)
        said = {name: value for name, value in headers if name in _OURS}
        url = f"{service.origin}{target.raw}"
        return Call(
            caller=caller,
            service=service.name,
            route=f"{found.route.method} {found.route.path}" if found.route else "*",
            method=incoming.method,
            path=target.raw_path,
            action=action,
            detail=detail,
            read=body.whole,
            describe=lambda content: _request(
                incoming.method, url, outgoing, content, service.sha256
            ),
            gone=incoming.gone,
            in_force=lambda: self._services.has(service),
            wait=preference(said.get(b"prefer")),
            retry=_text(said.get(b"agentvault-request")),
            audience=self._admission.audience(caller, f"/gw/{service.name}"),
        )

    async def _send(self, call: Call, parsed: _Parsed) -> Relayed:
        """Send a call whose attempt is recorded; record its result if that fails."""
        calls = self._calls
        service, target, _, body, _ = parsed
        failed: list[BaseException] = []
        answer: Answer | None = None
        try:
            attachment = await self._credentials.of(service, call.caller.agent)
            await calls.confirm()

            def attach(outgoing: Outgoing) -> None:
                calls.release(call)
                call.on_cut.append(outgoing.abort)
                attachment.attach(outgoing)
                call.sent = body.known is not None
                call.bytes_out = len(body.known or b"")

            outgoing = Outgoing(
                method=call.method,
                target=target.raw,
                headers=[*parsed.outgoing, ("accept-encoding", "identity")],
                body=None,
                length=len(body.known) if body.known else body.length,
                attach=attach,
                echo=Echo(attachment.needles),
            )
            outgoing.body = _stream(call, body, outgoing, failed, self._admission.pace)
            own = service.credential.kind == "connection"
            upstream = self._upstream(service, call.caller.agent.id if own else None)
            answer = await upstream.send(outgoing)
            await self._admission.step()
            call.status, call.state = answer.status, "streaming"
            pace = self._admission.pace
            relayed = Relayed(call, answer, outgoing, body, calls, pace)
            await relayed.begin()
        except BaseException as error:  # noqa: BLE001 - it is recorded and raised
            if answer is not None:
                answer.close()
            raise self._failed(call, failed[0] if failed else error) from None
        return relayed

    def _failed(self, call: Call, error: BaseException) -> BaseException:
        """Record that a call failed; return what its agent is told."""
        if call.cut is not None:
            error = call.cut
        if isinstance(error, UpstreamError):
            call.problem = error.code
            error = CallRefusedError(
                error.status,
                error.code,
                error.code,
                error.text,
                decision_id=call.decision_id,
            )
        elif isinstance(error, CallRefusedError):
            call.problem = error.reason
            error.decision_id = error.decision_id or call.decision_id
        self._calls.end(call, "failed")
        return error


_OURS: Final = frozenset((b"prefer", b"agentvault-request"))


def _detail(
    incoming: Incoming, path: bytes, query: bytes, body: Body
) -> dict[str, object]:
    """Return what the events of a call say of it, for the time being."""
    detail: dict[str, object] = {
        "service": incoming.service[:200],
        "method": incoming.method,
        "path": path.decode("latin-1"),
        "query": query.decode("latin-1") or None,
        "body_sha256": None,
        "body_bytes": None,
    }
    if body.empty:
        _known(detail, b"")
    return detail


def _known(detail: dict[str, object], content: bytes) -> None:
    detail["body_sha256"] = hashlib.sha256(content).hexdigest()
    detail["body_bytes"] = len(content)


async def _pieces_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _LARGE):
        yield content[start : start + _LARGE]


def _stream(
    call: Call,
    body: Body,
    outgoing: Outgoing,
    failed: list[BaseException],
    pace: Callable[[], Awaitable[None]],
) -> bytes | AsyncIterator[bytes] | None:
    """Return a call's body to be sent; what breaks a stream off goes to *failed*."""
    known = body.known
    if known is not None:
        if len(known) > _LARGE:
            return _pieces_of(known)
        return known or (b"" if body.length == 0 else None)

    async def streamed() -> AsyncIterator[bytes]:
        """Yield the body as it comes; know its digest at the end."""
        digest, loop = hashlib.sha256(), asyncio.get_running_loop()
        try:
            async for piece in body.pieces():
                call.check()
                digest.update(piece)
                call.bytes_out += len(piece)
                stalled = loop.call_later(_STALLED_SECONDS, outgoing.abort)
                yield piece
                stalled.cancel()
                await pace()
        except Exception as error:
            failed.append(error)
            raise
        call.sent = True
        call.detail["body_sha256"] = digest.hexdigest()
        call.detail["body_bytes"] = call.bytes_out

    return streamed()


def _headers(
    headers: list[Header], credential: UpstreamCredential
) -> list[tuple[str, str]]:
    """Return the end-to-end headers of an agent's request (RFC 9110 section 7.6.1).

    Raises:
        CallRefusedError: one of them is not text.
    """
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    dropped = _DROPPED | named
    place = credential.name.lower().encode() if credential.kind == "header" else b""
    found = []
    for name, value in headers:
        if name in dropped or name == place or name.startswith(_PREFIXES):
            continue
        if b"_" in name:
            continue  # CGI and WSGI take it for the header with dashes
        try:
            text = value.decode("utf-8").strip()
        except UnicodeDecodeError:
            text = "\0"
        if _CONTROLS.search(text):
            raise CallRefusedError(
                400, "invalid_request", "invalid_request", "a header is not text"
            )
        if name == b"prefer" and not (text := _without_ours(text)):
            continue
        found.append((name.decode("ascii"), text))
    return found


def _combined(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return one line a header (RFC 9110 section 5.3): as it is shown, it is sent."""
    found: dict[str, str] = {}
    for name, value in lines:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return list(found.items())


def _without_ours(prefer: str) -> str:
    """Return ``Prefer`` without what it says to us (RFC 7240 section 2)."""
    parts = [part.strip() for part in prefer.split(",")]
    ours = ("wait", "respond-async")
    return ", ".join(p for p in parts if not p.lower().startswith(ours))


def preference(prefer: bytes | None) -> float | None:
    """Return how long a held call waits (RFC 7240 sections 4.1 and 4.3)."""
    text = (prefer or b"").decode("latin-1").lower()
    if "respond-async" in text:
        return 0.0
    found = _WAIT.search(text)
    return float(found[1]) if found else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _request(
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    content: bytes,
    configuration: str,
) -> str:
    """Return what a person decides about, and nothing that a retry may change.

    With the SHA-256 of the service's file: an approval is for the credential and the
    certificate authorities that were in force, too.
    """
    named = {
        name: value
        for name, value in sorted(headers)
        if name not in _UNHELD and not name.startswith(_UNHELD_PREFIXES)
    }
    return to_json(
        {
            "method": method,
            "url": url,
            "headers": named,
            "body_sha256": hashlib.sha256(content).hexdigest(),
            "body_bytes": len(content),
            "configuration_sha256": configuration,
        }
    )
