"""One broker in process for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock

from agentvault_tui.home import Home


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 24, 10, 0, tzinfo=UTC))


@pytest.fixture
async def bench(short: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    bench = await Bench.open(Home.locate(short / "home"), clock)
    yield bench
    await bench.close()
