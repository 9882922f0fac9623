"""Auth0's deploy CLI, unmodified: reads what `apply` made, and writes it back."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.peers import INTEROP, NODE, with_node
from support.provisioned import Provisioned, provisioned

from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.management.objects import clients
from agentvault_tui.vault.provision import PlanStep

OURS = (
    "actions",
    "clientGrants",
    "clients",
    "connections",
    "databases",
    "guardianFactors",
    "guardianPolicies",
    "resourceServers",
    "roles",
    "tenant",
    "triggers",
)
"""The kinds of objects that we make or change."""
OTHERS = {
    "AUTH0_EXCLUDED_CLIENTS": ["AgentVault Console", "AgentVault broker (built in)"],
    "AUTH0_EXCLUDED_RESOURCE_SERVERS": ["Auth0 My Account API"],
}
"""What the embedded tenant has by itself, and lets nobody change."""

pytestmark = with_node("auth0-deploy-cli")


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provisioned]:
    """One tenant for all tests here."""
    with provisioned(tmp_path_factory.mktemp("tenant")) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tenant: Provisioned) -> Path:
    """What the CLI wrote of it."""
    folder = tmp_path_factory.mktemp("deploy")
    config = {"AUTH0_INCLUDED_ONLY": OURS, "AUTH0_EXPORT_IDENTIFIERS": True, **OTHERS}
    (folder / "config.json").write_text(json.dumps(config))
    asyncio.run(deploy(tenant, folder, "export", "-f", "directory", "-o", "."))
    return folder


async def deploy(tenant: Provisioned, folder: Path, *argv: str) -> str:
    """Run the CLI in *folder*; return what it said."""
    script = INTEROP / "node_modules" / "auth0-deploy-cli" / "lib" / "index.js"
    async with tenant.reached() as env:
        process = await asyncio.create_subprocess_exec(
            *(str(NODE), str(script), *argv, "-c", "config.json"),
            stdout=PIPE,
            stderr=STDOUT,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "NO_PROXY": "*", **env},
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


def of(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the exported objects of a kind, by their names."""
    found = [json.loads(one.read_text()) for one in (folder / kind).glob("*.json")]
    return {one["name"]: one for one in found}


def test_the_applications_are_as_auth0_has_them(
    folder: Path, tenant: Provisioned
) -> None:
    """One native client for the device flow; confidential ones for Token Vault."""
    clients = of(folder, "clients")
    console = clients["AgentVault console"]
    assert console["client_id"] == tenant.client_id("console")
    assert (console["app_type"], console["token_endpoint_auth_method"]) == (
        "native",
        "none",
    )
    agent = clients["AgentVault agent calendar-agent"]
    assert agent["client_id"] == tenant.client_id("agents/agt_1")
    assert VAULT_GRANT in agent["grant_types"]
    assert agent["refresh_token"]["rotation_type"] == "non-rotating"
    assert "AgentVault broker" not in clients
    assert {one["is_first_party"] for one in clients.values()} == {True}
    assert not [one for one in clients.values() if "client_secret" in one]


def test_a_new_application_gets_no_connection_by_itself(
    folder: Path, tenant: Provisioned
) -> None:
    """The switch is off, and a connection has those of ours alone that need it."""
    settings = json.loads((folder / "tenant.json").read_text())
    assert settings["flags"]["enable_client_connections"] is False
    clients = of(folder, "connections")["workspace"]["enabled_clients"]
    assert clients == ["AgentVault agent calendar-agent"]


def test_the_login_flow_has_both_actions_in_order(folder: Path) -> None:
    """Built, deployed and bound: the one that asks before the one that lets through."""
    actions = of(folder, "actions")
    assert {(one["status"], one["deployed"]) for one in actions.values()} == {
        ("built", True)
    }
    flow = json.loads((folder / "triggers" / "triggers.json").read_text())
    bound = [one["action_name"] for one in flow["post-login"]]
    assert bound == ["AgentVault step-up challenge", "AgentVault step-up proof"]


async def test_written_back_it_undoes_what_drifted(
    folder: Path, tenant: Provisioned
) -> None:
    """Its schemas take all we made, the tenant takes all it sends; then plan is empty.

    In between somebody gave the console's application another grant.
    """
    api = tenant.management
    try:
        more = {"grant_types": [DEVICE_GRANT, "refresh_token"]}
        await clients.patch(api, tenant.client_id("console"), more)
    finally:
        await api.tenant.aclose()
    changes = [item for item in (await tenant.plan()).items if item.changes]
    assert [item.address for item in changes] == ["client.console"]
    said = await deploy(tenant, folder, "import", "-i", ".")
    assert "Waiting for build to complete" in said
    assert {item.step for item in (await tenant.plan()).items} == {PlanStep.NOTHING}
