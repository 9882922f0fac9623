"""Files of many agents are applied whole or not at all, whenever a broker is killed."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.vault import Vault, serving

MANY = 300


def files(scope: str, first: str) -> dict[str, Any]:
    """Return agents that all have *scope*, of which the *first* has others besides."""
    agents = {
        f"agent-{number}": {"owner": "olga", "scopes": [scope]}
        for number in range(MANY)
    }
    agents["agent-0"]["scopes"] = [first]
    return {"agents": agents}


def scopes(vault: Vault) -> dict[str, list[str]]:
    page = vault.operator.get("/api/agents?tokens=false&limit=500").json()
    return {one["name"]: one["scopes"] for one in page["agents"]}


@pytest.mark.slow
def test_kill_9_while_files_are_applied(home: Path) -> None:
    """After each kill all agents are as before, or all are as the files say."""
    rounds = ("read:calendar", "read:contacts", "read:email", "write:calendar")
    answered: list[str] = []
    before: dict[str, list[str]] = {}
    for number, scope in enumerate(rounds):
        wanted = files(scope, "read:files")
        with serving(home, tenant=False) as vault:
            assert scopes(vault) == before
            head = vault.operator.get("/api/status").json()["ledger"]["head"]
            path = vault.home / "agentvault.db-wal"

            def apply(vault: Vault, body: dict[str, Any], scope: str) -> None:
                with contextlib.suppress(httpx.TransportError):
                    reply = vault.operator.post("/api/files", json=body)
                    assert reply.status_code == 200, reply.text
                    answered.append(scope)

            applying = threading.Thread(target=apply, args=(vault, wanted, scope))
            size = path.stat().st_size
            applying.start()
            # Killed before it is decided, while its log is written, or after.
            while number and applying.is_alive() and path.stat().st_size == size:
                pass
            if number == len(rounds) - 1:
                applying.join()
            vault.kill()
            applying.join()
        with serving(home, tenant=False) as vault:
            found = scopes(vault)
            said = {name: one["scopes"] for name, one in wanted["agents"].items()}
            assert found in ([said] if scope in answered else [said, before])
            applied = found == said
            events = vault.operator.get(
                "/api/audit", params={"type": "config.applied", "after": head}
            ).json()["events"]
            assert len(events) == int(applied)
            verified = json.loads(vault.cli("audit", "verify", "--json").stdout)
            assert verified["ok"] is True
            before = found
    assert rounds[-1] in answered
