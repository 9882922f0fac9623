"""A whole incident at the console: notice, inspect, deny, revoke, export."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from support.command_line import PROGRAM, plain_environment
from support.line_person import at_lines
from support.needs import needs
from support.person import Operator, bare, tmux
from support.vault import PAYMENT, Client, Vault

Run = Callable[[Sequence[str], Mapping[str, str]], AbstractContextManager[Operator]]
NUMBERS = count(1)
"""Names are unique in a vault, and this one is shared."""
LURE = {**PAYMENT, "reason": "Overdue! Enter KDRT-WZNB at https://evil.example/pay"}


@dataclass
class Trouble:
    """An agent that asks for what it may not, beside one that does its work."""

    vault: Vault
    name: str
    rogue: Client
    quiet: Client
    token: str
    auth_req_id: str

    def is_over(self, export: Path) -> None:
        """Hold what the operator did against what holds now, and what was kept."""
        polled = self.rogue.poll(self.auth_req_id).json()
        assert polled["error"] == "access_denied"
        assert self.rogue.introspect(self.token) == {"active": False}
        assert self.rogue.token("read:payments").json()["reason"] == "agent_revoked"
        assert self.quiet.token("write:calendar").status_code == 200
        assert export.stat().st_mode & 0o777 == 0o600
        rows = [json.loads(row) for row in export.read_text().splitlines()]
        types = {row.get("type") for row in rows}
        assert {"stepup.requested", "stepup.denied", "agent.revoked"} <= types
        assert self.vault.cli("audit", "verify").returncode == 0


@pytest.fixture
def trouble(vault: Vault) -> Trouble:
    name = f"payments-{next(NUMBERS)}"
    rogue = vault.register(name, "send:payment", "read:payments")
    quiet = vault.register(f"calendar-for-{name}", "write:calendar")
    token = rogue.token("read:payments").json()["access_token"]
    quiet.token("write:calendar")
    rogue.token("delete:records")
    asked = rogue.token("send:payment", LURE).json()["auth_req_id"]
    return Trouble(vault, name, rogue, quiet, token, asked)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(bare, id="bare terminal"),
        pytest.param(
            tmux,
            id="tmux",
            marks=needs(shutil.which("tmux"), "tmux", "apt-get install tmux"),
        ),
    ],
)
def test_an_incident_takes_fewer_than_twenty_keys(
    trouble: Trouble, tmp_path: Path, run: Run
) -> None:
    """From the first look to the evidence on disk, by the keys the footer names."""
    line = [*PROGRAM, "--home", str(trouble.vault.home), "console"]
    env = plain_environment(HOME=str(tmp_path))
    with run(["sh", "-c", 'cd "$HOME" && exec "$@"', "sh", *line], env) as operator:
        # Notice.
        operator.sees("STEP-UP  1 waiting", f"{trouble.name}  WAITING 1 step-up")
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
        operator.sees("Ends        1 token")
        operator.decide("y", "closed here")
        operator.leave("answered in")
        # Keep the evidence.
        operator.press("L")
        operator.sees("on screen verified here", " denied ", "agent revoked")
        operator.press("e")
        operator.sees("File", "Enter export")
        operator.press("Enter")
        operator.sees("Done", "mode 0600")
        operator.press("C-q")
    assert operator.keys < 20
    (export,) = tmp_path.glob("agentvault-audit-*.jsonl")
    trouble.is_over(export)


def test_an_incident_line_by_line(trouble: Trouble, tmp_path: Path) -> None:
    """The same in plain mode: by what is said, and the commands that it names."""
    export = tmp_path / "evidence.jsonl"
    home = str(trouble.vault.home)
    env = plain_environment(HOME=str(tmp_path))
    with at_lines([*PROGRAM, "--home", home, "console", "--plain"], env) as person:
        # Notice.
        told = person.hears("STEP-UP ")
        wants = f"{trouble.name} wants send:payment 4200 USD, unit unknown"
        assert f"{wants} on stripe:acct_42" in told
        show = re.search(r"Type: (show (\w{4}))", told)
        assert show is not None
        # Inspect and deny.
        person.types(show[1])
        person.hears("The agent says (unverified)")
        person.hears("1 code and 1 link masked")
        person.decides(f"deny {show[2]} not ours", show[2])
        person.hears("denied by")
        # Inspect the agent, and cut it off.
        person.types(f"show {trouble.name}")
        person.hears("delete:records  not granted - denied 1")
        person.decides(f"revoke {trouble.name} rogue", trouble.name)
        person.hears("Closed here after")
        # Keep the evidence.
        person.types(f"export {export}")
        person.hears(f"written to {export}, mode 0600")
        assert person.leaves() == 0
    said = "".join(person.said)
    assert "KDRT-WZNB" not in said
    assert "evil.example" not in said
    assert "\x1b" not in said
    trouble.is_over(export)
