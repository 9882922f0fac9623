"""A broker in process, a server that stands in for sinks, and alerts that watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.alert_stand import AlertStand
from support.bench import Bench
from support.gateway_stand import Upstream
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


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def stand(bench: Bench, server: Upstream) -> AsyncIterator[AlertStand]:
    stand = AlertStand(bench, server)
    yield stand
    await stand.watch.aclose()
