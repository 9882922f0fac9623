"""Tells the broker which step-up this operator has open; nothing waits for it."""

from __future__ import annotations

import asyncio
import contextlib

from agentvault_tui.console.link.wire import Wire
from agentvault_tui.console.state.presence import Presence
from agentvault_tui.errors import AgentVaultError


class Looking:
    """Sends the latest word only, again whenever the seat is a new one."""

    def __init__(self, presence: Presence, wire: Wire) -> None:
        self._presence = presence
        self._wire = wire
        self._said: tuple[str, str | None] = ("", None)
        self._task: asyncio.Task[None] | None = None

    def at(self, stepup_id: str | None) -> None:
        """Look at a step-up, or at none."""
        self._presence.looking_at = stepup_id
        self.update()

    def update(self) -> None:
        """Send what is not said yet; a broker that knows no presence is left alone."""
        if self._task is None and self._news():
            self._task = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Stop sending."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _news(self) -> tuple[str, str | None] | None:
        """Return seat and step-up, if that is not what was said last."""
        word = (self._presence.you, self._presence.looking_at)
        new_seat = word[0] != self._said[0]
        if not word[0] or word == self._said or (new_seat and word[1] is None):
            return None
        return word

    async def _send(self) -> None:
        try:
            while word := self._news():
                self._said = word
                body = {"seat": word[0], "looking_at": word[1]}
                with contextlib.suppress(AgentVaultError):
                    await self._wire.post("/api/presence", body)
        finally:
            self._task = None
