"""One broker with its agents' HTTP for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.agents_http import Caller, Live, live_broker
from support.bench import Bench


@pytest.fixture
async def live(bench: Bench) -> AsyncIterator[Live]:
    async with live_broker(bench) as live:
        yield live


@pytest.fixture
async def caller(live: Live) -> Caller:
    return await live.caller("payer")
