"""MCP servers reached by URL, over MCP's Streamable HTTP, with their credential."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

from msgspec import Raw

from agentvault_tui.gateway.credentials import Attachment
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.mcp.errors import SessionGoneError, too_long
from agentvault_tui.gateway.mcp.messages import (
    MODERN,
    Envelope,
    Message,
    member_of,
    one_line,
    read_envelope,
    reply_to_server,
)
from agentvault_tui.gateway.mcp.pending import Progress
from agentvault_tui.gateway.mcp.tool_schemas import ToolSchema
from agentvault_tui.gateway.upstream import Answer, Outgoing, Upstream
from agentvault_tui.model import AgentId
from agentvault_tui.web.reply import encode_header
from agentvault_tui.web.service_connection import UpstreamError

Pace = Callable[[], Awaitable[None]]
"""Waits for a turn in which no other stream's events are read."""
_PIECE: Final = 65_536
_TURN_S: Final = 0.001
"""Seconds of one turn of the event loop for the events of a stream."""
_USED: Final = frozenset({"method", "result", "error"})
_MOST_REPLIES: Final = 100
"""Requests of a server that are answered while it works on one message."""
_MOST_USELESS: Final = 10_000
"""Events of a stream that are no message, and comments against time limits."""


@dataclass(slots=True)
class Posted:
    """One message of a client on its way to a server."""

    target: str
    """The URL's path and query."""
    body: bytes
    headers: list[tuple[str, str]]
    attachment: Attachment
    release: Callable[[], None]
    """Raises where it must not go out; called right before its first byte does."""
    sent: Callable[[], None]
    """Called when all of it has gone out."""
    cutters: list[Callable[[], None]]
    """Gets the function that ends it at once."""
    agent_id: AgentId
    """The agent that sends it."""
    reuse: bool
    """Whether the server reads its body to the end."""
    server: str
    """Its name."""
    max_answer: int
    """Bytes that one message of the server may have."""
    id: int | None
    """The message's id, as it is sent; a notification has none."""

    @property
    def may_reply(self) -> bool:
        """Whether the server may ask before it answers: in the eras of sessions."""
        return ("MCP-Protocol-Version", MODERN) not in self.headers


@dataclass(slots=True)
class ServerReply:
    """A server's answer."""

    envelope: Envelope | None
    """None for a notification, which has no answer."""
    status: int
    session: str | None
    """The session it began, as it calls it."""
    bytes_in: int


@dataclass(slots=True)
class ServerEvents:
    """Callbacks for messages that a server sends before its answer."""

    progress: Progress
    list_changed: Callable[[], None]
    """Called when its list of tools has changed."""
    replied: Callable[[], None]
    """Called when a request of the server was answered."""


def headers_to_server(
    message: Message, version: str, schema: ToolSchema | None, session: str | None
) -> list[tuple[str, str]]:
    """Return the headers of a message to a server, all written from the message.

    Args:
        message: the client's.
        version: of MCP, as was agreed.
        schema: of the tool that it calls; names the arguments that headers repeat.
        session: the server's own name of the session, in an era that has them.
    """
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("Accept-Encoding", "identity"),
    ]
    if version == MODERN:
        headers += [("MCP-Protocol-Version", MODERN), ("Mcp-Method", message.method)]
        if message.named is not None:
            headers.append(("Mcp-Name", encode_header(message.named)))
        if schema is not None:
            headers += schema.headers_for(message.arguments)
    elif message.method != "initialize":
        headers.append(("MCP-Protocol-Version", version))
    if session is not None:
        headers.append(("Mcp-Session-Id", session))
    return headers


async def post(upstream: Upstream, posted: Posted, events: ServerEvents) -> ServerReply:
    """Send a message, once, and return the answer.

    Args:
        upstream: how the server is reached.
        posted: the message.
        events: takes the messages before the answer.

    Raises:
        UpstreamError: there is no answer, or none that is MCP's.
        SessionGoneError: the server has ended the session.
    """
    answer = await _send(upstream, posted)
    try:
        return await _read(answer, events, posted, upstream)
    finally:
        answer.close()


async def _send(upstream: Upstream, posted: Posted) -> Answer:
    def attach(outgoing: Outgoing) -> None:
        posted.release()
        posted.cutters.append(outgoing.abort)
        posted.attachment.attach(outgoing)

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(posted.body), _PIECE):
            yield posted.body[first : first + _PIECE]
        posted.sent()

    return await upstream.send(
        Outgoing(
            method="POST",
            target=posted.target,
            headers=list(posted.headers),
            body=pieces(),
            length=len(posted.body),
            attach=attach,
            echo=Echo(posted.attachment.needles),
            agent_id=posted.agent_id,
            reuse=posted.reuse,
        )
    )


