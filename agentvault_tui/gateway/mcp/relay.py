"""From a client of MCP to its server, and back: by URL or to a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from msgspec import Raw

from agentvault_tui.broker.core import Broker
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.credentials import Credentials
from agentvault_tui.gateway.mcp import results
from agentvault_tui.gateway.mcp.counts import MessageCounts
from agentvault_tui.gateway.mcp.messages import (
    MODERN,
    Envelope,
    Message,
    answer_to,
    own_message,
    with_members,
)
from agentvault_tui.gateway.mcp.pending import Progress
from agentvault_tui.gateway.mcp.processes import McpProcesses
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.mcp.sessions import McpSession
from agentvault_tui.gateway.mcp.stdio import McpProcess
from agentvault_tui.gateway.mcp.streamable import (
    Posted,
    ServerEvents,
    headers_to_server,
    post,
)
from agentvault_tui.gateway.mcp.tool_schemas import ToolLists, ToolSchema
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
    schema: ToolSchema | None = None
    """The schema of the tool that it calls, where its server lists it."""

    @property
    def modern(self) -> bool:
        """Tell whether it stands alone, without a session."""
        return self.version == MODERN

    @property
    def agent(self) -> Agent:
        """Return whose client it is."""
        return self.caller.agent

    async def attended(self, work: Awaitable[_T], call: Call | None = None) -> _T:
        """Wait for *work* and keep the client connected; see `AnswerWriter`."""
        return await self.writer.attend(work, self.gone, call)


class McpRelay:
    """Sends messages of clients to their servers."""

    def __init__(
        self,
        broker: Broker,
        calls: Calls,
        processes: McpProcesses,
        credentials: Credentials,
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Send nothing yet; see `McpApp` for what these are."""
        self.counts = MessageCounts(broker)
        self.lists = ToolLists(broker.clock)
        processes.events.count = self.counts.count
        processes.events.list_changed = self.lists.changed
        self._calls = calls
        self._processes = processes
        self._credentials = credentials
        self._upstream = upstream
        self._number = 0
        self._checks: set[asyncio.Event] = set()
        """One for each pending request that is no call; set if it may be cancelled."""

    def cut(self) -> None:
        """Cancel pending requests, other than calls, of unauthorized agents."""
        for check in self._checks:
            check.set()

    def process_of(self, asked: AskedMessage) -> McpProcess:
        """Return the process that serves the era and agent of a message."""
        return self._processes.of(asked.server, asked.agent.id, modern=asked.modern)

    async def ask(self, asked: AskedMessage, *, own: bool = False) -> Envelope:
        """Send a request that is no call; return the answer, under its id.

        Args:
            asked: the request.
            own: whether the gateway itself asks, for a call of the agent.

        Raises:
            CallRefusedError: its agent was cut off, or its token ended, meanwhile.
        """
        check = asyncio.Event()
        self._checks.add(check)
        work = asyncio.ensure_future(self.send(asked, own=own))
        # Its error is raised here, or is of no interest any more.
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

    async def send(
        self, asked: AskedMessage, call: Call | None = None, *, own: bool = False
    ) -> Envelope:
        """Send a client's request to its server; return the answer, under its id."""
        message, server = asked.message, asked.server
        token = message.progress_token
        notes = asked.writer.notes

        def progress(params: Raw) -> None:
            if token is None or (call is not None and call.cut is not None):
                return
            with suppress(ValueError, asyncio.QueueFull):
                notice = with_members(params, progressToken=token)
                notes.put_nowait(results.progress(notice))

        def sent(size: int) -> None:
            if call is not None:
                call.sent, call.state, call.bytes_out = True, "streaming", size
            else:
                agent_id = None if own else asked.agent.id
                self.counts.count(server.name, message.method, agent_id)

        if server.service is not None:
            self._number += 1
            mark = None if token is None else self._number
            body = message.encoded(self._number, mark)
            answered = await self._post(asked, body, sent, call, progress)
            if answered is None:
                raise UpstreamError(502, "upstream_reset", "the server did not answer")
        else:
            process = self.process_of(asked)
            await process.start()
            await self._calls.confirm()
            self._release(asked, call)
            answered = await process.ask(
                message,
                asked.agent.id,
                release=lambda: self._release(asked, call),
                sent=sent,
                progress=progress,
                cutters=None if call is None else call.on_cut,
            )
        return answer_to(message.id, answered)

    async def notify(self, asked: AskedMessage) -> None:
        """Send a client's notification to a server that is reached by URL."""
        server, method = asked.server.name, asked.message.method

        def sent(_: int) -> None:
            self.counts.count(server, method, asked.agent.id)

        await self._post(asked, asked.message.encoded(None), sent)

    async def _post(
        self,
        asked: AskedMessage,
        body: bytes,
        sent: Callable[[int], None],
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
                asked.schema,
                session.upstream if session else None,
            ),
            attachment=attachment,
            release=lambda: self._release(asked, call),
            sent=lambda: sent(len(body)),
            cutters=[] if call is None else call.on_cut,
            agent_id=asked.agent.id,
            reuse=service.drains_bodies,
            server=asked.server.name,
            max_answer=asked.server.max_answer,
        )
        events = ServerEvents(progress, lambda: self.lists.changed(asked.server.name))
        answered = await post(upstream, posted, events)
        if call is not None:
            call.status = answered.status
        asked.upstream_session = answered.session
        return answered.envelope

    # Schemas of tools

    async def read_schema(self, asked: AskedMessage) -> None:
        """Read the schema of the tool that a call names, if its server lists it.

        Raises:
            CallRefusedError: its agent is revoked, or has too many pending requests.
        """

        async def page(cursor: str | None) -> Envelope:
            params = {} if cursor is None else {"cursor": cursor}
            message = own_message("tools/list", modern=asked.modern, **params)
            return await self.ask(replace(asked, message=message), own=True)

        tool = asked.message.named or ""
        key, agent_id = _list_key(asked), asked.agent.id
        asked.schema = await self.lists.schema(key, agent_id, tool, page)

    async def note_tools(self, asked: AskedMessage, result: Raw) -> None:
        """Cache the schemas in a page of tools that a client asked for."""
        with suppress(ValueError):
            await self.lists.note(_list_key(asked), asked.agent.id, bytes(result))

    def _release(self, asked: AskedMessage, call: Call | None) -> None:
        """Check that a message may go out, right before it does.

        Raises:
            CallRefusedError: not any more.
        """
        if call is not None:
            self._calls.release(call)
        elif over := self._calls.cut_off(asked.caller):
            raise over


def _list_key(asked: AskedMessage) -> object:
    """Return the key of a cached list of tools: by URL, each agent has its own."""
    server = asked.server
    apart = server.per_agent or server.service is not None
    agent_id = asked.agent.id if apart else None
    return server.name, server.sha256, asked.modern, agent_id
