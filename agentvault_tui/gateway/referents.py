"""Fetch the documents that a held call names, for the person who decides about it.

Each fetch is a request of the gateway, built like an agent's: a path of the service's
file, with the service's credential, on the agent's own connection. The agent never sees
the document.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from agentvault_tui.gateway.bindings import Binding, selected
from agentvault_tui.gateway.body import read_apart
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.content import NOTHING, ContentRule
from agentvault_tui.gateway.credentials import Credentials
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.headers import RequestHeaders
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.refusals import CallRefusedError, referent_unreadable
from agentvault_tui.gateway.request import RequestHead, ServiceRequest
from agentvault_tui.gateway.routes import RouteMatch
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.upstream import Answer, Outgoing, Upstream
from agentvault_tui.gateway.write_turns import READS, WriteTurns
from agentvault_tui.model import AgentId
from agentvault_tui.web.service_connection import UpstreamError

LARGEST: Final = 256 * 1024
"""Bytes of a document."""
_WHOLE_S: Final = 30.0
"""Seconds for a document from its request to its last byte."""
_ACCEPT: Final = ("accept", "application/json, */*;q=0.5")


class Referent(NamedTuple):
    """A document that a held call names, as it was when it was fetched."""

    url: str
    content: bytes
    """The members that count as one JSON object, or the whole document."""
    kind: Literal["json", "opaque"]
    type: str | None
    """The media type of an opaque one."""

    def described(self) -> dict[str, object]:
        """Return how the request of a step-up names it, under the digest."""
        return {
            "url": self.url,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "bytes": len(self.content),
            "kind": self.kind,
            "type": self.type,
        }


@dataclass(slots=True)
class _Bound:
    """One document of one call: its request, and the members that count."""

    request: ServiceRequest
    binding: Binding


class Referents:
    """Fetches documents, and lets no other write below them out meanwhile."""

    def __init__(
        self,
        calls: Calls,
        credentials: Credentials,
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Fetch nothing yet; see `forward.Forwarder`."""
        self._calls = calls
        self._credentials = credentials
        self._upstream = upstream
        self.turns = WriteTurns()

    def of(
        self, call: Call, request: ServiceRequest, ids: Sequence[str | None]
    ) -> BoundDocuments:
        """Return the documents that a call names.

        Args:
            call: the call.
            request: the request.
            ids: the values that name the documents; see `parameters.bound_ids`.

        Raises:
            UnreadableRequestError: one of them names no document.
        """
        head = request.head
        bound = [
            _Bound(_request(head, binding, id_), binding)
            for binding, id_ in zip(head.route.binds, ids, strict=True)
        ]
        return BoundDocuments(self, call, request, bound)

    async def write(self, call: Call, request: ServiceRequest) -> None:
        """Wait until a call's write may leave; see `WriteTurns.enter`."""
        head = request.head
        if head.method in READS:
            return
        cancelled = asyncio.get_running_loop().create_future()
        call.on_cut.append(lambda: cancelled.set_result(None))
        await self.turns.enter(
            call.id, head.service.origin, head.target, ended=cancelled
        )
        call.check()

    async def fetch(self, parent: Call, bound: _Bound, stepup_id: str) -> Referent:
        """Fetch one document, once.

        Args:
            parent: the call that names it.
            bound: the document.
            stepup_id: of the approval; the rows name it.

        Raises:
            CallRefusedError: 403 ``referent_unreadable``; its agent was cut off.
        """
        request = bound.request
        detail = {
            "service": parent.service,
            **request.detail(),
            "body_sha256": None,
            "body_bytes": 0,
            "for": stepup_id,
        }

        async def nothing() -> bytes:
            return b""

        call = Call(
            caller=parent.caller,
            service=parent.service,
            route=parent.route,
            method="GET",
            path=request.head.target.encoded_path,
            action=parent.action,
            detail=detail,
            read=nothing,
            describe=lambda _: request.described(None, 0),
            gone=parent.gone,
            in_force=parent.in_force,
        )
        await self._calls.begin_apart(call, "referent")
        try:
            async with asyncio.timeout(_WHOLE_S):
                document = await self._fetched(call, bound)
        except BaseException as error:  # noqa: BLE001 - it is recorded and raised
            raise self._failed(call, request.url, error) from None
        self._calls.end(call, "done")
        return document

    async def _fetched(self, call: Call, bound: _Bound) -> Referent:
        calls, service = self._calls, bound.request.head.service
        attachment = await self._credentials.of(service, call.caller.agent)
        await calls.confirm()

        def attach(outgoing: Outgoing) -> None:
            calls.release(call)
            call.on_cut.append(outgoing.abort)
            attachment.attach(outgoing)
            call.sent = True

        outgoing = Outgoing(
            method="GET",
            target=bound.request.head.target.encoded,
            headers=bound.request.lines(),
            body=None,
            length=0,
            attach=attach,
            echo=Echo(attachment.needles),
            agent_id=call.caller.agent.id,
        )
        own = service.credential.kind == "connection"
        agent_id = call.caller.agent.id
        upstream = self._upstream(service, agent_id if own else None)
        answer = await upstream.send(outgoing)
        try:
            call.status, call.state = answer.status, "streaming"
            content = await _content(call, answer)
        finally:
            answer.close()
        call.check()
        media = _media_type(answer)
        try:
            members = bound.binding.members
            user = call.caller.token.requester
            part = await read_apart(user, len(content), selected, content, members)
        except ValueError:
            raise _UnreadableError("is not JSON with the members that count") from None
        url = bound.request.url
        if part.is_json:
            return Referent(url, part.content, "json", None)
        return Referent(url, part.content, "opaque", media)

    def _failed(self, call: Call, url: str, error: BaseException) -> BaseException:
        """Record that a fetch failed; return the error for the call it was for."""
        refusal: BaseException = error
        if isinstance(error, UpstreamError):
            call.problem = error.code
            refusal = referent_unreadable(url, "could not be fetched")
        elif isinstance(error, TimeoutError):
            call.problem = "upstream_timeout"
            refusal = referent_unreadable(url, "took too long")
        elif isinstance(error, _UnreadableError):
            call.problem = "referent_unreadable"
            refusal = referent_unreadable(url, str(error))
        elif isinstance(error, CallRefusedError):
            call.problem = error.reason
        if call.cut is not None:
            refusal = call.cut
        self._calls.end(call, "failed")
        return refusal


