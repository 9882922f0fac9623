"""The usual OAuth 2 clients, unmodified, sign a person in at the embedded tenant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from auth0_double.running import GRANT, TenantThread
from support.peers import peer, with_node, with_python
from support.tenant_admin import Admin

from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.users import NewUser

NATIVE = {
    "name": "console",
    "app_type": "native",
    "oidc_conformant": True,
    "token_endpoint_auth_method": "none",
    "grant_types": [GRANT, "refresh_token"],
}
API = {"identifier": "https://offline.test/", "allow_offline_access": True}


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[TenantThread]:
    """A tenant that has the clients' time, until a test moves it."""
    home = Home.locate(tmp_path / "home")
    running = TenantThread(home, now=datetime.now(UTC))
    yield running
    running.close()


@pytest.fixture
def alice(tenant: TenantThread) -> NewUser:
    """The person."""
    return tenant.users.add("alice@acme.test", approver=True)


@pytest.fixture
def given(tenant: TenantThread) -> dict[str, str]:
    """What a native application needs that is allowed refresh tokens."""
    admin = Admin(tenant)
    return {
        "issuer": tenant.issuer,
        "client_id": admin.made("clients", NATIVE)["client_id"],
        "audience": admin.made("resource-servers", API)["identifier"],
    }


def cancel(tenant: TenantThread, flow: dict[str, Any]) -> None:
    """Open the page, and say no."""
    with Activation() as page:
        page.open(tenant.issuer, flow["user_code"])
        page.cancel()


@with_node("openid-client")
async def test_openid_client_polls_and_verifies(
    tenant: TenantThread, alice: NewUser, given: dict[str, str]
) -> None:
    """Auth0's 403 is pending to it, the tenant's key vouches, and a no is a no."""
    async with peer("sign_in.mjs", given) as console:
        flow = await console.says()
        assert flow["interval"] == 5
        assert await console.told("poll") == {"path": "/oauth/token", "status": 403}
        tenant.clock.advance(flow["interval"])
        tenant.approve(flow, alice)
        assert await console.told("poll") == {"path": "/oauth/token", "status": 200}
        keys = await console.says()
        assert keys == {"path": "/.well-known/jwks.json", "status": 200}
        claims, renewed = await console.says(), await console.says()
        assert (claims["iss"], claims["sub"]) == (tenant.issuer, alice.user.sub)
        assert "mfa" in claims["amr"]
        assert renewed["sub"] == alice.user.sub
        assert "amr" not in renewed
        assert await console.says() == {"raised": "invalid_grant", "status": 403}
        cancel(tenant, await console.says())
        assert await console.told("poll") == {"path": "/oauth/token", "status": 403}
        assert await console.says() == {"raised": "access_denied", "status": 403}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sign_in_authlib.py", marks=with_python("authlib")),
        pytest.param("sign_in_oauthlib.py", marks=with_python("requests_oauthlib")),
    ],
)
async def test_polled_by_hand_each_answer_is_known(
    tenant: TenantThread, alice: NewUser, given: dict[str, str], script: str
) -> None:
    """From pending over signed in, refreshed and revoked to denied and run out."""
    async with peer(script, given, OAUTHLIB_INSECURE_TRANSPORT="1") as console:
        flow = await console.told("start")
        assert await console.told("poll") == {"raised": "authorization_pending"}
        assert await console.told("poll") == {"raised": "slow_down"}
        tenant.approve(flow, alice)
        signed_in = await console.told("poll")
        assert signed_in["sub"] == alice.user.sub
        assert await console.told("poll") == {"raised": "invalid_grant"}
        assert (await console.told("refresh"))["sub"] == alice.user.sub
        assert await console.told("revoke") == {"status": 200}
        assert await console.told("refresh") == {"raised": "invalid_grant"}
        cancel(tenant, await console.told("start"))
        assert await console.told("poll") == {"raised": "access_denied"}
        late = await console.told("start")
        tenant.clock.advance(late["expires_in"] + 1)
        assert await console.told("poll") == {"raised": "expired_token"}
        assert await console.told("poll") == {"raised": "invalid_grant"}
