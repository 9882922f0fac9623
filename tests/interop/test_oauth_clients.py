"""The usual OAuth 2 clients, unmodified, as agents of the broker, over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from support.agents_http import live_broker
from support.bench import Bench

from agentvault_tui.web import ServerTls
from agentvault_tui.web.local_ca import CaFiles, renew

HERE = Path(__file__).parent
PYTHON = Path(sys.prefix) / "interop" / "bin" / "python"
NODE = shutil.which("node")

CLIENTS = [
    pytest.param(
        (NODE, "client.mjs"),
        # Its word for a 401: the challenge (RFC 9110 section 15.5.2) before the body.
        "OAUTH_WWW_AUTHENTICATE_CHALLENGE",
        id="openid-client",
        marks=pytest.mark.skipif(
            NODE is None or not (HERE / "node_modules" / "openid-client").exists(),
            reason="node or openid-client is not installed: make interop",
        ),
    ),
    *(
        pytest.param(
            (str(PYTHON), f"client_{name}.py"),
            "invalid_client",
            id=name,
            marks=pytest.mark.skipif(
                not PYTHON.exists(), reason=f"{name} is not installed: make interop"
            ),
        )
        for name in ("authlib", "oauthlib")
    ),
]


async def told(argv: tuple[str, str], bench: Bench) -> dict[str, Any]:
    """Serve over TLS, run the client as an agent, and return what it got."""
    renew(bench.home)
    files = CaFiles.of(bench.home)
    ca = str(files.ca)
    trust = ssl.create_default_context(cafile=ca)
    async with live_broker(bench, tls=ServerTls(files.leaf), verify=trust) as live:
        caller = await live.caller("agent")
        given = {
            "issuer": live.url.rstrip("/"),
            "client_id": caller.agent.client_id,
            "client_secret": caller.secret,
        }
        process = await asyncio.create_subprocess_exec(
            argv[0],
            str(HERE / argv[1]),
            stdin=PIPE,
            stdout=PIPE,
            env={
                "PATH": os.environ["PATH"],
                "NO_PROXY": "*",
                "REQUESTS_CA_BUNDLE": ca,
                "NODE_EXTRA_CA_CERTS": ca,
            },
        )
        sent = process.communicate(json.dumps(given).encode())
        out, _ = await asyncio.wait_for(sent, 60)
    assert process.returncode == 0
    return {**json.loads(out), "given": given}


@pytest.mark.parametrize(("argv", "unknown"), CLIENTS)
async def test_from_discovery_to_revocation(
    bench: Bench, argv: tuple[str, str], unknown: str
) -> None:
    """Discovered, given a token that is active, revoked, and active no more."""
    said = await told(argv, bench)
    assert said["discovered"]["issuer"] == said["given"]["issuer"]
    assert said["token"]["token_type"].lower() == "bearer"
    assert said["introspected"]["active"] is True
    assert said["introspected"]["scope"] == "write:calendar"
    assert said["introspected"]["client_id"] == said["given"]["client_id"]
    assert said.get("revoked") is None
    assert said["after"] == {"active": False}
    assert len(await bench.events("token.revoked")) == 1
    assert said["scope"]["raised"] == "invalid_scope"
    assert said["secret"]["raised"] == unknown
