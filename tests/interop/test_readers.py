"""Auth0's management SDKs, unmodified, read a tenant that `auth0 apply` set up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.peers import MANAGEMENT, answer, with_node, with_python
from support.provisioned import NEEDS, Provisioned, provisioned

from agentvault_tui.vault.credentials import VAULT_GRANT

KINDS = (
    "APIs",
    "actions",
    "bindings",
    "client grants",
    "clients",
    "connections",
    "factors",
    "connections of the console",
    "prompts",
    "roles",
    "settings",
)
RECORDED = {"connections": [".enabled_clients"], "logs": ["._id"]}
"""What Auth0 was recorded to send, and its models have no field for."""
VOLATILE = ("logs", "users", "refusal")

Said = dict[str, Any]


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provisioned]:
    """One tenant for all tests here."""
    with provisioned(tmp_path_factory.mktemp("tenant")) as made:
        yield made


def told(tenant: Provisioned, script: str, **more: Path) -> Said:
    """Run a reader on the whole tenant; return what it says."""

    async def read() -> Said:
        async with tenant.reached() as env:
            trust = {k: v for k, v in env.items() if not k.startswith("AUTH0_")}
            return await answer(script, env, **more, **trust)

    return asyncio.run(read())


@pytest.fixture(scope="module")
def in_python(tenant: Provisioned) -> Said:
    """What auth0-python 6 found."""
    return told(tenant, "reader.py", python=MANAGEMENT)


@with_python("auth0", MANAGEMENT)
def test_its_models_know_every_member(in_python: Said) -> None:
    """Each object is one of its models, and has nothing that Auth0's have not."""
    assert set(KINDS) <= set(in_python)
    assert [kind for kind in KINDS if not in_python[kind]["found"]] == []
    assert all(one["typed"] for one in in_python.values())
    unknown = {
        kind: one["unknown"] for kind, one in in_python.items() if one["unknown"]
    }
    assert unknown == RECORDED


@with_python("auth0", MANAGEMENT)
def test_what_apply_made_is_what_it_finds(in_python: Said, tenant: Provisioned) -> None:
    """Applications by their ids, lifetimes, Actions in order, who may have what."""
    found = {kind: one["found"] for kind, one in in_python.items()}
    clients = {one["client_id"]: one for one in found["clients"]}
    console = clients[tenant.client_id("console")]
    agent = clients[tenant.client_id("agents/agt_1")]
    assert (console["app_type"], agent["app_type"]) == ("native", "regular_web")
    assert VAULT_GRANT in agent["grant_types"]
    bound = [one["action"]["name"] for one in found["bindings"]]
    assert bound == ["AgentVault step-up challenge", "AgentVault step-up proof"]
    grants = {(one["client_id"], one["audience"]) for one in found["client grants"]}
    assert {client for client, _ in grants} >= {agent["client_id"]}
    assert console["client_id"] not in {client for client, _ in grants}
    (settings,) = found["settings"]
    assert settings["customize_mfa_in_postlogin_action"] is True
    assert settings["flags"]["enable_client_connections"] is False
    assert found["prompts"][0]["universal_login_experience"] == "new"
    connections = [one["name"] for one in found["connections of the console"]]
    assert connections == list(NEEDS.sign_in)


@with_python("auth0", MANAGEMENT)
@with_node("auth0")
def test_both_sdks_find_the_same(in_python: Said, tenant: Provisioned) -> None:
    """Over pages of two and of fifty, by offset and by checkpoint: the same objects."""
    in_node = told(tenant, "reader.mjs")
    assert in_node["refusal"] == {"raised": "NotFoundError", "status": 404}
    assert set(in_node) == {*in_python, "refusal"}
    for kind in set(in_node) - set(VOLATILE):
        theirs, ours = in_node[kind], in_python[kind]["found"]
        assert [_some(one) for one in theirs] == [_some(one) for one in ours], kind
    seen = {one["log_id"] for one in in_python["logs"]["found"]}
    assert seen <= {one["log_id"] for one in in_node["logs"]}


def _some(found: dict[str, Any]) -> dict[str, Any]:
    """Return what one of them says of an object that does not lie within another."""
    return {name: text for name, text in found.items() if isinstance(text, str)}
