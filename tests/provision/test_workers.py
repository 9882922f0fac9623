"""Agents that exchange with nobody there, held to their pins by the tenant."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.provisioning import Vault, steps

from agentvault_tui.vault.provision import AgentNeed, Pin, PlanStep
from agentvault_tui.vault.provision.names import WORKER

CALENDAR = "https://www.googleapis.com/auth/calendar"
PINNED = {
    "agents": (
        AgentNeed("agt_1", "calendar-agent", (Pin("google-oauth2", (CALENDAR,)),)),
    ),
    "connections": ("google-oauth2",),
    "worker_ips": ("203.0.113.7",),
}


@pytest.mark.slow
async def test_a_worker_gets_a_key_made_here_and_its_pins(vault: Vault) -> None:
    """The private part stays in the home; the tenant gets the public one."""
    vault.tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    await vault.apply(**PINNED)
    client = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    (credential,) = vault.tenant.credentials[client["client_id"]]
    assert client[WORKER] == {
        "credentials": [{"id": credential["id"]}],
        "ip_allowlist": ["203.0.113.7"],
        "grants": [{"connection": "google-oauth2", "scopes": [CALENDAR]}],
    }
    (sent,) = [body for _, path, body in vault.tenant.writes if "credentials" in path]
    assert "PUBLIC KEY" in sent["pem"]
    assert "PRIVATE" not in str(vault.tenant.writes)
    kept = json.loads(vault.kept().path.read_text())
    pem = kept["agents/agt_1"]["worker_key"]
    load_pem_private_key(pem.encode(), password=None)
    assert steps(await vault.plan(**PINNED), PlanStep.CREATE, PlanStep.CHANGE) == []


@pytest.mark.slow
async def test_new_addresses_leave_the_key_as_it_is(vault: Vault) -> None:
    """The tenant replaces the member as a whole, so all of it is sent."""
    vault.tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    await vault.apply(**PINNED)
    client = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    before = client[WORKER]["credentials"]
    await vault.apply(**{**PINNED, "worker_ips": ("203.0.113.0/28",)})
    assert client[WORKER]["ip_allowlist"] == ["203.0.113.0/28"]
    assert client[WORKER]["credentials"] == before
    assert client[WORKER]["grants"]


@pytest.mark.slow
async def test_a_key_that_is_lost_is_replaced_and_the_pins_stay(vault: Vault) -> None:
    """A key this home does not have signs nothing: another takes its place."""
    vault.tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    await vault.apply(**PINNED)
    client = vault.tenant.named("clients", "AgentVault agent calendar-agent")
    before = client[WORKER]
    vault.kept().path.unlink()
    await vault.apply(**PINNED)
    assert client[WORKER]["credentials"] != before["credentials"]
    assert client[WORKER]["grants"] == before["grants"]
