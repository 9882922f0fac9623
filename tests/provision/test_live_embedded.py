"""`make live-auth0` from end to end, the embedded tenant in the place of a real one."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.tenant_thread import TenantThread

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.tenant.users import NewUser

SCRIPT = Path(__file__).parents[1] / "live" / "auth0.py"
NAMES = ("alice@acme.test", "bob@acme.test")
CODE = re.compile(r"and enter +(\S+)")


@pytest.fixture
def tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TenantThread]:
    """An embedded tenant whose clock is the one the command lines go by."""
    monkeypatch.setattr("support.tenant_thread.ManualClock", lambda _: SystemClock())
    home = Home.locate(tmp_path / "tenant")
    home.prepare()
    running = TenantThread(home)
    yield running
    running.close()


def test_from_an_empty_tenant_to_an_approved_payment_and_a_revocation(
    tenant: TenantThread, tmp_path: Path
) -> None:
    """Two people approve on the pages; the transcript tells it all, and no secret."""
    people = [tenant.users.add(name, approver=True) for name in NAMES]
    transcript = tmp_path / "transcript.txt"
    transcript.touch(0o644)  # an earlier run's, that anyone may read
    ended = run_live(tenant, people, tmp_path, transcript)
    told = transcript.read_text()
    assert ended == 0, told
    assert "roles      approver" in told
    assert "approved sup_" in told
    assert '"access_token": "[removed]"' in told
    assert '"status":"revoked"' in told
    assert "left alone" in told
    (kept,) = (tmp_path / "home" / "keys").glob("auth0-*.json")
    given = [one.get("client_secret") for one in json.loads(kept.read_text()).values()]
    secrets = [tenant.run.management_secret, *filter(None, given)]
    assert len(secrets) > 2
    assert not [secret for secret in secrets if secret in told]
    assert "av_t_" not in told
    assert "alice@acme.test" not in told
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600


def run_live(
    tenant: TenantThread, people: list[NewUser], folder: Path, transcript: Path
) -> int:
    """Run the script, and approve each code it shows, each by another person."""
    reader, writer = os.pipe()
    run = tenant.run
    credential = {
        "client_id": run.management_id,
        "client_secret": run.management_secret,
    }
    os.write(writer, json.dumps(credential).encode())
    os.close(writer)
    line = [
        *(sys.executable, str(SCRIPT), "--issuer", tenant.issuer),
        *("--home", str(folder / "home"), "--transcript", str(transcript)),
        *("--credential-fd", str(reader)),
    ]
    with subprocess.Popen(
        line,
        env=plain_environment(AGENTVAULT_TENANT_RATE="1000"),
        pass_fds=(reader,),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.close(reader)
        assert process.stdout is not None
        for row in process.stdout:
            if (found := CODE.match(row)) is not None:
                tenant.approve({"user_code": found[1]}, people.pop())
    return process.returncode
