"""A rogue agent fills the disk, is cut off, and no restart lets it back in."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from support.patience import PATIENT
from support.vault import PAYMENT, Client, Vault, serving

ROOM = 1_200_000
"""Bytes a file may have: what is in place can be overwritten, nothing grows."""


def full(vault: Vault) -> None:
    """Let no file of the broker grow any more, as on a full disk."""
    limits = (ROOM, resource.RLIM_INFINITY)
    resource.prlimit(vault.process.pid, resource.RLIMIT_FSIZE, limits)


def ask_until_refused(agent: Client) -> None:
    """Ask, with long words, until nothing can be recorded."""
    long = {**PAYMENT, "action": "read:contacts", "reason": "x" * 3000}
    while (answer := agent.token("read:contacts", long)).status_code != 503:
        assert answer.status_code == 200, answer.text


def ended(vault: Vault, how: signal.Signals) -> None:
    vault.process.send_signal(how)
    vault.process.wait(PATIENT)


def cut(vault: Vault, path: str, **body: Any) -> dict[str, Any]:
    answer = vault.operator.post(f"/api/agents/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def events(vault: Vault, kind: str) -> list[dict[str, Any]]:
    query = {"type": kind}
    found = vault.operator.get("/api/audit", params=query).json()["events"]
    return [dict(event) for event in found]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_restart_forgets_what_was_cut_on_a_full_disk(
    home: Path, how: signal.Signals
) -> None:
    """Revoked, ungranted, denied and handed back: so at the first answer afterwards."""
    with serving(home, tenant=False) as vault:
        rogue = vault.register("rogue", "read:contacts")
        clerk = vault.register("clerk", "write:calendar", "read:contacts")
        payer = vault.register("payer", "send:payment", "write:calendar")
        server = vault.register("api", resource_server=True)
        secrets = {
            "rogue": rogue.token("read:contacts").json()["access_token"],
            "clerk": clerk.token("write:calendar").json()["access_token"],
            "payer": payer.token("write:calendar").json()["access_token"],
        }
        held = payer.token("send:payment", PAYMENT).json()["auth_req_id"]
        full(vault)
        ask_until_refused(rogue)
        reply = cut(vault, "revoke", agent_id=rogue.id, reason="fills the disk")
        assert (reply["recorded"], reply["kept"]) == (False, "journal")
        cut(vault, "scopes", agent_id=clerk.id, grant=[], ungrant=["write:calendar"])
        payer.http.post("/oauth/revoke", data={"token": secrets["payer"]})
        denial = {"id": held, "decision": "deny", "reason": "not this"}
        cut(vault, "stepup", **denial)
        status = vault.operator.get("/api/status").json()
        assert any("kept in the cut journal" in line for line in status["warnings"])
        ended(vault, how)
    with serving(home, tenant=False) as vault:
        server, payer = vault.again(server), vault.again(payer)
        assert server.introspect(secrets["rogue"]) == {"active": False}
        assert server.introspect(secrets["clerk"]) == {"active": False}
        assert server.introspect(secrets["payer"]) == {"active": False}
        assert vault.again(rogue).token("read:contacts").json()["reason"] == (
            "agent_revoked"
        )
        assert payer.poll(held).json()["reason"] == "stepup_denied"
        (revoked,) = events(vault, "agent.revoked")
        assert revoked["reason"] == "fills the disk"
        assert revoked["actor"]["id"] == f"uid:{os.getuid()}"
        assert len(events(vault, "agent.scopes_changed")) == 1
        assert len(events(vault, "stepup.denied")) == 1
        assert len(events(vault, "token.revoked")) == 1
        assert vault.cli("audit", "verify").returncode == 0
        doctor = vault.cli("doctor", "--json").stdout
        assert "cut journal" not in json.dumps(json.loads(doctor))


def test_a_panic_holds_through_starts_on_a_disk_that_stays_full(home: Path) -> None:
    """It serves with the panic in force, grants nothing, and records it once it can."""
    with serving(home, tenant=False) as vault:
        rogue = vault.register("rogue", "read:contacts")
        server = vault.register("api", resource_server=True)
        token = rogue.token("read:contacts").json()["access_token"]
        full(vault)
        ask_until_refused(rogue)
        assert cut(vault, "revoke", all=True, reason="stop")["recorded"] is False
        vault.kill()
    # Room for less than the log holds, or a checkpoint would make room in it again.
    with serving(home, room=ROOM // 2, tenant=False) as vault:
        server = vault.again(server)
        assert server.introspect(token) == {"active": False}
        status = vault.operator.get("/api/status").json()
        assert status["panic"]["reason"] == "stop"
        assert status["ledger"]["writable"] is False
        assert server.http.get("/readyz").status_code == 503
        lift = vault.operator.post("/api/agents/restore", json={"all": True})
        assert lift.status_code == 503
        vault.kill()
    with serving(home, tenant=False) as vault:
        assert vault.operator.get("/api/status").json()["panic"]["on"] is True
        assert vault.again(server).introspect(token) == {"active": False}
        assert [event["reason"] for event in events(vault, "panic.on")] == ["stop"]
        assert vault.cli("agents", "restore", "--all").returncode == 0


def test_a_journal_somebody_deleted_stops_everything(home: Path) -> None:
    """Its file and its marker gone, the chain still says that there was one."""
    with serving(home, tenant=False) as vault:
        agent = vault.register("bot", "read:contacts")
        vault.kill()
    (home / "cuts.journal").unlink()
    (home / "keys" / "cuts-kept").unlink()
    with serving(home, tenant=False) as vault:
        status = vault.operator.get("/api/status").json()
        assert status["panic"]["on"] is True
        assert "stopped at the start" in status["panic"]["reason"]
        answer = vault.again(agent).token("read:contacts")
        assert answer.json()["reason"] == "panic"
        assert vault.cli("agents", "restore", "--all").returncode == 0
        assert agent.token("read:contacts").status_code == 200
