"""`agentvault changes` against a broker whose socket asks for a factor."""

from __future__ import annotations

import json
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.forked import Forked
from support.patience import PATIENT
from support.vault import Vault, fresh_code, plain_environment, serving

ALLOW = (
    '@id("more") @why("w") @obligation("allow")\npermit(principal, action, resource);\n'
)


def asked(vault: Vault, path: str, **body: Any) -> dict[str, Any]:
    """Ask for a loosening; return the change that waits."""
    answer = vault.operator.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def said(vault: Vault, *argv: str, code: int = 0) -> str:
    done = vault.cli("changes", *argv)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_change_is_listed_shown_denied_and_approved() -> None:
    """By its own commands, in words of a change; the answer is given once."""
    with (
        tempfile.TemporaryDirectory(prefix="h-") as folder,
        serving(Path(folder), AGENTVAULT_CHANGES_SOCKET="factor") as vault,
    ):
        ann = vault.approver("ann")
        payer = vault.register("payer")
        grant = {"agent_id": payer.agent_id, "grant": ["send:payment"]}
        first = asked(vault, "/api/agents/scopes", **grant)
        listed = said(vault, "list", "--status", "waiting")
        for words in (first["id"], first["summary"], "0 of 1", first["fingerprint"]):
            assert words in listed
        assert f"change: {first['summary']}" in vault.cli("stepup", "list").stdout
        shown = said(vault, "show", first["id"])
        for words in ("Operator", first["summary"], first["digest"], "first of its"):
            assert words in " ".join(shown.split())
        assert "token" not in shown
        assert "denied" in said(vault, "deny", first["id"], "--reason", "not now")
        denied = json.loads(said(vault, "list", "--status", "denied", "--json"))
        assert [one["denial"] for one in denied["changes"]] == ["not now"]
        assert "no change has that id" in said(vault, "show", "sup_1", code=4)

        new = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
        change = asked(vault, "/api/agents", **new)["id"]
        argv = ("--home", folder, "changes", "approve", change, "--json")
        with Forked(argv, plain_environment()) as process:
            code = json.loads(process.stdout.readline())["device"]["user_code"]
            file = Path(folder) / "password"
            file.touch(0o600)
            file.write_text(ann["password"])
            done = vault.cli(
                *("tenant", "activate", code, "--user", ann["user"], "--yes"),
                *("--password-file", str(file), "--otp", fresh_code(ann)),
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "accepted it" in done.stdout + done.stderr
            assert "requested by" in done.stdout
            rest, _ = process.communicate(timeout=PATIENT)
        assert process.returncode == 0
        assert json.loads(rest)["status"] == "applied"
        assert '"client_secret":"av_s_' in said(vault, "show", change)
        assert "client_secret" not in said(vault, "show", change)


@pytest.mark.slow
def test_only_the_command_that_asked_gets_the_secret(short: Path) -> None:
    """Another program of the same user polls for it, and finds the change applied."""
    with serving(short, AGENTVAULT_CHANGES_SOCKET="factor") as vault:
        ann = vault.approver("ann")
        add = ("agents", "add", "new", "--owner", "o", "--scope", "read:calendar")
        with Forked(("--home", str(short), *add), plain_environment()) as process:
            line = next(one for one in process.stdout if "and enter" in one)
            vault.activate({"user_code": line.split()[-1]}, ann)
            (change,) = vault.operator.get("/api/changes").json()["changes"]
            path, ended = f"/api/changes/{change['id']}", None
            while ended is None or ended["status"] != "applied":
                ended = vault.operator.get(path).json()
                assert ended["result"] is None
            rest, _ = process.communicate(timeout=PATIENT)
        assert "av_s_" in rest
        # Its own claim keeps the same request of another program apart.
        body = {"name": "other", "owner": "o", "scopes": ["read:calendar"]}
        (first, second, again) = (
            vault.operator.post("/api/agents", json=body, headers=claim).json()["id"]
            for claim in ({"agentvault-claim": "a"}, {"agentvault-claim": "b"}, {})
        )
        assert len({first, second, again}) == 3


@pytest.mark.slow
def test_an_approved_change_of_a_person_is_made_without_its_command(
    short: Path,
) -> None:
    """The terminal went away before. One about a person who is gone is cancelled."""

    def asks(vault: Vault, *argv: str) -> tuple[str, str]:
        """Ask for a change, and end the command; return the code and the change."""
        argv = ("--home", str(short), "tenant", "user", *argv)
        with Forked(argv, plain_environment()) as process:
            line = next(one for one in process.stdout if "and enter" in one)
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=PATIENT)
        change = vault.operator.get("/api/changes").json()["changes"][0]["id"]
        return line.split()[-1], change

    def people(vault: Vault) -> dict[str, list[str]]:
        listed = json.loads(vault.cli("tenant", "user", "list", "--json").stdout)
        return {one["name"]: one["roles"] for one in listed["users"]}

    with serving(short, AGENTVAULT_CHANGES_SOCKET="factor") as vault:
        assert vault.cli("tenant", "user", "add", "vic").returncode == 0
        ann = vault.approver("ann")
        code, change = asks(vault, "role", "vic", "operator")
        vault.activate({"user_code": code}, ann)
        status = ""
        while status != "applied":
            status = vault.operator.get(f"/api/changes/{change}").json()["status"]
        assert people(vault)["vic"] == ["operator"]
        for wrong in ({"user": "vic", "sub": "x"}, {"user": "nobody", "sub": "x"}):
            body = {"change": "removed", **wrong}
            refused = vault.operator.post("/api/tenant/people", json=body)
            assert refused.status_code in {404, 409}
        assert "removed" not in vault.cli("audit", "search", "vic").stdout
        _, change = asks(vault, "role", "vic", "approver")
        assert vault.cli("tenant", "user", "remove", "vic").returncode == 0
        ended = vault.operator.get(f"/api/changes/{change}").json()
        assert ended["status"] == "cancelled"
        assert "vic" not in people(vault)


