"""A tenant per test, from one template home: RSA keys are slow to make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from auth0_double.running import START, TenantThread
from support.manual_clock import ManualClock
from support.page_browser import Browser
from support.tenant_admin import Admin

from agentvault_tui.home import Home
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.sealing import TenantSeal
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import NewUser


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    home = Home.locate(folder)
    store = Store(home, checkpoints=True)
    SigningKeys(store, TenantSeal.of(home), ManualClock(START))
    store.close()
    return folder


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Home:
    return Home.locate(shutil.copytree(template, tmp_path / "home"))


@pytest.fixture
def tenant(home: Home) -> Iterator[TenantThread]:
    running = TenantThread(home)
    yield running
    running.close()


@pytest.fixture(scope="module")
def admin(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """One tenant for a module's tests, and the program that manages it."""
    folder = tmp_path_factory.mktemp("managed") / "home"
    running = TenantThread(Home.locate(shutil.copytree(template, folder)))
    yield Admin(running)
    running.close()


@pytest.fixture
def alice(tenant: TenantThread) -> NewUser:
    return tenant.users.add("alice@acme.test", approver=True)


@pytest.fixture
def browser(tenant: TenantThread) -> Iterator[Browser]:
    made = Browser(tenant)
    yield made
    made.http.close()
