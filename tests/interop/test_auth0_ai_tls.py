"""Auth0's SDKs for agents against `agentvault serve`, over the TLS of `tls init`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import plain_environment
from support.peers import Peer, peer, with_node, with_python
from support.vault import Client, Vault, serving

SDKS = [
    pytest.param("agent.py", marks=with_python("auth0_ai")),
    pytest.param("agent.cjs", marks=with_node("@auth0/ai")),
]
CONFIG = """
[connections.google-oauth2]
scopes = ["read:calendar"]
"""


@pytest.fixture
def home(short: Path) -> Path:
    (short / "config.toml").write_text(CONFIG)
    return short


async def environment(home: Path) -> dict[str, str]:
    """Run `tls init` as an operator would; return what it says agents need."""
    line = ("-P", "-m", "agentvault_tui.cli", "--home", str(home), "tls", "init")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *line, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=plain_environment(),
    )
    printed, _ = await process.communicate()
    return dict(json.loads(printed)["environment"])


@asynccontextmanager
async def started(
    script: str, vault: Vault, client: Client, trust: dict[str, str]
) -> AsyncIterator[Peer]:
    """Run an agent that reaches the broker as ``localhost``, by https."""
    port = vault.ready["agents_url"].rpartition(":")[2]
    env = {
        "AUTH0_DOMAIN": f"localhost:{port}",
        "AUTH0_CLIENT_ID": client.id,
        "AUTH0_CLIENT_SECRET": client.secret,
        "PROTOCOL": "https",
    }
    async with peer(script, **env, **trust) as agent:
        yield agent


@pytest.mark.parametrize("script", SDKS)
async def test_what_tls_init_prints_is_all_an_sdk_needs(
    home: Path, script: str
) -> None:
    """Held, denied and not connected as over http; without the authority, nothing."""
    trust = await environment(home)
    with serving(home) as vault:
        assert vault.ready["agents_url"].startswith("https://")
        client = vault.register("payer", "send:payment", "read:calendar")
        async with started(script, vault, client, trust) as agent:
            missing = await agent.told("calendar")
            assert missing["code"] == "TOKEN_VAULT_ERROR"
            waiting = await agent.told("pay")
            assert waiting["interrupt"] == "AuthorizationPendingInterrupt"
            (stepup,) = waits(vault)
            denial = {"id": stepup["id"], "decision": "deny", "reason": "no invoice"}
            vault.operator.post("/api/agents/stepup", json=denial)
            denied = await agent.told("pay")
            assert denied["interrupt"] == "AccessDeniedInterrupt"
            assert "no invoice" in denied["message"]
        asked = len(events(vault))
        async with started(script, vault, client, {}) as agent:
            strange = await agent.told("pay-again")
            assert "result" not in strange
        assert waits(vault) == []
        assert len(events(vault)) == asked


def waits(vault: Vault) -> list[dict[str, Any]]:
    answer = vault.operator.get("/api/agents/stepup?status=pending").json()
    return list(answer["stepups"])


def events(vault: Vault) -> list[dict[str, Any]]:
    answer = vault.operator.get("/api/audit?type=token.decision").json()
    return list(answer["events"])
