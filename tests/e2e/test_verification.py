"""Who changes older events while the broker is down is found out while it serves."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.ledger_kit import unguarded
from support.patience import PATIENT
from support.vault import Client, Vault, serving

from agentvault_tui.ledger import CHECKED_AT_START


def until(what: Callable[[], Any]) -> Any:
    """Ask again until it is so, and return it."""
    ends = time.monotonic() + PATIENT
    while not (found := what()):
        assert time.monotonic() < ends
        time.sleep(0.02)
    return found


def status(vault: Vault) -> dict[str, Any]:
    return dict(vault.operator.get("/api/status").json())


def complete(vault: Vault) -> dict[str, Any] | None:
    """What the status says of a verification that was done to the end."""
    verified = status(vault)["ledger"]["verified"]
    return verified if verified and verified["complete"] else None


@dataclass(frozen=True)
class Filled:
    """A home whose first events lie before those that a start checks."""

    home: Path
    agent: Client
    server: Client
    token: str
    """Revoked before the events that a start checks."""


@pytest.fixture(scope="module")
def original(module_folder: Path) -> Filled:
    with serving(module_folder, tenant=False) as vault:
        agent = vault.register("bot", "read:contacts")
        server = vault.register("api", resource_server=True)
        token = agent.token("read:contacts").json()["access_token"]
        agent.http.post("/oauth/revoke", data={"token": token})
        with ThreadPoolExecutor(16) as asking:  # their commits share flushes
            requests = ["read:contacts"] * (CHECKED_AT_START + 1)
            answers = asking.map(agent.token, requests)
            assert {one.status_code for one in answers} == {200}
    return Filled(module_folder, agent, server, token)


@pytest.fixture
def filled(original: Filled, short: Path) -> Filled:
    return replace(original, home=shutil.copytree(original.home, short / "home"))


def bring_back(home: Path) -> None:
    """Take the end of every token away, and hide the events that tell of it."""
    with closing(sqlite3.connect(home / "agentvault.db")) as db:
        with unguarded(db):
            hidden = "SET type = 'token.decision', outcome = 'denied'"
            db.execute(f"UPDATE events {hidden} WHERE type = 'token.revoked'")
            db.execute("DELETE FROM dropped")
        db.commit()


def verifier(vault: Vault) -> int | None:
    """The process that verifies, if it runs."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == vault.process.pid and b"agentvault_tui.ledger" in (
                (entry / "cmdline").read_bytes()
            ):
                return int(entry.name)
        except OSError:
            continue
    return None


def test_a_revoked_token_put_back_behind_hidden_events_stops_everything(
    filled: Filled,
) -> None:
    """It is served no longer than until the ledger was verified; so after a restart."""
    home, token = filled.home, filled.token
    bring_back(home)
    with serving(home, tenant=False) as vault:
        agent, server = vault.again(filled.agent), vault.again(filled.server)
        until(lambda: status(vault)["panic"]["on"])
        assert server.introspect(token) == {"active": False}
        assert agent.token("read:contacts").status_code == 503
        assert agent.http.get("/readyz").status_code == 503
        told = until(lambda: status(vault) if status(vault)["warnings"] else None)
        assert told["ledger"]["writable"] is False
        assert "its column type is not what its body says" in told["ledger"]["fault"]
        assert any("does not hold" in line for line in told["warnings"])
        query = {"type": "audit.ambiguous"}
        until(lambda: vault.operator.get("/api/audit", params=query).json()["events"])
        doctor = vault.cli("doctor", "--json")
        assert doctor.returncode == 1
        assert "does not hold" in doctor.stdout
        lift = vault.operator.post("/api/agents/restore", json={"all": True})
        assert lift.status_code == 503
        revoked = {"agent_id": agent.id, "reason": "to be sure"}
        cut = vault.operator.post("/api/agents/revoke", json=revoked).json()
        assert cut["recorded"] is True
        until(lambda: not (home / "keys" / "cuts-kept").exists())
    with serving(home, tenant=False) as vault:
        assert status(vault)["panic"]["on"] is True
        lift = vault.operator.post("/api/agents/restore", json={"all": True})
        assert lift.status_code in {409, 503}
        until(lambda: status(vault)["ledger"]["fault"])
        assert vault.again(server).introspect(token) == {"active": False}
        vault.kill()
        assert vault.cli("audit", "accept", "--reason", "mended").returncode == 0
    with serving(home, tenant=False) as vault:
        until(lambda: complete(vault))
        assert vault.cli("agents", "restore", "--all").returncode == 0
        assert vault.again(server).introspect(token) == {"active": False}
        other = vault.register("other", "read:contacts")
        assert other.token("read:contacts").status_code == 200


def test_a_right_ledger_is_verified_to_its_end_and_a_killed_verifier_runs_again(
    filled: Filled,
) -> None:
    """The status says so, and while it is not so."""
    with serving(filled.home, tenant=False) as vault:
        os.kill(until(lambda: verifier(vault)), signal.SIGKILL)
        warnings = until(lambda: status(vault)["warnings"])
        assert "ended with -9" in warnings[0]
        verified = until(lambda: complete(vault))
        assert verified["seq"] > CHECKED_AT_START
        assert all("The tenant" in line for line in status(vault)["warnings"])
        assert vault.again(filled.agent).token("read:contacts").status_code == 200
