"""The processes of MCP servers that are programs."""

from __future__ import annotations

import asyncio

from agentvault_tui.clock import Clock
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.mcp.stdio import McpProcess, ProcessEvents
from agentvault_tui.model import AgentId


class McpProcesses:
    """The processes of all servers: one an era, and agent where the file says so."""

    def __init__(self, clock: Clock) -> None:
        """Start none."""
        self._clock = clock
        self.events = ProcessEvents(lambda *_: None, lambda _: None)
        self._running: dict[tuple[str, bool, AgentId | None], McpProcess] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def of(self, server: McpServer, agent_id: AgentId, *, modern: bool) -> McpProcess:
        """Return the process that *agent_id* uses, as the file is now."""
        key = server.name, modern, agent_id if server.per_agent else None
        known = self._running.get(key)
        if known is None or known.server.sha256 != server.sha256:
            if known is not None:
                self._end(known)
            known = McpProcess(server, self._clock, self.events, modern=modern)
            self._running[key] = known
        return known

    def cut(self, agent_id: AgentId | None) -> None:
        """End the processes that are an agent's own."""
        for key in list(self._running):
            if key[2] is not None and agent_id in {None, key[2]}:
                self._end(self._running.pop(key))

    def keep(self, names: frozenset[str]) -> None:
        """End the processes of servers that are none of *names*."""
        for key in [key for key in self._running if key[0] not in names]:
            self._end(self._running.pop(key))

    def _end(self, process: McpProcess) -> None:
        task = asyncio.get_running_loop().create_task(process.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End all."""
        for process in self._running.values():
            self._end(process)
        self._running = {}
        if self._ending:
            await asyncio.wait(set(self._ending))
