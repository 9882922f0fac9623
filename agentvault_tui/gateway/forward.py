"""Requests to services: parsed once, decided, rebuilt, sent, and streamed back.

`Forwarder.perform` is one call, whichever face it came by.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, NoReturn

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.answer_urls import AnswerUrls
from agentvault_tui.gateway.body import STREAM_CAP, Body, BodyRoom, read_apart, weight
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.credentials import Credentials, Shown, take_token
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.referents import Referents
from agentvault_tui.gateway.refusals import (
    CallRefusedError,
    too_large,
    unreadable,
    wrong_method,
)
from agentvault_tui.gateway.request import (
    RequestHead,
    ServiceRequest,
    read_body,
    read_head,
)
from agentvault_tui.gateway.routes import unstated
from agentvault_tui.gateway.services import Service, Services
from agentvault_tui.gateway.spool import SpoolRoom
from agentvault_tui.gateway.target import LONGEST
from agentvault_tui.gateway.upstream import Answer, Outgoing, Upstream
from agentvault_tui.gateway.write_turns import READS
from agentvault_tui.model import Action, AgentId, TokenKind
from agentvault_tui.text import visible
from agentvault_tui.web.reply import Header
from agentvault_tui.web.service_connection import UpstreamError

_NOTHING: Final = Action((), "")
_SMALL: Final = 1_024
"""Bytes of a body that is read without a turn of its own."""
_LARGE: Final = 65_536
_STALLED_SECONDS: Final = 120.0
"""A service may take no byte of a body."""
_FIRST_SECONDS: Final = 0.1
"""Until the head of an answer goes ahead of its body."""
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
    own: frozenset[bytes] | None = None
    """The values of ``Host`` by which the broker is reached, where the agent asks at
    ``/gw/``; None where it asks at the service's own URL."""
    leads_away: Callable[[str, int], bool] = lambda *_: False
    """See `AnswerUrls.check_redirect`, where it asks at the service's own URL."""


@dataclass(eq=False, slots=True)
class Relayed:
    """The service's answer on its way to the agent; to be closed."""

    call: Call
    """Its `Call.on_cut` takes the function that ends the agent's connection at once."""
    _answer: Answer
    _outgoing: Outgoing
    _body: Body
    _over: Callable[[Call, str], None]
    """Records how the call ended."""
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
        headers = [*head, (b"agentvault-decision", decided)]
        if dropped := self.call.detail.get("dropped"):
            headers.append((b"agentvault-dropped", ", ".join(dropped).encode()))
        return headers

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
        """Release the service; an unfinished answer has failed."""
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
        self._over(self.call, ended)


class _AgentRequest(NamedTuple):
    """One request of an authenticated agent, and the members of its ledger rows."""

    incoming: Incoming
    caller: Caller
    body: Body
    detail: dict[str, object]


class _Parsed(NamedTuple):
    """One request to a service, and the body as the agent sends it."""

    request: ServiceRequest
    body: Body
    own: frozenset[bytes] | None
    """See `Incoming.own`."""
    leads_away: Callable[[str, int], bool]


