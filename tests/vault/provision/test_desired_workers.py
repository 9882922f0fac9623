"""Privileged workers: agents that exchange without a signed-in user, within limits."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.dict_tenant import DictTenant
from support.ledger_kit import agent, manual_clock, note
from support.provisioning import Call, Vault, configure, steps

from agentvault_tui.errors import TenantScopeError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
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
UNPINNED = {"connections": ("google-oauth2",)}


@pytest.fixture
async def client(vault: Vault) -> dict[str, Any]:
    """The application of an agent that apply has made a worker."""
    vault.tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    await vault.apply(**PINNED)
    return vault.tenant.named("clients", "AgentVault agent calendar-agent")


@pytest.mark.slow
async def test_a_worker_gets_a_key_made_here_and_its_pins(
    vault: Vault, client: dict[str, Any]
) -> None:
    """The private part stays in the home; the tenant gets the public one."""
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
async def test_new_addresses_leave_the_key_as_it_is(
    vault: Vault, client: dict[str, Any]
) -> None:
    """The tenant replaces the member as a whole, so all of it is sent."""
    before = client[WORKER]
    await vault.apply(**{**PINNED, "worker_ips": ("203.0.113.0/28",)})
    assert client[WORKER] == {**before, "ip_allowlist": ["203.0.113.0/28"]}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lost here", "a stranger's beside it"])
async def test_any_other_key_is_replaced_and_the_pins_stay(
    vault: Vault, client: dict[str, Any], case: str
) -> None:
    """A key this home does not have is another's to exchange with, or nobody's."""
    before = {**client[WORKER]}
    if case == "lost here":
        vault.kept().path.unlink()
    else:
        client[WORKER]["credentials"] = [*before["credentials"], {"id": "cred_x"}]
    said = [finding.what for _, finding in await vault.findings(**PINNED)]
    assert any("has a worker's key that is not in this home" in one for one in said)
    await vault.apply(**PINNED)
    (key,) = client[WORKER]["credentials"]
    assert key == {"id": vault.kept().worker_key("agents/agt_1")}
    assert key not in before["credentials"]
    assert client[WORKER]["grants"] == before["grants"]


@pytest.mark.slow
async def test_a_worker_taken_out_of_the_settings_is_none_on_the_tenant(
    vault: Vault, client: dict[str, Any]
) -> None:
    """Its key would go on exchanging; nothing else of the application changes."""
    vault.tenant.without = frozenset({f"update:client_{WORKER}"})
    with pytest.raises(TenantScopeError):
        await vault.apply(**UNPINNED)
    vault.tenant.without = frozenset()
    vault.tenant.writes.clear()
    assert await vault.apply(**UNPINNED) == ["client.agents/agt_1"]
    ((_, _, sent),) = vault.tenant.writes
    assert sent == {WORKER: None}
    assert client[WORKER] is None
    assert steps(await vault.plan(**UNPINNED), PlanStep.CREATE, PlanStep.CHANGE) == []


@pytest.mark.slow
async def test_the_settings_name_workers_by_agent_connection_and_scope(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """One scope each, at most twenty of an agent; a name that two have is refused."""
    tenant.connect("google-oauth2", "google-oauth2", offline_access=True)
    vault = Home(home, home)
    vault.prepare()
    agents = [replace(agent(one), name="bot") for one in ("agt_1", "agt_2")]
    ledger = await Ledger.open(vault, clock=manual_clock())
    await ledger.commit(note(), changes=agents)
    await ledger.close()

    async def planned(*workers: str) -> Any:
        settings = {"issuer": tenant.issuer, "connections": ["google-oauth2"]}
        ips = ["203.0.113.7"]
        configure(home, **settings, workers=workers, worker_ips=ips)
        return await asyncio.to_thread(auth0, "plan", "--json")

    one, other = "agt_1 google-oauth2 a", "agt_1 google-oauth2 b"
    items = (await planned(one, other, one)).json["items"]
    changes = {
        item["address"]: {
            change["field"]: change["after"] for change in item["changes"]
        }
        for item in items
    }
    assert changes["client.agents/agt_1"][f"{WORKER}.grants"] == [
        {"connection": "google-oauth2", "scopes": ["a", "b"]}
    ]
    assert not [name for name in changes["client.agents/agt_2"] if WORKER in name]
    many = await planned(*(f"agt_1 google-oauth2 s{one}" for one in range(21)))
    assert (many.code, "too much" in many.err) == (2, True)
    both = await planned("bot google-oauth2 a")
    assert (both.code, "several agents" in both.err) == (2, True)
