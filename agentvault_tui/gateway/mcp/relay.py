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
    LONGEST_NOTE,
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
    """One request of a client, and the connection for its answer."""

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
        """Check whether it is independent, without a session."""
        return self.version == MODERN

    @property
    def agent(self) -> Agent:
        """Return the client's agent."""
        return self.caller.agent

    async def attended(self, work: Awaitable[_T], call: Call | None = None) -> _T:
        """Wait for *work* and hold the client's connection; see `AnswerWriter`."""
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
        """Send nothing yet; see `McpApp` for the arguments."""
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

    def process_of(self, message: AskedMessage) -> McpProcess:
        """Return the process that serves the era and agent of a message."""
        return self._processes.of(
            message.server, message.agent.id, modern=message.modern
        )

    async def ask(self, message: AskedMessage, *, own: bool = False) -> Envelope:
        """Send a request that is no call; return the answer, under its id.

        Args:
            message: the request.
            own: whether the gateway itself asks, for a call of the agent.

        Raises:
            CallRefusedError: its agent was cut off, or its token ended, meanwhile.
        """
        check = asyncio.Event()
        self._checks.add(check)
        work = asyncio.ensure_future(self.send(message, own=own))
        # Its error is raised here, or is of no interest any more.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not work.done():
                cancelled = asyncio.ensure_future(check.wait())
                await asyncio.wait(
                    {work, cancelled}, return_when=asyncio.FIRST_COMPLETED
                )
                cancelled.cancel()
                check.clear()
                self._release(message, None)
            return work.result()
        finally:
            self._checks.discard(check)
            work.cancel()

    async def send(
        self, incoming: AskedMessage, call: Call | None = None, *, own: bool = False
    ) -> Envelope:
        """Send a client's request to its server; return the answer, under its id."""
        message, server = incoming.message, incoming.server
        token = message.progress_token
        notes = incoming.writer.notes

        def progress(params: Raw) -> None:
            if token is None or (call is not None and call.cut is not None):
                return
            if len(bytes(params)) > LONGEST_NOTE:
                return
            with suppress(ValueError, asyncio.QueueFull):
                notice = with_members(params, progressToken=token)
                notes.put_nowait(results.progress(notice))

        def sent(size: int) -> None:
            if call is not None:
                call.sent, call.state, call.bytes_out = True, "streaming", size
            else:
                agent_id = None if own else incoming.agent.id
                self.counts.count(server.name, message.method, agent_id)

        if server.service is not None:
            self._number += 1
            number = self._number
            body = message.encoded(number, None if token is None else number)
            answered = await self._post(
                incoming, body, sent, call, progress, id_=number
            )
            if answered is None:
                raise UpstreamError(502, "upstream_reset", "the server did not answer")
        else:
            process = self.process_of(incoming)
            await process.start()
            await self._calls.confirm()
            self._release(incoming, call)
            answered = await process.ask(
                message,
                incoming.agent.id,
                release=lambda: self._release(incoming, call),
                sent=sent,
                progress=progress,
                cutters=None if call is None else call.on_cut,
            )
        return answer_to(message.id, answered)

    async def notify(self, message: AskedMessage) -> None:
        """Send a client's notification to a server that is reached by URL."""
        server, method = message.server.name, message.message.method

        def sent(_: int) -> None:
            self.counts.count(server, method, message.agent.id)

        await self._post(message, message.message.encoded(None), sent)

    async def _post(
        self,
        message: AskedMessage,
        body: bytes,
        sent: Callable[[int], None],
        call: Call | None = None,
        progress: Progress = lambda _: None,
        *,
        id_: int | None = None,
    ) -> Envelope | None:
        """Send a message by URL; return the answer, which a notification has not."""
        service = message.server.service
        assert service is not None  # noqa: S101 - asked for those alone
        attachment = await self._credentials.of(service, message.agent)
        await self._calls.confirm()
        own = service.credential.kind == "connection"
        upstream = self._upstream(service, message.agent.id if own else None)
        session = message.session
        posted = Posted(
            target=message.server.target,
            body=body,
            headers=headers_to_server(
                message.message,
                message.version,
                message.schema,
                session.upstream if session else None,
            ),
            attachment=attachment,
            release=lambda: self._release(message, call),
            sent=lambda: sent(len(body)),
            cutters=[] if call is None else call.on_cut,
            agent_id=message.agent.id,
            reuse=service.drains_bodies,
            server=message.server.name,
            max_answer=message.server.max_answer,
            id=id_,
        )
        name = message.server.name
        events = ServerEvents(
            progress,
            list_changed=lambda: self.lists.changed(name),
            replied=lambda: self.counts.count(name, "response", None),
        )
        answered = await post(upstream, posted, events)
        if call is not None:
            call.status = answered.status
        message.upstream_session = answered.session
        return answered.envelope

    # Schemas of tools

    async def read_schema(self, incoming: AskedMessage) -> None:
        """Read the schema of the tool that a call names, if its server lists it.

        Raises:
            CallRefusedError: its agent is revoked, or has too many pending requests.
        """

        async def page(cursor: str | None) -> Envelope:
            params = {} if cursor is None else {"cursor": cursor}
            message = own_message("tools/list", modern=incoming.modern, **params)
            return await self.ask(replace(incoming, message=message), own=True)

        tool = incoming.message.named or ""
        key, agent_id = _list_key(incoming), incoming.agent.id
        incoming.schema = await self.lists.schema(key, agent_id, tool, page)

    async def note_tools(self, message: AskedMessage, result: Raw) -> None:
        """Cache the schemas in a page of tools that a client asked for."""
        with suppress(ValueError):
            await self.lists.note(_list_key(message), message.agent.id, bytes(result))

    def _release(self, message: AskedMessage, call: Call | None) -> None:
        """Check that a message may go out, right before it does.

        Raises:
            CallRefusedError: not any more.
        """
        if call is not None:
            self._calls.release(call)
        elif over := self._calls.cut_off(message.caller):
            raise over


def _list_key(message: AskedMessage) -> object:
    """Return the key of a cached list of tools: by URL, each agent has its own."""
    server = message.server
    apart = server.per_agent or server.service is not None
    agent_id = message.agent.id if apart else None
    return server.name, server.sha256, message.modern, agent_id
