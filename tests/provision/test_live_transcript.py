"""`make live-auth0` without a person: a transcript, and no secret in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from support.command_line import plain_environment
from support.dict_tenant import ADMIN, dict_tenant

SCRIPT = Path(__file__).parents[1] / "live" / "auth0.py"


def test_a_run_is_written_down_without_a_secret(tmp_path: Path) -> None:
    """Plan, apply and doctor stand there; no secret of anyone does, and 0600."""
    transcript = tmp_path / "transcript.txt"
    reader, writer = os.pipe()
    credential = {"client_id": ADMIN[0], "client_secret": ADMIN[1]}
    os.write(writer, json.dumps(credential).encode())
    os.close(writer)
    with dict_tenant() as tenant:
        tenant.seed()
        done = subprocess.run(
            [
                sys.executable,
                str(SCRIPT),
                *("--issuer", tenant.issuer),
                *("--home", str(tmp_path / "home")),
                *("--transcript", str(transcript)),
                *("--credential-fd", str(reader)),
                "--without-people",
            ],
            env=plain_environment(AGENTVAULT_TENANT_RATE="1000"),
            pass_fds=(reader,),
            capture_output=True,
            text=True,
            check=False,
        )
        secrets = {*tenant.secrets, ADMIN[1]}
    os.close(reader)
    assert done.returncode == 0, done.stdout + done.stderr
    told = transcript.read_text()
    for said in (
        "$ agentvault auth0 apply --yes",
        "ok: create client.console",
        "exit 0",
    ):
        assert said in told
    assert told.rstrip().endswith("all of it ran")
    assert not [secret for secret in secrets if secret in told]
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600
