"""A person at a terminal with a security key: it alone approves a request there."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.authenticator import Authenticator
from support.phone import Phone
from support.security_key import PIN, SoftKey
from support.vault import serving
from support.vault_stepups import hold, stepup_until

from agentvault_tui.cli.app import run
from agentvault_tui.operator_api import security_key
from agentvault_tui.operator_api.security_key import SecurityKeys
from agentvault_tui.operator_api.sessions import KeyChallenge

from .test_desk import decide, me

pytestmark = pytest.mark.slow


def test_a_security_key_approves_what_was_shown_and_nothing_else(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The broker begins the flow, the tenant makes the challenge and verifies it.

    A command does the same: it asks for the PIN, and for a touch.
    """

    def approve(stepup_id: str, pin: str, *more: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{pin}\n"))
        argv = ("stepup", "approve", stepup_id, "--key", *more)
        return run(["--home", str(short), *argv])

    with serving(short) as vault:
        agent = vault.register("payer", "send:payment")
        asked, other = hold(agent), hold(agent, 7)
        shown = vault.operator.get(f"/api/agents/stepup/{asked}").json()
        body = {"id": asked, "digest": shown["digest"]}
        path = "/api/agents/stepup/key"
        refused = vault.operator.post(path, json=body).json()
        assert refused["factor"] == "sign_in_needed"

        user = vault.approver("alice")
        told = vault.cli("tenant", "user", "passkey", "alice", "--json")
        url = me(vault)["page"]
        browser = Phone.at_desk(url)
        browser.open(urlsplit(json.loads(told.stdout)["link"]).path.removeprefix("/"))
        made = Authenticator(url)
        answer = made.create(browser.options("create"))
        assert browser.send("create", credential=answer).step == "passkey-done"
        browser.http.close()
        monkeypatch.setattr(security_key, "_listed", lambda: [lambda: SoftKey(made)])
        assert approve(other, PIN) == 2
        assert "nobody is signed in here" in capsys.readouterr().err
        assert approve(other, PIN, "--here") == 2

        login = vault.operator.post("/api/auth/login", json={}).json()
        vault.activate(login["device"], user)
        while me(vault)["user"] is None:
            time.sleep(0.05)
        wrong = {**body, "digest": "sha256:" + "0" * 64}
        assert vault.operator.post(path, json=wrong).status_code == 409
        begun = vault.operator.post(path, json=body)
        assert begun.status_code == 200, begun.text
        wanted = KeyChallenge(**begun.json())
        keys = SecurityKeys(lambda: [lambda: SoftKey(made)])
        signed = asyncio.run(keys.sign(wanted, PIN, lambda: None))
        assert decide(vault, other, passkey=signed).json()["factor"] == "bad_passkey"
        assert decide(vault, asked, passkey=signed).status_code == 202
        decided = stepup_until(vault, asked, "approved")
        assert decided["decided_by"]["amr"] == ["hwk", "user", "mfa"]
        assert agent.poll(asked).status_code == 200
        assert approve(other, "1234") == 1
        assert "the PIN of the key is wrong" in capsys.readouterr().err
        assert approve(other, PIN) == 0
        printed = capsys.readouterr()
        assert "Touch the security key" in printed.err
        assert PIN not in printed.out + printed.err
        assert agent.poll(other).status_code == 200
