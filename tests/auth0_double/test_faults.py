"""Faults on purpose: what each does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from support.manual_clock import ManualClock
from support.tenant_admin import Admin
from support.tenant_store import open_store

from agentvault_tui.home import Home
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.store import Store
from auth0_double.faults import Faults, FaultSwitch
from auth0_double.logs import DelayedJournal
from auth0_double.running import START

REQUEST = Request({"type": "http", "headers": []})
CLIENT = Client("c", {"name": "c"})


def journal(home: Home, faults: Faults) -> tuple[ManualClock, Store, DelayedJournal]:
    clock, store = ManualClock(START), open_store(home)
    switch = FaultSwitch(clock, faults)
    return clock, store, DelayedJournal(store, clock, "tenant.test", switch)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home")


@pytest.fixture
def switch(admin: Admin) -> Iterator[FaultSwitch]:
    yield admin.tenant.faults
    admin.tenant.faults.set(Faults())


def test_a_fault_answers_some_paths_with_a_status(
    admin: Admin, switch: FaultSwitch
) -> None:
    """503 there, a page that is no JSON, and nothing done; elsewhere all is well."""
    switch.set(Faults(paths=("/api/v2/users",), status=503))
    answer = admin.call("POST", "users", {})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html")
    assert admin.call("GET", "clients").status_code == 200


def test_a_fault_hits_each_second_request(admin: Admin, switch: FaultSwitch) -> None:
    """What is hit is counted, so a retry gets through."""
    switch.set(Faults(status=500, every=2))
    statuses = [admin.call("GET", "clients").status_code for _ in range(4)]
    assert statuses == [200, 500, 200, 500]


def test_a_fault_answers_with_garbage(admin: Admin, switch: FaultSwitch) -> None:
    """200, and a body that no client can read."""
    switch.set(Faults(paths=("/oauth/token",), garbage=True))
    answer = admin.machine_token()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_a_fault_waits_before_it_answers() -> None:
    """The app is asked only after the wait."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    switch = FaultSwitch(ManualClock(START), Faults(paths=("/slow",), slow=0.001))
    behind = switch.before(app)
    for path in ("/slow", "/quick"):
        await behind({"path": path}, None, None)  # type: ignore[arg-type]
    assert asked == ["/slow", "/quick"]


def test_log_rows_come_after_the_delay(home: Home) -> None:
    """With a delay a row is found by nobody until it is over."""
    clock, store, late = journal(home, Faults(log_delay=30))
    late.write("s", REQUEST, client=CLIENT)
    row = {"log_id": f"900{clock.now():%Y%m%d%H%M%S}000{0:036d}"}
    assert late.after("", 10) == late.search([], "DESC") == []
    assert late.one(row["log_id"]) is None
    clock.advance(30)
    assert [found["log_id"] for found in late.after("", 10)] == [row["log_id"]]
    assert late.one(row["log_id"]) is not None
    store.close()


def test_log_rows_are_dropped_after_their_retention(home: Home) -> None:
    """As a plan's retention does: by checkpoint, by search and by its id."""
    clock, store, kept = journal(home, Faults(log_kept=60))
    kept.write("s", REQUEST, client=CLIENT)
    (row,) = kept.after("", 10)
    clock.advance(61)
    kept.write("f", REQUEST, client=CLIENT)
    assert [one["type"] for one in kept.after("", 10)] == ["f"]
    assert [one["type"] for one in kept.search([], "DESC")] == ["f"]
    assert kept.one(row["log_id"]) is None
    store.close()
