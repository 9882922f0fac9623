"""A full disk stops issuing, not revoking; when there is room again all is recorded."""

from __future__ import annotations

import errno
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx_sse import connect_sse
from support.vault import Vault, serving


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="av") as folder:
        mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["/bin/umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write until there is no room for one more page."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - how the loop ends


def wait_for_writable(vault: Vault, *, writable: bool) -> None:
    """Follow the status stream until the ledger can, or cannot, be written."""
    with connect_sse(vault.operator, "GET", "/api/events") as source:
        for event in source.iter_sse():
            if event.event == "status":
                status = json.loads(event.data)
                if status["ledger"]["writable"] is writable:
                    return


def test_a_full_disk_stops_issuing_but_not_revoking(small_disk: Path) -> None:
    """503 while full; the revocation holds at once and is recorded afterwards."""
    with serving(small_disk / "home") as vault:
        agent = vault.register("cal", "write:calendar")
        other = vault.register("two", "write:calendar")
        server = vault.register("api", resource_server=True)
        token = agent.token("write:calendar").json()["access_token"]
        filler = small_disk / "filler"
        fill(filler)
        while other.token("write:calendar").status_code == 200:
            pass  # until the log's last free page is used up
        refused = other.token("write:calendar")
        assert refused.status_code == 503
        assert refused.json()["error"] == "temporarily_unavailable"
        assert "retry-after" in refused.headers
        wait_for_writable(vault, writable=False)
        body = {"agent_id": agent.id, "reason": "runaway"}
        cut = vault.operator.post("/api/agents/revoke", json=body)
        assert cut.status_code == 200
        assert cut.json()["recorded"] is False
        assert server.introspect(token) == {"active": False}
        filler.unlink()
        wait_for_writable(vault, writable=True)
        while other.token("write:calendar").status_code != 200:
            pass  # it answers again once the retry has found room
        query = {"type": "agent.revoked"}
        events = vault.operator.get("/api/audit", params=query).json()["events"]
        assert [event["reason"] for event in events] == ["runaway"]
        assert vault.cli("audit", "verify").returncode == 0
