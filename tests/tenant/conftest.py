"""A tenant per test, from one template home: RSA keys are slow to make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from auth0_double.running import START, TenantThread
from support.manual_clock import ManualClock
from support.page_browser import Browser
from support.postgres import Cluster
from support.tenant_admin import Admin, Agent
from support.tenant_store import open_store, seal_of, share

from agentvault_tui.home import Home
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.users import NewUser

ON_BOTH = {
    *("test_activation", "test_codes", "test_device", "test_grants", "test_journal"),
    *("test_keys", "test_login", "test_signin", "test_tokens", "test_users"),
}
"""Modules whose tests with a home run on a PostgreSQL as well."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on both stores, but for those about a file."""
    if "behind" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        stores = ["sqlite"]
        if both and "home" in metafunc.fixturenames and "one_file" not in marks:
            stores.append("postgres")
        metafunc.parametrize("behind", stores, indirect=True)


@pytest.fixture(autouse=True)
def behind(request: pytest.FixtureRequest) -> str:
    """Which store the test's home has."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    _make_keys(Home.locate(folder))
    return folder


def _make_keys(home: Home) -> None:
    store = open_store(home)
    SigningKeys(store, seal_of(home), ManualClock(START))
    store.close()


@pytest.fixture(scope="session")
def shared_template(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A home with a team's key, and the database that its tenant's keys are in."""
    home, database = Home.locate(tmp_path_factory.mktemp("shared")), cluster.store()
    share(home, database)
    _make_keys(home)
    return home.data, database.name


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def home(
    request: pytest.FixtureRequest, behind: str, tmp_path: Path, template: Path
) -> Home:
    if behind == "sqlite":
        return Home.locate(shutil.copytree(template, tmp_path / "home"))
    folder, name = request.getfixturevalue("shared_template")
    cluster: Cluster = request.getfixturevalue("cluster")
    made = Home.locate(shutil.copytree(folder, tmp_path / "home"))
    share(made, cluster.database(name))
    return made


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


@pytest.fixture(scope="module")
def agent(admin: Admin) -> Agent:
    """An agent of a module's tenant, and the user of its name."""
    return Agent(admin, "some-bot")


@pytest.fixture
def alice(tenant: TenantThread) -> NewUser:
    return tenant.users.add("alice@acme.test", approver=True)


@pytest.fixture
def browser(tenant: TenantThread) -> Iterator[Browser]:
    made = Browser(tenant)
    yield made
    made.http.close()
