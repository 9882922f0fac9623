"""`agentvault connections` with real processes: two pages, a token, and taken away."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.command_line import plain_environment
from support.patience import PATIENT
from support.token_vault import TO_PROVIDER, VAULT
from support.vault import Client, Vault, consent

CONFIG = """
[connections.workspace]
scopes = ["read:calendar", "write:calendar"]
"""


@pytest.fixture
def home(short: Path) -> Path:
    short.mkdir(exist_ok=True)
    (short / "config.toml").write_text(CONFIG)
    return short


@contextmanager
def adding(vault: Vault, agent: str) -> Iterator[subprocess.Popen[str]]:
    """Run `connections add` as an operator would whose terminal is a program."""
    line = [sys.executable, "-P", "-m", "agentvault_tui.cli", "--home", str(vault.home)]
    wanted = ["connections", "add", agent, "workspace", "--scope", "calendar.read"]
    with subprocess.Popen(
        [*line, *wanted, "--port", "0", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=plain_environment(),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def step(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def exchange(client: Client) -> httpx.Response:
    form = {"requested_token_type": TO_PROVIDER, "connection": "workspace"}
    return client.http.post("/oauth/token", data={"grant_type": VAULT, **form})


def connect(vault: Vault, agent: str, user: dict[str, str]) -> dict[str, Any]:
    """Walk both pages, the addresses pasted; return the connected account."""
    with adding(vault, agent) as process:
        while (reached := step(process))["step"] != "done":
            assert process.stdin is not None
            process.stdin.write(consent(reached["page"], user) + "\n")
            process.stdin.flush()
        assert process.wait(PATIENT) == 0
    return dict(reached["connection"])


def taken(vault: Vault, token: str) -> bool:
    """Tell whether the provider takes *token*."""
    answer = httpx.get(
        f"{vault.ready['tenant']}agentvault/workspace/tokeninfo",
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
    )
    return answer.status_code == 200


def shown(vault: Vault, client: Client) -> dict[str, Any]:
    return dict(vault.operator.get(f"/api/agents/{client.id}").json())


def steps_over(vault: Vault, client: Client) -> dict[str, dict[str, Any]]:
    """Wait until nothing of the agent's revocation is pending any more."""
    with vault.operator.stream("GET", "/api/events", timeout=PATIENT) as events:
        lines = events.iter_lines()
        while True:
            rows = shown(vault, client)["upstream"]
            if all(row["status"] != "pending" for row in rows):
                return {row["step"]: row for row in rows}
            next(lines)


def test_a_revocation_ends_the_token_at_the_provider(vault: Vault) -> None:
    """It works there, the agent is revoked, and the provider refuses it: all told."""
    user = vault.approver("ursula")
    client = vault.register("mail-agent", "read:calendar", "write:calendar")
    account = connect(vault, "mail-agent", user)
    assert account["provider_user"] == "ursula"
    assert account["at_provider"] == {"known": True, "kept_for": [], "may_cut": []}
    token = exchange(client).json()["access_token"]
    assert taken(vault, token)
    assert shown(vault, client)["outside_until"]
    revoked = vault.cli("agents", "revoke", "mail-agent", "--reason", "it went rogue")
    assert revoked.returncode == 0
    # The provider may have answered before the reply was written.
    assert re.search("workspace token (pending|confirmed)", revoked.stdout)
    rows = steps_over(vault, client)
    assert {row["status"] for row in rows.values()} <= {"confirmed", "withdrawn"}
    assert rows["provider token"]["connection"] == "workspace"
    assert not taken(vault, token)
    assert shown(vault, client)["outside_until"] is None
    shown_now = " ".join(vault.cli("agents", "show", "mail-agent").stdout.split())
    assert "workspace token confirmed" in shown_now


def test_a_token_would_be_sent_in_clear_so_nothing_starts(vault: Vault) -> None:
    """An endpoint without https ends a start with its setting's name, and exit 2."""
    other = vault.home / "other"
    other.mkdir(mode=0o700)
    bad = 'revocation_endpoint = "http://id.acme.test/revoke"\n'
    (other / "config.toml").write_text(CONFIG + bad)
    refused = vault.cli("--home", str(other), "serve", "--listen", "127.0.0.1:0")
    assert refused.returncode == 2
    assert "connections.workspace.revocation_endpoint" in refused.stderr
    assert "does not use https" in refused.stderr


def test_an_account_is_connected_used_and_taken_away(vault: Vault) -> None:
    """One page comes back by itself, the other is pasted; the agent has a token."""
    user = vault.approver("ursula")
    client = vault.register("calendar-agent", "read:calendar", "write:calendar")
    refused = exchange(client).json()
    assert refused["error"] == "federated_connection_refresh_token_not_found"
    with adding(vault, "calendar-agent") as process:
        first = step(process)
        assert first["step"] == "sign_in"
        callback = first["redirect_uri"]
        with httpx.Client(trust_env=False, timeout=PATIENT) as browser:
            # Another site's page, by another name, and an empty visit end nothing.
            assert browser.get(callback).status_code == 404
            elsewhere = {"host": "evil.test"}
            assert (
                browser.get(callback + "?code=x", headers=elsewhere).status_code == 404
            )
            assert browser.get(callback + "?code=x&state=y").status_code == 200
            back = browser.get(consent(first["page"], user))
        assert back.status_code == 200
        assert back.headers["cache-control"] == "no-store"
        second = step(process)
        assert second["step"] == "consent"
        assert process.stdin is not None
        process.stdin.write(consent(second["page"], user) + "\n")
        process.stdin.flush()
        done = step(process)
        assert process.wait(PATIENT) == 0
    assert done["connection"]["provider_scopes"] == ["calendar.read"]
    given = exchange(client)
    assert given.status_code == 200, given.text
    told = vault.cli("connections", "list", "--json")
    (listed,) = json.loads(told.stdout)["connections"]
    assert listed["agent_name"] == "calendar-agent"
    assert listed["user_name"] == user["user"]
    assert listed["outside_until"]
    agent = shown(vault, client)
    assert agent["connections"][0]["account"] == listed["account"]
    assert agent["outside_until"] == listed["outside_until"]
    assert "calendar-agent" in vault.cli("connections", "list").stdout
    removed = vault.cli("connections", "remove", "calendar-agent", "workspace")
    assert removed.returncode == 0
    assert "deleted in Token Vault" in removed.stdout
    assert "works at the provider until" in removed.stdout
    assert exchange(client).status_code == 401
    assert (
        vault.cli("connections", "remove", "calendar-agent", "workspace").returncode
        == 4
    )