class BoundDocuments:
    """The documents that one call names."""

    def __init__(
        self,
        referents: Referents,
        call: Call,
        request: ServiceRequest,
        bound: Sequence[_Bound],
    ) -> None:
        self._referents, self._call = referents, call
        self._request, self._bound = request, bound
        self.references: list[dict[str, object]] = []
        self.contents: tuple[bytes, ...] = ()

    async def fetch(self, stepup_id: str) -> None:
        """Fetch all of them; see `call.NamedDocuments`."""
        documents = [
            await self._referents.fetch(self._call, one, stepup_id)
            for one in self._bound
        ]
        self.references = [one.described() for one in documents]
        self.contents = tuple(one.content for one in documents)

    async def hold(self) -> None:
        """Let no other write below them out; see `call.NamedDocuments`."""
        head = self._request.head
        guarded = [one.request.head.target for one in self._bound]
        written = None if head.method in READS else head.target
        turns = self._referents.turns
        await turns.enter(self._call.id, head.service.origin, written, guarded)


class _UnreadableError(Exception):
    """A document that cannot be shown; says why."""


def _request(head: RequestHead, binding: Binding, id_: str | None) -> ServiceRequest:
    """Return the request for a document.

    The headers that the service's file lists go with it, such as a version or an
    account: they are under the digest of the call. None that makes it conditional.
    """
    listed = head.route.listed
    carried = tuple(
        pair
        for pair in head.headers.leaving
        if pair[0] in listed and not pair[0].startswith(("if-", "range", "prefer"))
    )
    sent = RequestHeaders((_ACCEPT, *(one for one in carried if one[0] != "accept")))
    service, target = head.service, binding.resolve(head.match.captures, id_)
    about = RouteMatch(None, head.match.scope, head.match.resource, {})
    rule = ContentRule("none")
    return ServiceRequest(
        RequestHead(service, "GET", target, about, sent, rule, "none", None, None),
        NOTHING,
    )


async def _content(call: Call, answer: Answer) -> bytes:
    """Return the whole body of an answer that is a document.

    Raises:
        _UnreadableError: it is none, or is larger than people are shown.
    """
    named = dict(answer.headers)
    if answer.status != 200:
        # The status is in the row: an agent may lack the scope to ask for it.
        raise _UnreadableError("could not be fetched")
    coding = named.get(b"content-encoding", b"identity").strip().lower()
    if coding not in {b"", b"identity"}:
        raise _UnreadableError("is compressed")
    content = bytearray()
    async for piece in answer.chunks():
        content += piece
        call.bytes_in = answer.bytes_in
        call.check()
        if len(content) > LARGEST:
            raise _UnreadableError(f"has more than {LARGEST} bytes")
    return bytes(content)


def _media_type(answer: Answer) -> str | None:
    text = dict(answer.headers).get(b"content-type", b"").decode("latin-1")
    media = MediaType.parse(text)
    return None if media is None else media.type
