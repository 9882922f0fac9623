"""The data plane beside a broker: files come into force, and everybody is told."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from support.bench import Bench

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway import Gateway
from agentvault_tui.policy.texts import shipped_scopes

ROUTE = '[[routes]]\nmethod = "GET"\npath = "/a/{x}"\nscope = "read:files"\n'


@pytest.fixture(autouse=True)
def folder(bench: Bench) -> None:
    (bench.home.config / "services").mkdir(exist_ok=True)


def write(bench: Bench, text: str) -> Path:
    path = bench.home.config / "services" / "api.toml"
    path.write_text(text)
    return path


async def gateway_of(bench: Bench) -> Gateway:
    gateway = bench.broker.extensions.gateway = Gateway(bench.broker)
    await gateway.start()
    return gateway


async def changes(bench: Bench) -> list[tuple[str | None, str | None]]:
    return [(e.reason, e.resource) for e in await bench.events("service.changed")]


async def test_changed_files_are_in_force_and_recorded(bench: Bench) -> None:
    """Each file that comes, changes or goes is one event, also while nothing ran."""
    path = write(bench, 'origin = "https://one.test"')
    gateway = await gateway_of(bench)
    await gateway.look()
    path.write_text('origin = "https://two.test"')
    await gateway.look()
    path.unlink()
    await gateway_of(bench)
    assert list(bench.broker.extensions.gateway.services) == []  # type: ignore[union-attr]
    await gateway_of(bench)
    file = "services/api.toml"
    assert await changes(bench) == [
        ("added", file),
        ("changed", file),
        ("removed", file),
    ]
    added, changed, removed = await bench.events("service.changed")
    assert added.detail["after"] == changed.detail["before"] != removed.detail["before"]


async def test_a_broken_file_is_told_everywhere(bench: Bench) -> None:
    """Status and /readyz say so while the one before serves; mended, both are well."""
    path = write(bench, 'origin = "https://one.test"')
    gateway = await gateway_of(bench)
    agents = httpx.ASGITransport(AgentsApi(bench.broker, "http://127.0.0.1"))
    async with httpx.AsyncClient(transport=agents, base_url="http://b") as http:
        assert (await http.get("/readyz")).status_code == 200
        path.write_text('origin = "https://one.test/path"')
        await gateway.look()
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["services_loaded"] is False
        [warning] = status_info(bench.broker).warnings
        assert warning.startswith("services/api.toml cannot be put in force")
        assert gateway.services.get("api") is not None
        path.write_text('origin = "https://two.test"')
        await gateway.look()
        assert (await http.get("/readyz")).status_code == 200
    assert status_info(bench.broker).warnings == ()


async def test_another_catalogue_is_checked_against(bench: Bench) -> None:
    """A scope that a new scopes.toml lacks is told of the files that name it."""
    write(bench, 'origin = "https://one.test"\n' + ROUTE)
    gateway = await gateway_of(bench)
    assert gateway.warnings == []
    scopes = shipped_scopes().replace('"read:files"', '"read:documents"')
    bench.home.scopes_file.write_text(scopes)
    await reload_policy(bench.broker)
    await gateway.look()
    assert "unknown scope 'read:files'" in gateway.warnings[0]


async def test_a_change_that_cannot_be_recorded_is_recorded_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger cannot write, the change waits for it."""
    gateway = await gateway_of(bench)
    write(bench, 'origin = "https://one.test"')

    async def full(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.broker, "record", full)
        await gateway.look()
    assert await changes(bench) == []
    await gateway.look()
    assert await changes(bench) == [("added", "services/api.toml")]
