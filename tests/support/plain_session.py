"""A plain session to type into, over a scene or over a scripted broker."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

from support.dialog_stand import Stand
from support.fake_operator import FakeOperator
from support.fake_state import START
from support.manual_clock import ManualClock

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore
from agentvault_tui.console.plain.session import PlainSession
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.presenters.glyphs import ASCII


class Session:
    """What is typed, read and thought about; and what it says."""

    def __init__(self, desk: Desk, clock: ManualClock) -> None:
        self.clock = clock
        self.link = desk.link
        self.out = io.StringIO()
        self.plain = PlainSession(desk, self.out)

    async def type(self, *lines: str, wait: float = 0.6) -> str:
        """Type lines, each after a while; return what they led to."""
        before = len(self.out.getvalue())
        for line in lines:
            self.clock.advance(wait)
            await self.plain.take(line)
        return self.out.getvalue()[before:]

    def news(self) -> str:
        before = len(self.out.getvalue())
        self.plain.announcer.news()
        return self.out.getvalue()[before:]


class StandSession(Session):
    """Over a scene: the decisions are scripted, and no broker answers."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        super().__init__(stand.desk, stand.clock)

    @property
    def asked(self) -> list[tuple[str, ...]]:
        return self.stand.actions.asked


@contextlib.asynccontextmanager
async def following(fake: FakeOperator, folder: Path) -> AsyncIterator[Session]:
    """Follow a scripted broker, live."""
    clock = ManualClock(START)
    mirror = Mirror(clock, ascii_only=True)
    link = BrokerLink(mirror, fake.socket, HeadStore(fake.socket, folder))
    live = asyncio.Event()
    mirror.listeners.add(lambda: mirror.link.live and live.set())
    task = asyncio.create_task(link.run())
    try:
        await asyncio.wait_for(live.wait(), 10)
        yield Session(Desk(link, ASCII), clock)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
