"""The answer to one message: JSON, or a stream of events while something waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.mcp.errors import CANCELLED, McpError
from agentvault_tui.gateway.mcp.messages import Envelope, Message, failed
from agentvault_tui.gateway.mcp.results import held_note
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.web.exchange import ClientGoneError, Exchange
from agentvault_tui.web.reply import NO_STORE, Header, Send

_T = TypeVar("_T")
_SOON: Final = 0.2
"""Seconds after which a client hears that its call is held."""
_DECIDING: Final = 1.0
"""Seconds between two looks at whether a call is held by now."""
_HELD_EVERY: Final = 5.0
"""Seconds between two words about a held call: below every client's limit."""
_ALIVE_EVERY: Final = 15.0
"""Seconds between two comments while a server works."""
_MOST_NOTES: Final = 64


class AnswerWriter:
    """Writes one answer; a client that takes streams hears of progress before it."""

    def __init__(self, exchange: Exchange, send: Send, headers: list[Header]) -> None:
        """Write nothing yet.

        Args:
            exchange: the request that is answered.
            send: where to.
            headers: the request's; one of them names the types that the client takes.
        """
        self.exchange = exchange
        self.notes: asyncio.Queue[Envelope] = asyncio.Queue(_MOST_NOTES)
        """Notifications for the client; further ones are dropped while it is full."""
        self.extra: tuple[Header, ...] = ()
        """Headers of the answer."""
        self.message: Message | None = None
        """The answer's id, once the request is read."""
        accept = b",".join(value for name, value in headers if name == b"accept")
        self._streams = b"text/event-stream" in accept or b"*/*" in accept
        self._started = False
        self._send = send
        self._notices = 0

    async def attend(
        self, work: Awaitable[_T], gone: asyncio.Future[None], call: Call | None
    ) -> _T:
        """Wait for *work*; meanwhile pass notifications on, and hold the connection.

        Args:
            work: the awaitable; cancelled when the client leaves.
            gone: done when it has left.
            call: reported while it is held.

        Raises:
            ClientGoneError: the client left.
        """
        task = asyncio.ensure_future(work)
        timeout = _SOON if call is not None else _ALIVE_EVERY
        if call is not None:
            call.on_cut.append(self._close)
        try:
            while True:
                note = asyncio.ensure_future(self.notes.get())
                awaited: set[asyncio.Future[Any]] = {task, note, gone}
                done, _ = await asyncio.wait(
                    awaited,
                    timeout=timeout,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                note.cancel()
                if note in done:
                    await self._event(note.result())
                if task in done:
                    while not self.notes.empty():
                        await self._event(self.notes.get_nowait())
                    if task.cancelled():
                        raise McpError(CANCELLED, "the client cancelled this request")
                    return task.result()
                if gone in done:
                    raise ClientGoneError
                if not done:
                    timeout = await self._keep(call, timeout)
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    def _close(self) -> None:
        """Let nothing more of a call reach its client, at once."""
        if self._started:
            self.exchange.abort()

    async def _keep(self, call: Call | None, waited: float) -> float:
        """Show the client that its request is alive; return the next time."""
        if call is not None and call.state == "held":
            self._notices += 1
            token = self.message.progress_token if self.message else None
            if token is None:
                await self._comment()
            else:
                await self._event(held_note(token, self._notices, call.stepup_id or ""))
            return _HELD_EVERY
        if call is not None and not call.sent:
            return _DECIDING
        if waited == _ALIVE_EVERY:
            await self._comment()
        return _ALIVE_EVERY

    async def _begin(self) -> bool:
        """Begin a stream; return whether there is one."""
        if not self._streams:
            return False
        if not self._started:
            self._started = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream"),
                        NO_STORE,
                        (b"x-accel-buffering", b"no"),
                        *self.extra,
                    ],
                }
            )
        return True

    async def _comment(self) -> None:
        if await self._begin():
            await self._piece(b": waiting\n\n")

    async def _event(self, envelope: Envelope) -> None:
        if await self._begin():
            data = msgspec.json.encode(envelope)
            await self._piece(b"event: message\ndata: %b\n\n" % data)

    async def _piece(self, body: bytes, *, more: bool = True) -> None:
        await self._send(
            {"type": "http.response.body", "body": body, "more_body": more}
        )

    async def finish(self, envelope: Envelope, status: int = 200) -> None:
        """Write the answer itself.

        Args:
            envelope: a message of JSON-RPC.
            status: of HTTP, where no stream has begun.
        """
        if self._started:
            await self._event(envelope)
            await self._piece(b"", more=False)
            return
        body = msgspec.json.encode(envelope)
        await self._whole(status, body, (b"content-type", b"application/json"))

    async def fail(self, error: McpError) -> None:
        """Write an error as the answer.

        A refused notification is 400, and its error has no id (2026-07-28, transports).
        """
        message = self.message
        id_ = message.id if message else error.id
        is_notification = message is not None and message.id is None
        await self.finish(failed(error, id_), 400 if is_notification else error.status)

    async def empty(self, status: int) -> None:
        """Answer with a status alone."""
        await self._whole(status, b"")

    async def refuse(self, refusal: CallRefusedError) -> None:
        """Answer with a refusal of HTTP's; hang up where the answer has begun."""
        if self._started:
            self.exchange.abort()
            raise ClientGoneError
        await refusal.reply().send(self._send)

    async def _whole(self, status: int, body: bytes, *headers: Header) -> None:
        length = (b"content-length", b"%d" % len(body))
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, length, NO_STORE, *self.extra],
            }
        )
        await self._piece(body, more=False)
