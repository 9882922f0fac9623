"""One request to a server's program, from its first byte to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Raw

from agentvault_tui.gateway.mcp.messages import Envelope
from agentvault_tui.gateway.mcp.pipe import PipeLine
from agentvault_tui.model import AgentId

Progress = Callable[[Raw], None]
"""Takes the parameters of a notification of progress."""


class PendingRequest:
    """One request to a process, until its answer."""

    def __init__(self, agent_id: AgentId | None, progress: Progress) -> None:
        self.agent_id = agent_id
        """Its agent; None for the gateway's own."""
        self.answered: asyncio.Future[Envelope] = (
            asyncio.get_running_loop().create_future()
        )
        self.progress = progress
        self.heard = asyncio.Event()
        """Set by each notice of progress: it is at work."""
        self.line: PipeLine | None = None

    @property
    def written(self) -> bool:
        """Whether the process was given all of it."""
        return self.line is not None and not self.line.rest

    @property
    def is_open(self) -> bool:
        """Whether the process was given some of it, and has not answered."""
        answered = self.answered
        heard = answered.done() and not answered.cancelled()
        has_answer = heard and answered.exception() is None
        return self.line is not None and self.line.begun and not has_answer

    def fail(self, error: Exception) -> None:
        """End the wait for its answer."""
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # its sender may have left
