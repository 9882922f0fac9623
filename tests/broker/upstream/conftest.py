"""One tenant for the room's tests, and a broker of its own for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from auth0_double.running import TenantThread
from support.manual_clock import ManualClock
from support.tenant_admin import Admin
from support.upstream import Site

from agentvault_tui.home import Home


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("tenant") / "home"))
    yield Admin(running)
    running.close()


@pytest.fixture
async def site(admin: Admin, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    site = Site(admin, Home.locate(tmp_path / "home"), clock)
    await site.start()
    yield site
    await site.close()