@pytest.mark.slow
def test_a_command_ends_if_its_code_ends_without_an_approval() -> None:
    """It exits 1 and names the change that still waits; a new code approves that."""
    with (
        tempfile.TemporaryDirectory(prefix="h-") as folder,
        serving(Path(folder), AGENTVAULT_CHANGES_SOCKET="factor") as vault,
    ):
        viewer = json.loads(vault.cli("tenant", "user", "add", "bob", "--json").stdout)
        vault.approver("ann")
        assert vault.cli("panic").returncode == 0
        argv = ("--home", folder, "lift-panic")
        with Forked(argv, plain_environment()) as process:
            line = next(one for one in process.stdout if "and enter" in one)
            vault.activate({"user_code": line.split()[-1]}, viewer)
            _, error = process.communicate(timeout=PATIENT)
        assert process.returncode == 1, error
        (waiting,) = json.loads(said(vault, "list", "--json"))["changes"]
        assert f"the change {waiting['id']} still waits" in error
        assert f"changes approve {waiting['id']} makes a new code" in error
        assert waiting["status"] == "pending"


@pytest.mark.slow
def test_the_command_that_takes_a_code_prints_the_lines_of_a_change(
    tmp_path: Path,
) -> None:
    """A colleague who is given the code sees what they approve."""
    with (
        tempfile.TemporaryDirectory(prefix="h-") as folder,
        serving(Path(folder), AGENTVAULT_CHANGES_SOCKET="factor") as vault,
    ):
        ann = vault.approver("ann")
        change = asked(vault, "/api/policy/apply", policy=ALLOW)
        body = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
        begun = vault.operator.post("/api/changes", json=body).json()
        password = tmp_path / "password"
        password.touch(0o600)
        password.write_text(ann["password"])
        done = vault.cli(
            *("tenant", "activate", begun["device"]["user_code"], "--user", "ann"),
            *("--password-file", str(password), "--otp", fresh_code(ann), "--yes"),
        )
        assert "+permit(principal, action, resource);" in done.stdout, done.stderr
