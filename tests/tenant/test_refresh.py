"""Refresh tokens: what they are good for, and further audiences."""

from __future__ import annotations

from typing import Any

import pytest
from auth0_double.running import START
from support.manual_clock import ManualClock
from support.tenant_admin import Admin, Agent

from agentvault_tui.home import Home
from agentvault_tui.model import new_id
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.tokens import RefreshTokens


def agent(admin: Admin, **rules: Any) -> Agent:
    me = f"{admin.tenant.issuer}me/"
    policies = [{"audience": me, "scope": ["read:me:connected_accounts"]}]
    return Agent(
        admin, f"refresher-{new_id('x')[2:]}",
        refresh_token={"policies": policies, **rules},
    )  # fmt: skip


def test_a_refresh_token_does_not_rotate(admin: Admin) -> None:
    """The answer has no new one, and the old one goes on; scope may narrow."""
    bot = agent(admin)
    token = bot.tokens()["refresh_token"]
    first = bot.refresh(token).json()
    assert "refresh_token" not in first
    assert first["scope"] == "openid profile offline_access"
    narrowed = bot.refresh(token, scope="openid email").json()
    assert narrowed["scope"] == "openid"
    assert admin.rows("sertft")[0]["user_id"] == bot.user["user_id"]


def test_a_refresh_for_another_audience_takes_a_policy(admin: Admin) -> None:
    """MRRT: My Account with the policy's scopes, no API without one."""
    bot = agent(admin)
    token = bot.tokens()["refresh_token"]
    me = f"{admin.tenant.issuer}me/"
    wanted = "read:me:connected_accounts delete:me:connected_accounts"
    answer = bot.refresh(token, audience=me, scope=wanted)
    assert answer.status_code == 200
    assert answer.json()["scope"] == "read:me:connected_accounts"
    path = f"users/{bot.user['user_id']}/refresh-tokens"
    reached = admin.call("GET", path).json()["tokens"][0]["resource_servers"]
    assert [server["audience"] for server in reached] == [
        f"{admin.tenant.issuer}userinfo", me
    ]  # fmt: skip
    admin.made(
        "resource-servers",
        {"identifier": f"https://{new_id('x')[2:]}.test/", "scopes": []},
    )
    last = admin.call("GET", "resource-servers").json()[-1]["identifier"]
    refused = bot.refresh(token, audience=last)
    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")
    unknown = bot.refresh(token, audience="https://nowhere.test/")
    assert unknown.json()["error"] == "access_denied"
    # The token goes on for what it was made for.
    assert bot.refresh(token).json()["scope"] == "openid profile offline_access"


def test_the_oldest_of_201_refresh_tokens_ends(home: Home) -> None:
    """Auth0's limit a user and client, dropped without a word."""
    store = Store(home, checkpoints=True)
    tokens = RefreshTokens(store, ManualClock(START))
    client = Client("app_1", {"refresh_token": {}})
    with store.transaction():
        store.change(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 200)"
            " INSERT INTO refresh_tokens (id, user_id, client_id, audience, reach,"
            " created_at) SELECT 'rt_' || i, 'u', 'app_1', '', '{}', 0"
            " FROM n"
        )
    fresh, _ = tokens.issue(client, "u", None, "", "openid")
    assert tokens.find(fresh, client).user_id == "u"
    assert tokens.get("rt_1") is None
    assert tokens.get("rt_2") is not None
    assert len(tokens.list(user_id="u", client_id="app_1")) == 200
    store.close()


@pytest.mark.parametrize("token", ["", "v1.invented", "é", "x" * 3000])
def test_a_missing_refresh_token_gets_400_and_an_unknown_403(
    admin: Admin, token: str
) -> None:
    """Missing is 400, unknown 403 with Auth0's text."""
    answer = agent(admin).refresh(token)
    assert answer.status_code == (403 if token else 400)


def test_refresh_tokens_are_stored_as_hashes(admin: Admin) -> None:
    """No file of the tenant holds a refresh token or a code."""
    bot = agent(admin)
    code = bot.person.allow("authorize", **bot.authorize_query())["code"]
    token = bot.redeem(code).json()["refresh_token"]
    held = b"".join(f.read_bytes() for f in admin.tenant.home.tenant.iterdir())
    for secret in (code, token):
        assert secret.encode() not in held
