"""Faults on purpose: what each does, and that only the parent can set them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.tenant_admin import Admin

from agentvault_tui.errors import SettingsError
from agentvault_tui.tenant.faults import Faults, FaultSwitch


@pytest.fixture
def switch(admin: Admin) -> Iterator[FaultSwitch]:
    yield admin.tenant.faults
    admin.tenant.faults.set(Faults())


def test_a_status_for_some_paths(admin: Admin, switch: FaultSwitch) -> None:
    """503 there, a page that is no JSON, and nothing done; elsewhere all is well."""
    switch.set(Faults(paths=("/api/v2/users",), status=503))
    answer = admin.call("POST", "users", {})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html")
    assert admin.call("GET", "clients").status_code == 200


def test_each_second_request(admin: Admin, switch: FaultSwitch) -> None:
    """What is hit is counted, so a retry gets through."""
    switch.set(Faults(status=500, every=2))
    statuses = [admin.call("GET", "clients").status_code for _ in range(4)]
    assert statuses == [200, 500, 200, 500]


def test_garbage(admin: Admin, switch: FaultSwitch) -> None:
    """200, and a body that no client can read."""
    switch.set(Faults(paths=("/oauth/token",), garbage=True))
    answer = admin.machine_token()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_slow_waits_before_it_answers() -> None:
    """The app is asked only after the wait."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    switch = FaultSwitch(Faults(paths=("/slow",), slow=0.001))
    behind = switch.before(app)
    for path in ("/slow", "/quick"):
        await behind({"path": path}, None, None)  # type: ignore[arg-type]
    assert asked == ["/slow", "/quick"]


@pytest.mark.parametrize(
    "members",
    [
        {"nonsense": 1},
        {"status": 404},
        {"status": "503"},
        {"slow": -1},
        {"slow": 601},
        {"slow": True},
        {"every": 0},
        {"every": 1.5},
        {"rate": -1},
        {"garbage": 1},
        {"paths": "/"},
        {"paths": ["x"]},
    ],
    ids=str,
)
def test_faults_are_checked(members: dict[str, Any]) -> None:
    """An unknown fault, or one out of bounds, is said and not made up."""
    with pytest.raises(SettingsError):
        Faults.read(members)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'{"faults": 7}', b"\xff", b'{"faults": {"x": 1}}']
)
def test_a_line_that_says_nothing_changes_nothing(line: bytes) -> None:
    """What the parent mistypes leaves the switch as it was."""
    switch = FaultSwitch(Faults(status=503))
    with pytest.raises(SettingsError):
        switch.read_line(line)
    assert switch.now.status == 503
    switch.read_line(b'{"faults": {"paths": ["/api"], "garbage": true}}')
    assert switch.now == Faults(paths=("/api",), garbage=True)


def test_no_request_sets_them(admin: Admin) -> None:
    """No path of the tenant's has to do with faults, whoever asks."""
    for path in ("agentvault/faults", "api/v2/faults", "faults"):
        for method in ("GET", "POST", "PUT", "PATCH"):
            answer = admin.tenant.http.request(
                method,
                admin.tenant.issuer + path,
                json={"faults": {"status": 503}},
                headers={"authorization": f"Bearer {admin.token}"},
            )
            assert answer.status_code == 404
    said = admin.tenant.http.get(admin.tenant.issuer + "agentvault/metadata").text
    assert not re.search("fault", said)
    assert admin.tenant.faults.now == Faults()