class Forwarder:
    """Sends agents' requests to services."""

    def __init__(
        self,
        calls: Calls,
        admission: Admission,
        services: Services,
        credentials: Credentials,
        *,
        upstream: Callable[[Service, AgentId | None], Upstream],
        spools: SpoolRoom,
    ) -> None:
        """Use these.

        Args:
            calls: records them, and cuts them.
            admission: decides about them.
            services: those in effect.
            credentials: the source of attachments.
            upstream: returns how a service is reached, for one agent where its
                credential is that agent's own.
            spools: holds opaque bodies that a person decides about.
        """
        self._calls = calls
        self._spools = spools
        self._room = BodyRoom()
        self._admission = admission
        self._services = services
        self._credentials = credentials
        self._upstream = upstream
        self._referents = Referents(calls, credentials, upstream)

    async def perform(self, incoming: Incoming) -> Relayed:
        """Take one request through its whole life, up to the answer's first byte.

        Returns:
            the service's answer; its result is recorded when it ends or is closed.

        Raises:
            CallRefusedError: the answer to the agent instead.
            ClientGoneError: the caller has left.
        """
        if incoming.method in {"TRACE", "CONNECT"}:
            raise wrong_method()
        service = self._services.get(incoming.service)
        credential = service.credential if service else None
        shown = take_token(incoming.headers, incoming.raw_target, credential)
        pace = self._admission.pace
        body = Body(incoming.headers, incoming.receive, self._room, pace)
        detail = _detail(incoming, shown.raw_target)
        caller = await self._admission.authenticate(
            shown.secret, detail, incoming.token_sha256, incoming.source
        )
        body.agent_id = caller.token.requester
        body.check = lambda: self._admission.check_live(caller)
        try:
            try:
                request = _AgentRequest(incoming, caller, body, detail)
                head = await self._head(service, shown, request)
                call, parsed = await self._read(head, request)
            except CallRefusedError:
                self._calls.observe(caller, "refused")
                raise
            try:
                await self._admission.admit(call)
                return await self._send(call, parsed)
            except BaseException:
                self._referents.turns.leave(call.id)
                raise
        except BaseException:
            body.close()
            raise

    async def _head(
        self, service: Service | None, shown: Shown, request: _AgentRequest
    ) -> RequestHead:
        """Read all of a request but its body, once.

        Raises:
            CallRefusedError: it is ambiguous, or no route takes it; recorded.
        """
        if service is None:
            refusal = CallRefusedError(
                404, "unknown_service", "unknown_service", "there is no such service"
            )
            await self._refuse(request, refusal, _NOTHING)
        try:
            return read_head(
                service,
                request.incoming.method,
                shown.raw_target,
                shown.headers,
                has_body=await request.body.begins(),
            )
        except UnreadableRequestError as error:
            request.detail.update(_unlisted(error, shown.headers))
            await self._refuse(request, unreadable(error), _NOTHING)

    async def _refuse(
        self, request: _AgentRequest, refusal: CallRefusedError, about: Action
    ) -> NoReturn:
        await self._admission.refuse(request.caller, refusal, about, request.detail)

    async def _read(
        self, head: RequestHead, wanted: _AgentRequest
    ) -> tuple[Call, _Parsed]:
        """Read the body of a request, and build its call."""
        incoming, caller, body, detail = wanted
        try:
            raw = b""
            if head.kind == "opaque":
                if (body.length or 0) > STREAM_CAP:
                    raise too_large(STREAM_CAP)
            elif head.kind != "none":
                raw = await body.whole(head.rule.max_bytes)
            elevated = caller.token.kind is TokenKind.ELEVATED
            job, user = head.job(elevated=elevated), caller.token.requester
            if len(raw) > _SMALL:
                await self._admission.step()
            reading = await read_apart(user, weight(raw), read_body, job, raw)
        except UnreadableRequestError as error:
            await self._refuse(wanted, unreadable(error), head.about)
        except CallRefusedError as refusal:
            await self._refuse(wanted, refusal, head.about)
        head = head.read_as(reading.case)
        content, route = reading.content, head.match.route
        request = ServiceRequest.of(head, content, user)
        detail.update(request.detail())
        if content.encoded is not None:
            detail["body_sha256"] = content.sha256
            detail["body_bytes"] = len(content.encoded)
        ours = {name: value for name, value in incoming.headers if name in _OURS}
        parsed = _Parsed(request, body, incoming.own, incoming.leads_away)
        action, *others = head.actions(reading)
        call = Call(
            caller=caller,
            service=head.service.name,
            route=f"{route.method} {route.path}" if route else "*",
            method=incoming.method,
            path=head.target.encoded_path,
            action=action,
            others=tuple(others),
            detail=detail,
            read=lambda: self._shown(parsed, detail),
            describe=lambda _: request.described(
                detail["body_sha256"],
                detail["body_bytes"],
                call.bound.references if call.bound else (),
            ),
            gone=incoming.gone,
            in_force=lambda: self._services.has(head.service),
            wait=preference(ours.get(b"prefer")),
            retry=_text(ours.get(b"agentvault-request")),
            audience=self._admission.audience(caller, f"/gw/{head.service.name}"),
            unsaid=(*unstated(head.match), *reading.unsaid) if elevated else (),
            meant=route,
        )
        try:
            if route is not None and route.binds:
                call.bound = self._referents.of(call, request, reading.bound_ids)
        except UnreadableRequestError as error:
            await self._refuse(wanted, unreadable(error), head.about)
        return call, parsed

    async def _shown(self, parsed: _Parsed, detail: dict[str, object]) -> bytes | None:
        """Return the content that a person decides about; None of an opaque body.

        An opaque body is spooled, so that its size and digest are known and it cannot
        change while the person decides.

        Raises:
            CallRefusedError: 413 or 503; see `SpoolRoom.spool`.
        """
        content, body = parsed.request.content.encoded, parsed.body
        if content is None and body.spool is None:
            await self._spool(body, detail)
        return content

    async def _spool(self, body: Body, detail: dict[str, object]) -> None:
        """Write an opaque body to disk, and note its size and digest.

        Raises:
            CallRefusedError: 413 or 503; see `SpoolRoom.spool`.
        """
        agent_id = body.agent_id or ""
        body.spool = await self._spools.spool(agent_id, body.checked(), body.length)
        detail["body_sha256"] = body.spool.sha256
        detail["body_bytes"] = body.spool.size

    async def _send(self, call: Call, parsed: _Parsed) -> Relayed:
        """Send a call whose attempt is recorded; record its result if that fails."""
        calls = self._calls
        request, body = parsed.request, parsed.body
        service = request.head.service
        encoded, kind = request.content.encoded, request.content.kind
        failed: list[BaseException] = []
        answer: Answer | None = None
        try:
            if encoded is None and body.size is None and not request.is_drained:
                # A service that reads no chunks would store an empty body.
                await self._spool(body, call.detail)
                call.check()
            await self._referents.write(call, request)
            attachment = await self._credentials.of(service, call.caller.agent)
            await calls.confirm()

            def attach(outgoing: Outgoing) -> None:
                calls.release(call)
                call.on_cut.append(partial(_abort, call, outgoing))
                attachment.attach(outgoing)
                call.sent = encoded is not None
                call.bytes_out = len(encoded or b"")

            outgoing = Outgoing(
                method=call.method,
                target=request.head.target.encoded,
                headers=request.lines(),
                body=None,
                length=body.size if encoded is None else len(encoded),
                attach=attach,
                echo=Echo(attachment.needles),
                agent_id=call.caller.agent.id,
                # A service may take a body that it leaves unread for the next request.
                reuse=kind == "none" or request.is_drained,
            )
            pace = self._admission.pace
            if encoded is None:
                outgoing.body = _stream(call, body, outgoing, failed, pace)
            elif encoded:
                large = len(encoded) > _LARGE
                outgoing.body = _pieces_of(encoded) if large else encoded
            own = service.credential.kind == "connection"
            upstream = self._upstream(service, call.caller.agent.id if own else None)
            answer = await upstream.send(outgoing)
            urls = AnswerUrls(service, outgoing.target, parsed.own)
            answer.headers = urls.rewrite(answer.headers)
            if parsed.own is None:
                away, reads = parsed.leads_away, call.method in READS
                urls.check_redirect(answer.status, answer.headers, away, reads=reads)
            await self._admission.step()
            call.status, call.state = answer.status, "streaming"
            relayed = Relayed(call, answer, outgoing, body, self._over, pace)
            await relayed.begin()
        except BaseException as error:  # noqa: BLE001 - it is recorded and raised
            if answer is not None:
                answer.close()
            raise self._failed(call, failed[0] if failed else error) from None
        return relayed

    def _over(self, call: Call, ended: str) -> None:
        """Record the result of a call, and let writes that waited for it go on."""
        self._calls.end(call, ended)
        self._referents.turns.leave(call.id)

    def _failed(self, call: Call, error: BaseException) -> BaseException:
        """Record that a call failed; return the answer to its agent."""
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


