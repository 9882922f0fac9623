"""Brokers of a team in one process, each with its gateway and alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock
from support.postgres import Database

from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.vault import Secret
from agentvault_tui.watch import LedgerWatch


class Member:
    """One broker of the team, with a gateway and alerts."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.home = bench, bench.home
        broker = bench.broker
        self.gateway = broker.extensions.gateway = Gateway(broker)
        self.watch = broker.extensions.watch = LedgerWatch(
            broker, lambda *_: Secret("hidden")
        )

    @property
    def files(self) -> TeamFiles:
        assert self.bench.broker.team.files is not None
        return self.bench.broker.team.files

    async def start(self) -> None:
        await self.gateway.start()
        await self.watch.start()

    async def look(self) -> None:
        """Do what the upkeep does again and again."""
        await self.gateway.look()
        await self.watch.look()

    def path(self, file: str) -> Path:
        return self.home.config / file

    def says(self, file: str) -> str | None:
        """Return what this home's copy says."""
        path = self.path(file)
        return path.read_text() if path.exists() else None

    def origin(self, name: str = "api") -> str | None:
        """Return where a service that is in force here is reached."""
        found = self.gateway.services.get(name)
        return str(found.origin) if found else None

    @property
    def warnings(self) -> str:
        return "\n".join(status_info(self.bench.broker).warnings)

    async def changes(self) -> list[tuple[str | None, str | None]]:
        return [
            (one.reason, one.resource)
            for one in await self.bench.events("service.changed")
        ]


@asynccontextmanager
async def member(
    home: Home, clock: ManualClock, store: Database | None, **more: Any
) -> AsyncIterator[Member]:
    """Open one home more, or one again, with *more* settings; start what is in it.

    Without a store it is a broker with a ledger of its own.
    """
    settings = replace(store.settings if store else Settings(), **more)
    bench = await Bench.open(home, clock, settings=settings)
    if store:
        bench.listen_as_served()
    try:
        made = Member(bench)
        await made.start()
        yield made
        await made.watch.aclose()
        await made.gateway.aclose()
    finally:
        await bench.close()


async def seen(*members: Member) -> None:
    """Let each know what all have recorded, and write its copies."""
    for one in members:
        await one.bench.ledger.confirm()
        await one.look()


@pytest.fixture
def homes(short: Path) -> list[Home]:
    made = [Home(short / name, short / name) for name in "abc"]
    for home in made:
        home.prepare()
    return made


@pytest.fixture
async def a(
    homes: list[Home], clock: ManualClock, store: Database
) -> AsyncIterator[Member]:
    async with member(homes[0], clock, store) as made:
        yield made


@pytest.fixture
async def b(
    homes: list[Home], clock: ManualClock, store: Database, a: Member
) -> AsyncIterator[Member]:
    async with member(homes[1], clock, store) as made:
        yield made
