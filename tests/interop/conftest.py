"""One broker in process for each test, and one provider for a module's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock
from support.oidc_peer import Provider, oidc_provider

from agentvault_tui.home import Home
from agentvault_tui.vault import TenantClient


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock(datetime.now(UTC))  # certificates are judged by real time
    bench = await Bench.open(Home.locate(tmp_path / "home"), clock)
    yield bench
    await bench.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One provider for all tests of a module."""
    with oidc_provider() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    """The provider has the machine's time, and so have we until a test moves it."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def client(provider: Provider, clock: ManualClock) -> AsyncIterator[TenantClient]:
    """Our client at the provider, as the console has it."""
    made = TenantClient(provider.issuer, "console", clock)
    yield made
    await made.aclose()
