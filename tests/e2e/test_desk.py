"""A person at a terminal: a request is approved there by a one-time code alone."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from support.chromium import chromium, needs_chromium
from support.command_line import PROGRAM, plain_environment
from support.console_terminal import Open, opener
from support.patience import PATIENT
from support.person import Bare, Operator
from support.vault import Vault, fresh_code, serving
from support.vault_stepups import hold, start, stepup_until

from agentvault_tui.home import Home

pytestmark = pytest.mark.slow
MOST_KEYS = 10


@pytest.fixture
def desk(short: Path) -> Iterator[tuple[Vault, Open]]:
    with serving(short) as vault:
        home = Home.locate(vault.home)
        yield vault, opener(home.socket, vault.home)


def sign_in(vault: Vault, name: str = "alice") -> dict[str, str]:
    """Sign an approver in at this terminal, as `agentvault login` does."""
    user = vault.approver(name)
    begun = vault.operator.post("/api/auth/login", json={}).json()
    vault.activate(begun["device"], user)
    while me(vault)["user"] is None:
        time.sleep(0.05)
    return user


def me(vault: Vault) -> dict[str, Any]:
    return dict(vault.operator.get("/api/auth/me").json())


def decide(vault: Vault, asked: str, **factor: str) -> Any:
    found = vault.operator.get(f"/api/agents/stepup/{asked}").json()
    body = {"id": asked, "decision": "approve", "digest": found["digest"]}
    return vault.operator.post("/api/agents/stepup", json={**body, "factor": factor})


def test_a_step_up_is_approved_with_nine_keys_and_no_second_terminal(
    desk: tuple[Vault, Open],
) -> None:
    """`s`, `a`, six digits, Enter; and the code is in no file of the home."""
    vault, console = desk
    user = sign_in(vault)
    agent = vault.register("payer", "send:payment")
    asked = hold(agent)
    code = fresh_code(user)
    with console() as terminal:
        person = Operator(Bare(terminal))
        person.sees("payer", "STEP-UP")
        person.press("s")
        person.sees("approve, 2nd factor")
        person.decide("a", "Code from your authenticator", "You are", "alice")
        for digit in code:
            person.press(digit)
        shown = person.decide("Enter", "approved by alice")
        terminal.write("\x11")
    assert code not in shown
    assert person.keys <= MOST_KEYS
    decided = stepup_until(vault, asked, "approved")
    assert decided["decided_by"]["amr"] == ["mfa", "otp"]
    assert agent.poll(asked).status_code == 200
    for file in vault.home.rglob("*"):
        if file.is_file():
            assert f'"{code}"'.encode() not in file.read_bytes(), file


def test_wrong_used_and_missing_factors_are_told_apart(
    desk: tuple[Vault, Open],
) -> None:
    """Each is a 403 with its code; the request waits on, and nothing is issued."""
    vault, _ = desk
    agent = vault.register("payer", "send:payment")
    asked = hold(agent)
    assert decide(vault, asked, otp="000000").json()["factor"] == "sign_in_needed"
    user = sign_in(vault)
    about = me(vault)["desk"]
    assert (about["name"], about["passkey_only"]) == ("alice", False)
    wrong = decide(vault, asked, otp="000000")
    assert (wrong.status_code, wrong.json()["factor"]) == (403, "wrong_otp")
    code = fresh_code(user)
    assert decide(vault, asked, otp=code).status_code == 202
    stepup_until(vault, asked, "approved")
    second = hold(agent, 7)
    used = decide(vault, second, otp=code).json()
    assert used["factor"] == "used_otp"
    assert "Wait for the next code (0:" in used["detail"]
    for field in ("otp", "password"):
        body = decide(vault, second, **{"otp": "000000", field: "x" * 999})
        assert body.status_code == 400
        assert "xxx" not in body.text
    assert vault.operator.post("/api/auth/logout", json={}).is_success
    assert me(vault)["desk"] is None
    again = decide(vault, second, otp=fresh_code(user)).json()
    assert again["factor"] == "sign_in_needed"


def test_no_other_process_can_answer_at_the_pages_address(
    desk: tuple[Vault, Open],
) -> None:
    """Its port is held on both loopbacks, and the pages are for that name alone."""
    vault, _ = desk
    sign_in(vault)
    page = me(vault)["page"]
    parts = urlsplit(page)
    assert parts.hostname == "localhost"
    assert parts.port is not None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((host, parts.port))
    with httpx.Client(trust_env=False, timeout=PATIENT) as browser:
        at = f"http://127.0.0.1:{parts.port}/"
        name = {"host": f"localhost:{parts.port}"}
        found = browser.get(at, headers=name)
        assert found.status_code == 200
        assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
        assert "embedded" not in found.text
        for host in ("evil.test", f"localhost.evil.test:{parts.port}"):
            assert browser.get(at, headers={"host": host}).status_code == 421
        form = {"user": "alice", "password": "x"}
        forged = {**name, "origin": "http://localhost:1"}
        sent = browser.post(f"{at}sign-in", data=form, headers=forged)
        assert sent.status_code == 403


@needs_chromium
async def test_a_passkey_for_localhost_approves_in_the_browser(
    desk: tuple[Vault, Open], tmp_path: Path
) -> None:
    """No host name and no TLS: the link adds one, and the page takes it."""
    vault, _ = desk
    agent = vault.register("payer", "send:payment")
    vault.approver("alice")
    told = vault.cli("tenant", "user", "passkey", "alice", "--json")
    link = json.loads(told.stdout)["link"]
    page = me(vault)["page"]
    assert link.startswith(page)
    asked = await asyncio.to_thread(hold, agent)
    await asyncio.to_thread(start, vault, asked)
    async with chromium(tmp_path / "profile") as tab:
        await tab.begin(390)
        await tab.open(link)
        await tab.step("passkey")
        await tab.press("create")
        await tab.step("passkey-done")
        await tab.open(f"{page}approve/{asked}")
        await tab.step("approve-sign-in")
        await tab.press("passkey-sign-in")
        await tab.step("approve")
        await tab.press("passkey")
        await tab.until("!!document.querySelector('[data-status=approved]')")
    decided = stepup_until(vault, asked, "approved")
    assert decided["decided_by"]["amr"][1:] == ["user", "mfa"]


def test_the_command_reads_the_code_from_standard_input(
    desk: tuple[Vault, Open],
) -> None:
    """It is no argument; without a sign-in, or without six digits, nothing begins."""
    vault, _ = desk
    agent = vault.register("payer", "send:payment")
    asked = hold(agent)
    line = [*PROGRAM, "--home", str(vault.home), "stepup", "approve", asked, "--here"]

    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line,
            input=text,
            capture_output=True,
            text=True,
            env=plain_environment(PYTHONPATH=str(Path(__file__).parents[2])),
            check=False,
        )

    assert "nobody is signed in here" in run("000000\n").stderr
    user = sign_in(vault)
    short = run("12345\n")
    assert (short.returncode, short.stderr.count("\n")) == (2, 1)
    code = fresh_code(user)
    done = run(f"{code[:3]} {code[3:]}\n")
    assert done.returncode == 0, done.stderr
    assert code not in done.stdout + done.stderr
    assert stepup_until(vault, asked, "approved")["decided_by"]["name"] == "alice"