async def _reply(
    upstream: Upstream, posted: Posted, events: ServerEvents, text: bytes
) -> None:
    """Send a reply to a server's request, with the headers of the message before it."""
    reply = replace(posted, body=text, sent=events.replied, id=None)
    with suppress(UpstreamError):  # then the server waits, as for any client
        (await _send(upstream, reply)).close()


def _has_session(posted: Posted) -> bool:
    return any(name == "Mcp-Session-Id" for name, _ in posted.headers)


async def _read(
    answer: Answer, events: ServerEvents, posted: Posted, upstream: Upstream
) -> ServerReply:
    headers = dict(answer.headers)
    session = headers.get(b"mcp-session-id")
    name = session.decode("latin-1") if session else None
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if answer.status in {202, 204}:
        return ServerReply(None, answer.status, name, answer.bytes_in)
    if answer.status == 404 and _has_session(posted):
        raise SessionGoneError
    if answer.status in {401, 403}:
        raise UpstreamError(
            502,
            "upstream_unreachable",
            "the server does not accept the gateway's credential: an operator has to"
            " look",
        )
    envelope = await _answered(answer, kind, events, posted, upstream)
    if envelope is None:
        raise _rubbish(answer.status)
    return ServerReply(envelope, answer.status, name, answer.bytes_in)


async def _answered(
    answer: Answer,
    kind: bytes,
    events: ServerEvents,
    posted: Posted,
    upstream: Upstream,
) -> Envelope | None:
    """Return the message that answers, of a stream or of a body of JSON."""
    replies = 0
    if kind == b"text/event-stream":
        async with aclosing(_events(answer, posted, upstream.pace)) as messages:
            async for one in messages:
                if _answers(one, posted):
                    return one
                text = _note(one, events)
                if text and posted.may_reply and replies < _MOST_REPLIES:
                    replies += 1
                    await _reply(upstream, posted, events, text)
        return None
    if kind != b"application/json":
        return None
    whole = bytearray()
    async for chunk in answer.chunks():
        whole += chunk
        if len(whole) > posted.max_answer:
            raise _too_long(answer.status, posted)
    envelope = _message(bytes(whole))
    return envelope if envelope and _answers(envelope, posted) else None


def _note(message: Envelope, events: ServerEvents) -> bytes | None:
    """Handle a message before the answer; return the reply to one that is a request."""
    method = member_of(message, "method", str)
    if method is not None and "id" in message:
        return reply_to_server(message, method)
    if method == "notifications/progress":
        events.progress(message.get("params", Raw(b"{}")))
    elif method == "notifications/tools/list_changed":
        events.list_changed()
    return None


def _answers(envelope: Envelope, posted: Posted) -> bool:
    """Check whether a message answers the one that was sent (JSON-RPC 2.0 section 5).

    An error has no id if the server could not read that of the request.
    """
    if "result" not in envelope and "error" not in envelope:
        return False
    if "error" in envelope and envelope.get("id", Raw(b"null")) == Raw(b"null"):
        return True
    return "id" in envelope and member_of(envelope, "id", int) == posted.id


async def _events(
    answer: Answer, posted: Posted, pace: Pace
) -> AsyncGenerator[Envelope, None]:
    """Yield the messages of a stream of server-sent events (HTML, section 9.2)."""
    left, data, useless = b"", bytearray(), 0
    began = perf_counter()

    def lines(text: bytes) -> list[bytes]:
        nonlocal left
        # A carriage return at its end may be the first half of a line's end.
        held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = text.split(b"\n")
        left = rest + held
        return whole

    async for chunk in _with_end(answer.chunks()):
        if len(left) + len(chunk) + len(data) > posted.max_answer:
            raise _too_long(answer.status, posted)
        for line in lines(left + chunk):
            if perf_counter() - began > _TURN_S:
                await pace()
                began = perf_counter()
            if line.startswith(b"data:"):
                data += line.removeprefix(b"data:").removeprefix(b" ") + b"\n"
            elif not line:
                one = _message(bytes(data))
                useless += one is None or one.keys().isdisjoint(_USED)
                if one is not None:
                    yield one
                data = bytearray()
            useless += line.startswith(b":")
            if useless > _MOST_USELESS:
                raise _rubbish(answer.status)


async def _with_end(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
    yield b"\n"


def _message(text: bytes) -> Envelope | None:
    if not text.lstrip().startswith(b"{"):
        return None
    try:
        return read_envelope(one_line(text.strip()))
    except ValueError:
        return None


def _too_long(status: int, posted: Posted) -> UpstreamError:
    if status >= 300:
        return _rubbish(status)
    return too_long(posted.server, posted.max_answer)


def _rubbish(status: int) -> UpstreamError:
    text = f"the server answered {status} and no message of MCP"
    return UpstreamError(502, "upstream_reset", text)
