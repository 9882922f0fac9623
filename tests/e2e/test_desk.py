"""A person at a terminal: a request is approved there by a one-time code alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_terminal import Open, opener
from support.person import Bare, Operator
from support.vault import Vault, fresh_code, serving
from support.vault_stepups import hold, stepup_until

from agentvault_tui.console.desk import ARM_SECONDS
from agentvault_tui.home import Home

pytestmark = pytest.mark.slow
MOST_KEYS, MOST_S = 10, 15


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
    desk: tuple[Vault, Open], capsys: pytest.CaptureFixture[str]
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
        started = time.monotonic()
        person.press("s")
        person.sees("approve, 2nd factor")
        person._look(ARM_SECONDS)
        person.press("a")
        person.sees("Code from your authenticator", "You are", "alice")
        for digit in code:
            person.press(digit)
        person._look(ARM_SECONDS)
        person.press("Enter")
        shown = person.sees("approved by alice")
        took = time.monotonic() - started
        terminal.write("\x11")
    assert code not in shown
    with capsys.disabled():
        print(f"approved at the desk: {person.keys} keys, {took:.1f} s")
    assert person.keys <= MOST_KEYS
    assert took <= MOST_S
    decided = stepup_until(vault, asked, "approved")
    assert decided["decided_by"]["amr"] == ["mfa", "otp"]
    assert agent.poll(asked).status_code == 200
    for file in vault.home.rglob("*"):
        if file.is_file():
            assert f'"{code}"'.encode() not in file.read_bytes(), file
