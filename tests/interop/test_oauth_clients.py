"""The usual OAuth 2 clients, unmodified, as agents of the broker, over TLS."""

from __future__ import annotations

from typing import Any

import pytest
from support.agents_http import live_broker
from support.bench import Bench
from support.peers import answer, with_node, with_python
from support.tls_front import trusted

CLIENTS = [
    pytest.param(
        "client.mjs",
        # Its word for a 401: the challenge (RFC 9110 section 15.5.2) before the body.
        "OAUTH_WWW_AUTHENTICATE_CHALLENGE",
        id="openid-client",
        marks=with_node("openid-client"),
    ),
    *(
        pytest.param(
            f"client_{name}.py", "invalid_client", id=name, marks=with_python(name)
        )
        for name in ("authlib", "oauthlib")
    ),
]


async def told(script: str, bench: Bench) -> dict[str, Any]:
    """Serve over TLS, run the client as an agent, and return what it got."""
    tls, trust, env = trusted(bench.home)
    async with live_broker(bench, tls=tls, verify=trust) as live:
        caller = await live.caller("agent")
        given = {
            "issuer": live.url.rstrip("/"),
            "client_id": caller.agent.client_id,
            "client_secret": caller.secret,
        }
        return {**await answer(script, given, **env), "given": given}


@pytest.mark.parametrize(("script", "unknown"), CLIENTS)
async def test_from_discovery_to_revocation(
    bench: Bench, script: str, unknown: str
) -> None:
    """Discovered, given a token that is active, revoked, and active no more."""
    said = await told(script, bench)
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


@with_python("mcp")
async def test_the_official_mcp_client_is_led_to_a_token(bench: Bench) -> None:
    """Its model takes the metadata, and it asks for the scope that the server names."""
    said = await told("client_mcp.py", bench)
    assert said["metadata"]["authorization_endpoint"].endswith("/authorize")
    assert said["metadata"]["response_types_supported"] == ["none"]
    assert said["token"]["presented"].startswith("av_t_")
    # Where a server names none it asks for all there are, and that is refused.
    assert said["all"]["raised"] == "OAuthTokenError"
    assert "scope_not_granted" in said["all"]["told"]
    decided = await bench.events("token.decision")
    assert [str(one.outcome) for one in decided] == ["allowed", "denied"]


@with_python("auth0")
async def test_a_client_without_a_scope_is_told_how_to_send_one(bench: Bench) -> None:
    """auth0-python's own call has none; its authenticated POST takes one."""
    said = await told("client_auth0.py", bench)
    assert said["without"]["raised"] == "invalid_scope"
    assert "docs/agents.md" in said["without"]["told"]
    assert said["token"]["scope"] == "write:calendar"
