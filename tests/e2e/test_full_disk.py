"""A full disk stops issuing, not revoking; when there is room again all is recorded."""

from __future__ import annotations

import json
from pathlib import Path

from httpx_sse import connect_sse
from support.small_disk import SIZE, fill
from support.vault import Vault, serving


def wait_for_writable(vault: Vault, *, writable: bool) -> None:
    """Follow the status stream until the ledger can, or cannot, be written."""
    with connect_sse(vault.operator, "GET", "/api/events") as source:
        for event in source.iter_sse():
            if event.event == "status":
                status = json.loads(event.data)
                if status["ledger"]["writable"] is writable:
                    return


def test_a_disk_nearly_full_stops_granting_and_records_what_is_cut(
    small_disk: Path,
) -> None:
    """503, also for what is denied, while room for revocations is left; then as before.

    Nothing an agent sends is written meanwhile.
    """
    with serving(small_disk / "home") as vault:
        agent = vault.register("cal", "write:calendar")
        other = vault.register("two", "write:calendar")
        filler = small_disk / "filler"
        fill(filler, leave=SIZE // 16)
        wait_for_writable(vault, writable=False)
        head = vault.operator.get("/api/status").json()["ledger"]["head"]
        for scope in ("write:calendar", "send:payment"):
            refused = other.token(scope)
            assert refused.status_code == 503
            assert refused.json()["error"] == "temporarily_unavailable"
            assert "retry-after" in refused.headers
        assert other.http.get("/readyz").status_code == 503
        status = vault.operator.get("/api/status").json()
        assert status["ledger"]["head"] == head
        assert any("of disk are free" in line for line in status["warnings"])
        assert vault.cli("doctor").returncode == 1
        body = {"agent_id": agent.id, "reason": "runaway"}
        cut = vault.operator.post("/api/agents/revoke", json=body).json()
        assert (cut["recorded"], cut["kept"]) == (True, "ledger")
        filler.unlink()
        wait_for_writable(vault, writable=True)
        assert other.token("write:calendar").status_code == 200


def test_a_full_disk_stops_issuing_but_not_revoking(small_disk: Path) -> None:
    """503 while full; what is revoked holds over a kill, and is recorded later.

    The start on the full disk serves, with the cuts in force and nothing granted.
    """
    filler = small_disk / "filler"
    with serving(small_disk / "home") as vault:
        agent = vault.register("cal", "write:calendar")
        other = vault.register("two", "write:calendar")
        server = vault.register("api", resource_server=True)
        token = agent.token("write:calendar").json()["access_token"]
        while not (small_disk / "home" / "start.reserve").exists():
            pass  # what a start on a full disk needs is taken once it serves
        fill(filler)
        wait_for_writable(vault, writable=False)
        assert other.token("write:calendar").status_code == 503
        number = 0
        while True:  # the log has room left in what it was given
            body = {"agent_id": agent.id, "reason": f"runaway {number}"}
            cut = vault.operator.post("/api/agents/revoke", json=body)
            assert cut.status_code == 200
            if cut.json()["recorded"] is False:
                break
            number += 1
        assert cut.json()["kept"] == "journal"
        assert server.introspect(token) == {"active": False}
        stop = vault.operator.post(
            "/api/agents/revoke", json={"all": True, "reason": "x"}
        )
        assert stop.json()["recorded"] is False
        vault.kill()
    with serving(small_disk / "home") as vault:
        server = vault.again(server)
        assert server.introspect(token) == {"active": False}
        assert vault.operator.get("/api/status").json()["panic"]["on"] is True
        filler.unlink()
        wait_for_writable(vault, writable=True)
        while not vault.operator.get("/api/audit?type=panic.on").json()["events"]:
            pass  # it is recorded once the retry has found room
        assert vault.cli("agents", "restore", "--all").returncode == 0
        assert vault.again(other).token("write:calendar").status_code == 200
        assert vault.cli("audit", "verify").returncode == 0
