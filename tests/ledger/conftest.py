"""A home, a clock that stands still, and an open ledger, or a broker with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.ledger_kit import manual_clock
from support.manual_clock import ManualClock

from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger


@pytest.fixture
def home(short: Path) -> Home:
    return Home(short / "home", short / "home")


@pytest.fixture
def clock() -> ManualClock:
    return manual_clock()


@pytest.fixture
async def ledger(home: Home, clock: ManualClock) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(home, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def bench(home: Home, clock: ManualClock) -> AsyncIterator[Bench]:
    bench = await Bench.open(home, clock)
    yield bench
    await bench.close()
