"""Clients, unmodified, ask for a person at the embedded tenant and get an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.backchannel import MESSAGE, Asking
from support.peers import MANAGEMENT, peer, with_node, with_python
from support.tenant_admin import Admin
from support.tenant_thread import TenantThread

from agentvault_tui.home import Home

API = {
    "identifier": "https://pay.test/",
    "scopes": [{"value": "send:payment"}],
    "authorization_details": [{"type": "payment"}],
}
DETAILS = [{"type": "payment", "amount": 42}]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """A client and its person, at a tenant that has the clients' time."""
    tenant = TenantThread(Home.locate(tmp_path / "home"), now=datetime.now(UTC))
    yield Asking.someone(Admin(tenant))
    tenant.close()


def given(asking: Asking, **asks: Any) -> dict[str, Any]:
    form = {"scope": "openid", "binding_message": MESSAGE, "login_hint": asking.hint()}
    domain = asking.tenant.issuer.partition("://")[2].rstrip("/")
    whole = {"issuer": asking.tenant.issuer, "domain": domain, **asking.auth}
    return {**whole, "asks": {**form, **asks}}


@with_node("openid-client")
async def test_openid_client_waits_verifies_and_hears_a_no(asking: Asking) -> None:
    """Discovered, pending, accepted with details, its ID token verified; rejected."""
    asking.admin.made("resource-servers", API)
    asks = {
        "scope": "openid send:payment",
        "audience": API["identifier"],
        "authorization_details": '[{"type":"payment","amount":42}]',
        "requested_expiry": "600",
    }
    polled = {"path": "/oauth/token"}
    async with peer("ask.mjs", given(asking, **asks)) as client:
        assert await client.says() == {"path": "/bc-authorize", "status": 200}
        started = await client.says()
        assert (started["expires_in"], started["interval"]) == (600, 5)
        assert await client.told("poll") == {**polled, "status": 400}
        asking.accept()
        assert await client.told("poll") == {**polled, "status": 200}
        keys = await client.says()
        assert keys == {"path": "/.well-known/jwks.json", "status": 200}
        claims = await client.says()
        assert claims["sub"] == asking.user.user.sub
        assert "mfa" in claims["amr"]
        assert claims["details"] == DETAILS
        assert await client.says() == {"path": "/bc-authorize", "status": 200}
        await client.says()
        asking.reject()
        assert await client.told("poll") == {**polled, "status": 400}
        assert await client.says() == {"raised": "access_denied", "status": 400}


@with_python("auth0", MANAGEMENT)
async def test_auth0_python_polls_slows_down_and_ends(asking: Asking) -> None:
    """The SDK raises what each answer means; an audience of None is no trouble."""
    asks = {"authorization_details": None, "audience": None}
    whole = given(asking, **asks)
    async with peer("ask_auth0.py", whole, python=MANAGEMENT) as client:
        started = await client.told("start")
        assert (started["expires_in"], started["interval"]) == (300, 5)
        pending = await client.told("poll")
        assert (pending["raised"], pending["status"]) == ("authorization_pending", 400)
        hasty = await client.told("poll")
        assert (hasty["raised"], hasty["status"]) == ("slow_down", 429)
        assert "10 seconds" in hasty["message"]
        asking.accept()
        tokens = await client.told("poll")
        claims = asking.claims(tokens["id_token"])
        assert claims["sub"] == asking.user.user.sub
        again = await client.told("poll")
        assert (again["raised"], again["status"]) == ("invalid_grant", 400)
        await client.told("start")
        asking.reject()
        denied = await client.told("poll")
        assert (denied["raised"], denied["status"]) == ("access_denied", 400)
        asking.admin.call("PATCH", f"clients/{asking.client['client_id']}",
                          {"async_approval_notification_channels": []})  # fmt: skip
        unreachable = await client.told("start")
        assert unreachable["raised"] == "invalid_request"


@with_python("auth0_ai")
async def test_auth0_ai_interrupts_until_the_person_has_answered(
    asking: Asking,
) -> None:
    """Straight at the tenant: its audience None, pending, hasty, and a token."""
    env = {
        "AUTH0_DOMAIN": asking.tenant.issuer.partition("://")[2].rstrip("/"),
        "AUTH0_CLIENT_ID": asking.auth["client_id"],
        "AUTH0_CLIENT_SECRET": asking.auth["client_secret"],
        "AUTH0_USER": asking.user.user.sub,
    }
    async with peer("agent.py", **env) as agent:
        waiting = await agent.told("pay")
        assert waiting["interrupt"] == "AuthorizationPendingInterrupt"
        hasty = await agent.told("pay")
        assert hasty["interrupt"] == "AuthorizationPollingInterrupt"
        asking.accept()
        assert (await agent.told("pay"))["result"].startswith("av_u_")
        await agent.told("pay-again")
        asking.reject()
        denied = await agent.told("pay-again")
        assert denied["interrupt"] == "AccessDeniedInterrupt"
