"""A whole incident at the console: notice, inspect, deny, revoke, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.command_line import PROGRAM, plain_environment
from support.person import Operator, bare, tmux
from support.vault import PAYMENT, Vault

Run = Callable[[Sequence[str], Mapping[str, str]], AbstractContextManager[Operator]]
LURE = {**PAYMENT, "reason": "Overdue! Enter KDRT-WZNB at https://evil.example/pay"}


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(bare, id="bare terminal"),
        pytest.param(
            tmux,
            id="tmux",
            marks=pytest.mark.skipif(
                shutil.which("tmux") is None, reason="tmux is not installed"
            ),
        ),
    ],
)
def test_an_incident_takes_fewer_than_twenty_keys(
    vault: Vault, tmp_path: Path, run: Run
) -> None:
    """From the first look to the evidence on disk, by the keys the footer names."""
    rogue = vault.register("payments-agent", "send:payment", "read:payments")
    quiet = vault.register("calendar-agent", "write:calendar")
    token = rogue.token("read:payments").json()["access_token"]
    quiet.token("write:calendar")
    rogue.token("delete:records")
    auth_req_id = rogue.token("send:payment", LURE).json()["auth_req_id"]
    line = [*PROGRAM, "--home", str(vault.home), "console"]
    env = plain_environment(HOME=str(tmp_path))
    with run(["sh", "-c", 'cd "$HOME" && exec "$@"', "sh", *line], env) as operator:
        # Notice.
        operator.sees("STEP-UP  1 waiting", "payments-agent  WAITING 1 step-up")
        # Inspect and deny.
        operator.press("s")
        shown = operator.sees("stripe:acct_42", "the agent says (unverified)")
        assert "1 code and 1 link masked" in shown
        assert "evil.example" not in shown
        operator.decide("d", "denied by")
        operator.leave("denied by")
        # Inspect the agent, and cut it off.
        operator.press("Enter")
        operator.sees("Last 24 hours", "Asked for", "delete:records")
        operator.press("r")
        operator.sees("Cuts now    1 token")
        operator.decide("y", "closed here")
        operator.leave("Answered")
        # Keep the evidence.
        operator.press("L")
        operator.sees("on screen verified here", "REFUSED", "agent.revoked")
        operator.press("e")
        operator.sees("File", "Enter export")
        operator.press("Enter")
        operator.sees("Done", "mode 0600")
        operator.press("C-q")
    assert operator.keys < 20
    assert rogue.poll(auth_req_id).json()["error"] == "access_denied"
    assert rogue.introspect(token) == {"active": False}
    assert rogue.token("read:payments").json()["reason"] == "agent_revoked"
    assert quiet.token("write:calendar").status_code == 200
    (export,) = tmp_path.glob("agentvault-audit-*.jsonl")
    assert export.stat().st_mode & 0o777 == 0o600
    types = [json.loads(row).get("type") for row in export.read_text().splitlines()]
    assert {"stepup.requested", "stepup.denied", "agent.revoked"} <= set(types)
    assert vault.cli("audit", "verify").returncode == 0
