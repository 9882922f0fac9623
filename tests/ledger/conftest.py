"""A home, a clock that stands still, and an open ledger, or a broker with one.

Every test that opens a ledger runs on both stores: the home's own file, and the home's
copy of a PostgreSQL. Those about the file itself are named here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.ledger_kit import manual_clock
from support.manual_clock import ManualClock
from support.postgres import Cluster

from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger

ON_FILE = {
    "test_accepting",
    "test_journal",
    "test_opening",
    "test_opening_space",
    "test_recovery",
    "test_schema_damaged_rows",
    "test_store_copying",
    "test_postgres_store",
    "test_postgres_store_faults",
}
"""Modules about one file, its loss and its damage, or about the team's store alone."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that open a ledger on both stores."""
    if "behind" in metafunc.fixturenames:
        alone = metafunc.module.__name__.rpartition(".")[2] in ON_FILE
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        opens = {"home", "ledger", "bench"} & {*metafunc.fixturenames}
        stores = ["sqlite"]
        if opens and not alone and "one_file" not in marks:
            stores.append("postgres")
        metafunc.parametrize("behind", stores, indirect=True)


@pytest.fixture(autouse=True)
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each home's ledger be a copy of a PostgreSQL of its own, or a file."""
    # A state machine of Hypothesis has no parameters.
    if getattr(request, "param", "sqlite") == "postgres":
        cluster: Cluster = request.getfixturevalue("cluster")
        stores = cluster.stores_of_homes(monkeypatch)
        opened = Ledger.open.__func__  # type: ignore[attr-defined]

        async def open_shared(cls: Any, home: Home, **more: Any) -> Ledger:
            more.setdefault("settings", stores(home).settings)
            return await opened(cls, home, **more)

        monkeypatch.setattr(Ledger, "open", classmethod(open_shared))


@pytest.fixture
def home(short: Path) -> Home:
    return Home(short / "home", short / "home")


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> ManualClock:
    """A clock that agrees with a team's store, by which it prunes what has expired."""
    if {"store", "own_store"} & {*request.fixturenames}:
        return ManualClock(datetime.now(UTC))
    return manual_clock()


@pytest.fixture
async def ledger(home: Home, clock: ManualClock) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(home, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def bench(home: Home, clock: ManualClock) -> AsyncIterator[Bench]:
    bench = await Bench.open(home, clock)
    yield bench
    await bench.close()
