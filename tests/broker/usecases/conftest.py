"""One tenant for the room's tests, and a broker of its own for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from auth0_double.running import TenantThread
from support.agents_http import Live, live_broker
from support.connecting import Office
from support.tenant_admin import Admin

from agentvault_tui.home import Home


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("tenant") / "home"))
    made = Admin(running)
    # As on an embedded tenant: a new application gets no connection by itself.
    flags = {"flags": {"enable_client_connections": False}}
    assert made.call("PATCH", "tenants/settings", flags).status_code == 200
    yield made
    running.close()


@pytest.fixture
async def office(admin: Admin, tmp_path: Path) -> AsyncIterator[Office]:
    office = await Office.open(admin, Home.locate(tmp_path / "home"))
    yield office
    await office.close()


@pytest.fixture
async def live(office: Office) -> AsyncIterator[Live]:
    async with live_broker(office.bench) as live:
        yield live
