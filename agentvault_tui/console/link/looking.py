"""Tells the broker which step-up this operator has open; nothing waits for it."""

from __future__ import annotations

import asyncio
import contextlib

from agentvault_tui.console.state.presence import Presence
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.calls import LOOK
from agentvault_tui.operator_api.client import AsyncOperatorClient
from agentvault_tui.operator_api.requests import LookRequest


class Looking:
    """Sends the latest word only, again whenever the seat is a new one."""

    def __init__(self, presence: Presence, client: AsyncOperatorClient) -> None:
        self._presence = presence
        self._client = client
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
                look = LookRequest(seat=word[0], looking_at=word[1])
                with contextlib.suppress(AgentVaultError):
                    await self._client.call(LOOK, look)
        finally:
            self._task = None