def _detail(incoming: Incoming, raw_target: bytes) -> dict[str, object]:
    """Return the members of a request's ledger rows before it is parsed."""
    path, _, query = raw_target[:LONGEST].decode("latin-1").partition("?")
    return {
        "service": incoming.service[:200],
        "method": incoming.method,
        "path": path,
        "query": query or None,
        "body_sha256": None,
        "body_bytes": None,
    }


def _unlisted(error: UnreadableRequestError, headers: list[Header]) -> dict[str, str]:
    """Return a row's member for a header or media type that no file lists."""
    if name := error.more.get("header"):
        return {"header": visible(str(name), 64)}
    named = dict(headers)
    plain = named.get(b"content-encoding", b"identity").strip().lower() == b"identity"
    if error.code == "unsupported_body" and plain:
        return {
            "media_type": visible(
                named.get(b"content-type", b"").decode("latin-1"), 200
            )
        }
    return {}


async def _pieces_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _LARGE):
        yield content[start : start + _LARGE]


async def _stream(
    call: Call,
    body: Body,
    outgoing: Outgoing,
    failed: list[BaseException],
    pace: Callable[[], Awaitable[None]],
) -> AsyncIterator[bytes]:
    """Yield an opaque body as it comes; note the digest of the sent part.

    Args:
        call: the call that it belongs to.
        body: as the agent sends it.
        outgoing: aborted if the service takes no byte for too long.
        failed: receives the error that ends the stream early.
        pace: waits for a turn between two pieces.
    """
    digest, loop = hashlib.sha256(), asyncio.get_running_loop()
    try:
        async for piece in (body.spool or body).pieces():
            if call.bytes_out:  # not behind the last piece: then all of it is sent
                await pace()
            call.check()
            digest.update(piece)
            call.bytes_out += len(piece)
            # At each piece: the service may answer, or the agent leave, before the end.
            call.detail["body_sha256"] = digest.hexdigest()
            call.detail["body_bytes"] = call.bytes_out
            stalled = loop.call_later(_STALLED_SECONDS, outgoing.abort)
            yield piece
            stalled.cancel()
    except Exception as error:
        failed.append(error)
        raise
    call.sent = True


def _abort(call: Call, outgoing: Outgoing) -> None:
    """Close a call's connection, and note how much of its request had left."""
    if unsent := outgoing.unsent_bytes:
        call.sent, call.bytes_out = False, max(call.bytes_out - unsent, 0)
    outgoing.abort()


def preference(prefer: bytes | None) -> float | None:
    """Return how long a held call waits (RFC 7240 sections 4.1 and 4.3)."""
    text = (prefer or b"").decode("latin-1").lower()
    if "respond-async" in text:
        return 0.0
    match = _WAIT.search(text)
    return float(match[1]) if match else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
