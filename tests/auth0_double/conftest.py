"""One double for a module's tests, and the program that manages it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.tenant_admin import Admin

from agentvault_tui.home import Home
from auth0_double.running import TenantThread


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("double") / "home"))
    yield Admin(running)
    running.close()
