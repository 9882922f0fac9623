"""Official MCP clients, unmodified, through the gateway to official servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.gateway_stand import SECRET, Stand, standing
from support.peers import INTEROP, PYTHON, TOOLS, answer, peer, with_node, with_python

from agentvault_tui.broker.usecases.register import register
from agentvault_tui.gateway import admission
from agentvault_tui.operator_api.requests import AgentRequest

MODERN, LEGACY = "2026-07-28", "2025-11-25"
SCOPES = ("read:files", "delete:files")
RULES = """
[tools."*read*"]
scope = "read:files"
resource = "fs:{path}"
[tools.delete_file]
scope = "delete:files"
resource = "fs:{path}"
"""
pytestmark = [with_python("mcp"), with_python("mcp", TOOLS)]
SERVERS = {1: PYTHON, 2: TOOLS}


@pytest.fixture
async def stand(short: Path) -> AsyncIterator[Stand]:
    async with standing(short) as stand:
        yield stand


async def serve(stand: Stand, head: str, rules: str = RULES) -> None:
    folder = stand.bench.home.config / "mcp"
    folder.mkdir(exist_ok=True)
    (folder / "files.toml").write_text(head + rules)
    await stand.gateway.look()
    assert not stand.gateway.warnings


async def by_command(stand: Stand, version: int) -> None:
    program = SERVERS[version] / "bin" / "python"
    command = [str(program), str(INTEROP / "mcp_server.py")]
    await serve(stand, f"command = {json.dumps(command)}\n")


async def told(stand: Stand, script: str, **given: Any) -> dict[str, Any]:
    """Run a client as an agent, be the person who approves, and return what it said."""
    agent = await stand.agent(*SCOPES)
    if "client_id" not in given:
        given["token"] = await stand.token(agent, "read:files")
    python = given.pop("python", PYTHON)
    given["url"] = f"{stand.url}/mcp/files"
    said = asyncio.create_task(answer(script, given, python=python))
    held = asyncio.create_task(stand.pending())
    await asyncio.wait({said, held}, return_when=asyncio.FIRST_COMPLETED)
    if said.done():
        said.result()
    await stand.approve((await held).id)
    return await said


def check(said: dict[str, Any], version: str | None) -> None:
    """See that a client had its way, and heard of all that it should."""
    assert said["version"] in {version, None}
    names = ["read_file", "slow_read", "delete_file", "agentvault_check"]
    assert said["tools"] == names
    assert said["read"] == ["content of /a", False]
    assert said["slow"] == ["slowly /a", False]
    assert said["steps"] == ["0 of 2", "1 of 2"]
    assert said["held"] == ["deleted /a", False]
    text, refused = said["refused"]
    assert refused
    assert "maps none" in text


RECORDED = sorted([*("attempt", "result") * 3, "held", "refused"])
"""The types of the events of what `check` sees; results wait for what is urgent."""


@pytest.mark.parametrize(
    ("script", "given", "server", "version"),
    [
        pytest.param(
            "mcp_client.py",
            {"python": TOOLS, "mode": "auto"},
            1,
            LEGACY,
            id="python-2-falls-back",
        ),
        pytest.param("mcp_client.py", {}, 2, LEGACY, id="python-1"),
        pytest.param(
            "mcp_client.mjs",
            {"sdk": 2, "mode": "auto"},
            2,
            MODERN,
            id="node-2-modern",
            marks=with_node("@modelcontextprotocol/client"),
        ),
        pytest.param(
            "mcp_client.mjs",
            {"sdk": 1},
            1,
            None,
            id="node-1",
            marks=with_node("@modelcontextprotocol/sdk"),
        ),
    ],
)
async def test_a_client_uses_a_server_that_is_a_program(
    stand: Stand, script: str, given: dict[str, Any], server: int, version: str | None
) -> None:
    """Listed, called, with progress, held and approved, refused; each recorded."""
    await by_command(stand, server)
    check(await told(stand, script, **given), version)
    assert sorted(kind for kind, _ in await stand.records()) == RECORDED


@pytest.mark.parametrize(
    ("server", "mode", "version"), [(2, "auto", MODERN), (1, "auto", LEGACY)]
)
async def test_a_client_uses_a_server_by_url(
    stand: Stand, server: int, mode: str, version: str
) -> None:
    """The same, over Streamable HTTP with a credential, in the era both speak."""
    python = SERVERS[server]
    async with peer("mcp_server.py", python=python, argument="http") as running:
        port = (await running.says())["port"]
        await stand.secret("key", SECRET, f"http://127.0.0.1:{port}")
        head = f'url = "http://127.0.0.1:{port}/mcp"\nallow_http = true\n'
        credential = '[credential]\nkind = "bearer"\nsecret = "key"\n'
        await serve(stand, head + "allow_private = true\n" + credential)
        check(await told(stand, "mcp_client.py", python=TOOLS, mode=mode), version)
        assert sorted(kind for kind, _ in await stand.records()) == RECORDED


async def test_a_client_finds_its_authorization_by_itself(stand: Stand) -> None:
    """From the 401 to a token for this server alone, with the agent's own secret."""
    await by_command(stand, 2)
    wanted = AgentRequest(name="oauth", owner="olga", purpose="tests", scopes=SCOPES)
    registered = await register(stand.bench.broker, wanted, OPERATOR)
    said = await told(
        stand,
        "mcp_client.py",
        python=TOOLS,
        mode="auto",
        client_id=registered.agent.client_id,
        client_secret=registered.client_secret,
        issuer=stand.url,
    )
    check(said, MODERN)
    (issued,) = await stand.bench.events("token.decision")
    assert issued.detail["resource_indicator"] == f"{stand.url}/mcp/files"


async def test_a_client_that_shows_forms_waits_for_a_person(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent may do nothing without one: the token has no scope, the held call asks
    by a form, and goes out once it is approved."""
    monkeypatch.setattr(admission, "WAIT", 0.3)
    await by_command(stand, 2)
    wanted = AgentRequest(
        name="forms", owner="olga", purpose="tests", scopes=("delete:files",)
    )
    registered = await register(stand.bench.broker, wanted, OPERATOR)
    given = {
        "url": f"{stand.url}/mcp/files",
        "mode": "auto",
        "forms": True,
        "client_id": registered.agent.client_id,
        "client_secret": registered.client_secret,
        "issuer": stand.url,
    }
    said = asyncio.create_task(answer("mcp_client.py", given, python=TOOLS))
    calls = stand.gateway.calls
    await stand.bench.until(lambda: said.done() or any(c.retry for c in calls))
    if not said.done():
        await stand.approve(stand.bench.broker.stepups.open()[0].id)
    told = await said
    assert told["tools"] == ["delete_file", "agentvault_check"]
    assert told["held"] == ["deleted /a", False]
    assert len(told["asked"]) == 1
    (issued,) = await stand.bench.events("token.decision")
    assert (issued.reason, issued.detail["scope"]) == ("no_scope", "")
