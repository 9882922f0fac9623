"""A broker whose tenant is away starts, answers agents, and grants nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.vault import PAYMENT, Vault, serving

NOWHERE = "https://tenant.invalid/"
"""RFC 6761 section 6.4: no resolver has an address for it."""


@pytest.fixture(params=["nothing listens", "no such name"])
def vault(short: Path, request: pytest.FixtureRequest) -> Iterator[Vault]:
    """One that was started while its tenant was away."""
    issuer = NOWHERE
    if request.param == "nothing listens":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            issuer = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    short.joinpath("config.toml").write_text(
        f"[tenant]\nissuer = {json.dumps(issuer)}\nclient_id = 'console'\n"
    )
    with serving(short) as running:
        assert running.ready["tenant"] == issuer
        yield running


def test_agents_are_answered_and_what_needs_a_person_waits(vault: Vault) -> None:
    """From its own state; whoever approves or signs in is told why not, in a line."""
    agent = vault.register("payer", "write:calendar", "send:payment")
    assert agent.token("write:calendar").status_code == 200
    held = agent.token("send:payment", PAYMENT)
    assert held.json()["error"] == "insufficient_user_authentication"
    request_id = held.json()["auth_req_id"]
    for argv in (("stepup", "approve", request_id), ("login",)):
        said = vault.cli(*argv)
        assert said.returncode == 1
        assert "the tenant cannot be reached" in said.stderr
        assert said.stderr.count("\n") == 1
    assert agent.poll(request_id).json()["error"] == "authorization_pending"
    assert vault.operator.get("/api/status").json()["tenant"]["reachable"] is False
    doctor = vault.cli("doctor", "--json")
    assert doctor.returncode == 1
    assert "does not answer" in doctor.stdout
    # Cutting off needs no tenant.
    assert vault.cli("agents", "revoke", "payer", "--reason", "away").returncode == 0
    assert agent.token("write:calendar").json()["reason"] == "agent_revoked"
    assert vault.cli("audit", "verify").returncode == 0
