"""The policy of a real broker: attacked, tightened, deleted, over kill -9 and reset."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.patience import PATIENT
from support.vault import Vault, serving

STRICT = """
@id("all") @why("w") @obligation("allow") permit (principal, action, resource);
@id("large") @why("It is a large amount.") @obligation("step_up")
permit (principal, action, resource)
when { context has amount && context.amount > 1000 };
"""


def detail(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "agentvault:action", "parameters": parameters}


def ready(vault: Vault) -> httpx.Response:
    return httpx.get(vault.ready["agents_url"] + "/readyz", trust_env=False)


def loaded(vault: Vault, version: str) -> None:
    """Wait until another policy than *version* is in force, or is refused."""
    deadline = time.monotonic() + PATIENT
    while time.monotonic() < deadline:
        told = vault.operator.get("/api/policy").json()
        if told["version"] != version or told["problem"]:
            return
        time.sleep(0.05)
    pytest.fail("the policy was not looked at")


def test_a_policy_holds_over_attack_deletion_and_kill_9(home: Path) -> None:
    """No spelling of an amount gets by, live tokens end, and a reset is on purpose."""
    with serving(home) as vault:
        shipped = vault.operator.get("/api/policy").json()["version"]
        agent = vault.register("agent", "write:calendar", "read:calendar")
        server = vault.register("server", "read:calendar", resource_server=True)
        token = agent.token("write:calendar").json()["access_token"]
        assert server.introspect(token)["active"]
        (home / "policy.cedar").write_text(STRICT)
        loaded(vault, shipped)
        strict = vault.operator.get("/api/policy").json()["version"]
        assert not server.introspect(token)["active"]
        assert agent.token(
            "write:calendar", detail({"amount": 1000, "currency": "EUR"})
        ).is_success
        for parameters in (
            {},
            {"amount": 5000.0},
            {"amount": "5000"},
            {"amount": 1e6},
            {"amount": -5000},
            {"Amount": 5000},
            {"amount": 1, "inner": {"amount": 5000}},
        ):
            answer = agent.token("write:calendar", detail(parameters))
            assert answer.status_code == 403, parameters
        (home / "policy.cedar").unlink()
        loaded(vault, strict)
        assert ready(vault).json()["policy_loaded"] is False
        vault.kill()
    with serving(home) as vault:
        assert vault.operator.get("/api/policy").json()["version"] == strict
        assert (ready(vault).status_code, ready(vault).json()["policy_loaded"]) == (
            503,
            False,
        )
        agent = vault.again(agent)
        assert agent.token("write:calendar").status_code == 403
        done = vault.cli("policy", "reset")
        assert (done.returncode, done.stderr) == (0, "")
        assert vault.operator.get("/api/policy").json()["version"] == shipped
        assert ready(vault).is_success
        assert agent.token("write:calendar").is_success
        assert vault.cli("audit", "verify").returncode == 0


@pytest.mark.slow
def test_kill_9_while_policies_are_applied(home: Path) -> None:
    """After each kill file, record and what decides are one policy that was applied."""
    sent, answered = [""], [""]
    number = itertools.count()
    for _ in range(4):
        with serving(home, tenant=False) as vault:
            in_force = check_applied(vault)
            # What was answered is in force, or what was being applied after it.
            assert in_force in sent[sent.index(answered[-1]) :]
            asks, enough = len(answered) + 2, threading.Event()

            def apply(
                vault: Vault = vault, asks: int = asks, enough: threading.Event = enough
            ) -> None:
                with contextlib.suppress(httpx.TransportError):
                    while True:
                        sent.append(f"{STRICT}// {next(number)}\n")
                        body = {"policy": sent[-1]}
                        reply = vault.operator.post("/api/policy/apply", json=body)
                        assert reply.is_success, reply.text
                        answered.append(sent[-1])
                        if len(answered) >= asks:
                            enough.set()

            thread = threading.Thread(target=apply)
            thread.start()
            assert enough.wait(PATIENT)
            vault.kill()
            thread.join(PATIENT)
    with serving(home, tenant=False) as vault:
        check_applied(vault)
        assert vault.cli("audit", "verify").returncode == 0
        assert vault.cli("policy", "replay").returncode == 0


def check_applied(vault: Vault) -> str:
    """Return the text in force, which file and record say too; empty at first."""
    told = vault.operator.get("/api/policy").json()
    file = vault.home / "policy.cedar"
    if not file.exists():
        return ""
    assert (told["text"], told["problem"]) == (file.read_text(), None)
    changed = vault.operator.get("/api/audit?type=policy.changed&limit=1").json()
    assert changed["events"][-1]["detail"]["after"] == told["version"]
    return str(told["text"])
