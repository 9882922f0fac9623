"""One broker in process for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import Bench

from agentvault_tui.clock import ManualClock
from agentvault_tui.home import Home


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock(datetime.now(UTC))  # certificates are judged by real time
    bench = await Bench.open(Home.locate(tmp_path / "home"), clock)
    yield bench
    await bench.close()
