"""From a client of MCP to its server, and back: by URL or to a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from msgspec import Raw

from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.credentials import Credentials
from agentvault_tui.gateway.mcp import results
from agentvault_tui.gateway.mcp.messages import (
    MODERN,
    Envelope,
    Message,
    with_members,
)
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.mcp.sessions import McpSession
from agentvault_tui.gateway.mcp.stdio import McpProcess, McpProcesses, Progress
from agentvault_tui.gateway.mcp.streamable import Posted, headers_to_server, post
from agentvault_tui.gateway.mcp.writer import AnswerWriter
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.upstream import Upstream
from agentvault_tui.model import Agent, AgentId
from agentvault_tui.web.reply import Header
from agentvault_tui.web.service_connection import UpstreamError

_T = TypeVar("_T")


@dataclass(slots=True)
class AskedMessage:
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
        """Tell whether it stands alone, without a session."""
        return self.version == MODERN

    @property
    def agent(self) -> Agent:
        """Return whose client it is."""
        return self.caller.agent

    async def attended(self, work: Awaitable[_T], call: Call | None = None) -> _T:
        """Wait for *work*, and keep the client meanwhile; see `AnswerWriter`."""
        return await self.writer.attend(work, self.gone, call)


class McpRelay:
    """Sends messages of clients to their servers."""

    def __init__(
        self,
        calls: Calls,
        processes: McpProcesses,
        credentials: Credentials,
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Send nothing yet; see `McpApp` for what these are."""
        self._calls = calls
        self._processes = processes
        self._credentials = credentials
        self._upstream = upstream
        self._number = 0
        self._checks: set[asyncio.Event] = set()
        """Of what is asked beside calls: set when some of it may have been cut."""

    def cut(self) -> None:
        """End what is asked beside calls by whom is not served any more."""
        for check in self._checks:
            check.set()

    def process_of(self, asked: AskedMessage) -> McpProcess:
        """Return the process that serves the era and agent of a message."""
        return self._processes.of(asked.server, asked.agent.id, modern=asked.modern)

    async def ask(self, asked: AskedMessage) -> Envelope:
        """Send a request that is no call; return the answer, under its id.

        Raises:
            CallRefusedError: its agent was cut off, or its token ended, meanwhile.
        """
        check = asyncio.Event()
        self._checks.add(check)
        work = asyncio.ensure_future(self.send(asked))
        # How it ended is told here, or of no interest any more.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not work.done():
                cut = asyncio.ensure_future(check.wait())
                await asyncio.wait({work, cut}, return_when=asyncio.FIRST_COMPLETED)
                cut.cancel()
                check.clear()
                self._release(asked, None)
            return work.result()
        finally:
            self._checks.discard(check)
            work.cancel()

    async def send(self, asked: AskedMessage, call: Call | None = None) -> Envelope:
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
            self._number += 1
            mark = None if token is None else self._number
            body = message.relayed(self._number, mark)
            if call is not None:
                call.bytes_out = len(body)
            told = await self.post(asked, body, call, progress)
            if told is None:
                raise UpstreamError(502, "upstream_reset", "the server did not answer")
        else:
            process = self.process_of(asked)
            await process.start()
            await self._calls.confirm()
            self._release(asked, call)
            cutters = [] if call is None else call.on_cut
            told = await process.ask(message, progress, lambda: _sent(call), cutters)
            if call is not None:
                call.bytes_out = len(message.envelope.get("params", b""))
        return {**told, "id": message.id or Raw(b"null")}

    async def post(
        self,
        asked: AskedMessage,
        body: bytes,
        call: Call | None = None,
        progress: Progress = lambda _: None,
    ) -> Envelope | None:
        """Send a message by URL; return the answer, which a notification has not."""
        service = asked.server.service
        assert service is not None  # noqa: S101 - asked for those alone
        attachment = await self._credentials.of(service, asked.agent)
        await self._calls.confirm()
        own = service.credential.kind == "connection"
        upstream = self._upstream(service, asked.agent.id if own else None)
        session = asked.session
        posted = Posted(
            target=asked.server.target,
            body=body,
            headers=headers_to_server(
                asked.message,
                asked.version,
                asked.headers,
                session.upstream if session else None,
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

    def _release(self, asked: AskedMessage, call: Call | None) -> None:
        """Check that a message may go out, right before it does.

        Raises:
            CallRefusedError: not any more.
        """
        if call is not None:
            self._calls.release(call)
        elif over := self._calls.cut_off(asked.caller):
            raise over


def _sent(call: Call | None) -> None:
    """Note that a call has gone out."""
    if call is not None:
        call.sent, call.state = True, "streaming"
