"""A console in the past: keys pressed one by one, each moment read before the next."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.console_scenes import console, running, settle
from support.fake_operator import FakeOperator
from support.fake_past import incident
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.screens.past import PastScreen
from agentvault_tui.console.widgets.pane import Pane


class Stage:
    """A console in front of a scripted broker with a story behind it."""

    def __init__(self, fake: FakeOperator, folder: Path) -> None:
        self.fake = fake
        self.app: ConsoleApp = console(fake.socket, folder)
        self.pilot: Pilot[Any]

    @contextlib.asynccontextmanager
    async def on(self, *keys: str) -> AsyncIterator[Pilot[Any]]:
        incident(self.fake)
        async with running(self.app, (120, 40)) as pilot:
            self.pilot = pilot
            await self.press(*keys)
            yield pilot

    @property
    def past(self) -> PastScreen:
        screen = self.app.screen
        assert isinstance(screen, PastScreen)
        return screen

    async def press(self, *keys: str) -> None:
        """Press keys one by one, each settled."""
        for key in keys:
            opens = key == "t" and len(self.app.screen_stack) == 1
            await self.pilot.press(key)
            await self.pilot.pause()
            if opens:
                await settle(self.pilot, lambda: len(self.app.screen_stack) > 1)
            if isinstance(self.app.screen, PastScreen):
                await settle(self.pilot, self._rests)

    def _rests(self) -> bool:
        reading = self.past._reading
        return reading is None or reading.done()

    def text(self, name: str) -> str:
        screen = self.app.screen
        if isinstance(screen, PastScreen):
            screen.pulse()
        pane = screen.query_one(f"#{name}", Pane)
        rows = (pane.render_line(y).text.rstrip() for y in range(pane.size.height))
        return "\n".join(rows)

    async def see(self, name: str, text: str) -> None:
        await settle(self.pilot, lambda: text in self.text(name))

    def names(self) -> set[str]:
        return {str(agent.name) for agent in self.past.past.agents.values()}

    @property
    def toast(self) -> str:
        notes = list(self.app._notifications)
        return notes[-1].message if notes else ""
