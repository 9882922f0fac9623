"""A broker in process, a server that stands in for sinks, and alerts that watch."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.alert_stand import AlertStand
from support.bench import Bench, bench, clock
from support.gateway_stand import Upstream

__all__ = ["bench", "clock"]


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
