"""A home directory of each release, and of the commit before 0.9, opens in this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.command_line import plain_environment
from support.forked import run
from support.vault import Client, serving

import agentvault_tui

HOMES = Path(__file__).parent / "homes"
NAMES = sorted(path.stem for path in HOMES.glob("*.json"))


@pytest.fixture(params=NAMES)
def found(request: pytest.FixtureRequest, short: Path) -> dict[str, Any]:
    """Unpack a home directory and its backup; return what has to be in it."""
    with tarfile.open(HOMES / f"{request.param}.tar.xz") as archive:
        archive.extractall(short, filter="data")
    (short / "home").chmod(0o700)
    return dict(json.loads((HOMES / f"{request.param}.json").read_text()))


def av(home: Path, *argv: str) -> str:
    """Run a command on *home*, which has to succeed; return what it prints."""
    done = run("--home", str(home), *argv, env=plain_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(home: Path, found: dict[str, Any], *, restored: bool) -> str:
    """Check agents, revocation, people, secret and limit; return what `verify` says."""
    with serving(home, AGENTVAULT_CHANGES_SOCKET="uid") as vault:
        status = vault.operator.get("/api/status").json()
        assert status["ledger"]["writable"] is True
        assert status["ledger"]["head"] >= found["head"]
        if restored:
            assert status["panic"]["on"] is True
            av(home, "lift-panic")
        url = vault.ready["agents_url"]
        clients = {name: Client(url, *one) for name, one in found["clients"].items()}
        for name, token in found["tokens"].items():
            seen = clients["reader"].introspect(token)
            assert seen["active"] is False or (name, restored) == ("reader", False)
        answer = clients["reader"].token("read:calendar")
        assert answer.status_code == 200, answer.text
        refused = clients["rogue"].token("write:calendar")
        assert refused.json()["reason"] == "agent_revoked", refused.text
        clients["payer"].poll(found["auth_req_id"])
        for client in clients.values():
            client.http.close()
        (secret,) = json.loads(av(home, "secrets", "list", "--json"))["secrets"]
        assert secret["name"] == "files"
        (limit,) = json.loads(av(home, "limits", "--json"))["limits"]
        assert limit["id"] == "reading"
        assert "carol" in av(home, "tenant", "user", "list", "--json")
    return av(home, "audit", "verify")


def test_a_home_of_an_earlier_version_opens(found: dict[str, Any], short: Path) -> None:
    """The promise of docs/release.md: 0.9 homes open in 1.0, with all they hold."""
    assert "ok: " in check(short / "home", found, restored=False)


def test_a_backup_of_an_earlier_version_is_restored(
    found: dict[str, Any], short: Path
) -> None:
    """Into an empty home directory, with everything stopped."""
    av(short / "restored", "restore", str(short / "backup"))
    assert "ok: " in check(short / "restored", found, restored=True)


def test_each_release_has_its_home() -> None:
    """Make it with `tests/upgrades/make_home.py` before the version changes."""
    assert agentvault_tui.__version__ in NAMES
