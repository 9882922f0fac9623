"""The grants of the token endpoint: refresh tokens, and Token Vault's exchange."""

from __future__ import annotations

from typing import Any

import pytest
from auth0_double.running import START
from support.manual_clock import ManualClock
from support.tenant_admin import VAULT, Admin, Agent
from support.tenant_store import open_store

from agentvault_tui.home import Home
from agentvault_tui.model import new_id
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.tokens import RefreshTokens


def new_agent(admin: Admin, **rules: Any) -> Agent:
    me = f"{admin.tenant.issuer}me/"
    policies = [{"audience": me, "scope": ["read:me:connected_accounts"]}]
    return Agent(
        admin, f"refresher-{new_id('x')[2:]}",
        refresh_token={"policies": policies, **rules},
    )  # fmt: skip


def test_a_refresh_token_does_not_rotate(admin: Admin) -> None:
    """The answer has no new one, and the old one goes on; scope may narrow."""
    bot = new_agent(admin)
    token = bot.tokens()["refresh_token"]
    first = bot.refresh(token).json()
    assert "refresh_token" not in first
    assert first["scope"] == "openid profile offline_access"
    narrowed = bot.refresh(token, scope="openid email").json()
    assert narrowed["scope"] == "openid"
    assert admin.rows("sertft")[0]["user_id"] == bot.user["user_id"]


def test_a_refresh_for_another_audience_takes_a_policy(admin: Admin) -> None:
    """MRRT: My Account with the policy's scopes, no API without one."""
    bot = new_agent(admin)
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


def test_a_refresh_reaches_no_api_whose_client_grant_is_gone(admin: Admin) -> None:
    """It was issued for that API, and lives on; what its client may is of now."""
    bot = new_agent(admin)
    body = {
        "identifier": "https://granted-refresh.test/",
        "scopes": [{"value": "a"}],
        "allow_offline_access": True,
        "subject_type_authorization": {"user": {"policy": "require_client_grant"}},
    }
    api = admin.made("resource-servers", body)["identifier"]
    grant = {"client_id": bot.client["client_id"], "audience": api, "scope": ["a"]}
    key = admin.made("client-grants", {**grant, "subject_type": "user"})["id"]
    tokens = bot.tokens(audience=api, scope="openid offline_access a")
    assert "a" in bot.refresh(tokens["refresh_token"]).json()["scope"].split()
    assert admin.call("DELETE", f"client-grants/{key}").status_code == 204
    refused = bot.refresh(tokens["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")


@pytest.mark.slow
def test_the_oldest_of_201_refresh_tokens_ends(home: Home) -> None:
    """Auth0's limit a user and client, dropped without a word."""
    store = open_store(home)
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
    answer = new_agent(admin).refresh(token)
    assert answer.status_code == (403 if token else 400)


def test_refresh_tokens_are_stored_as_hashes(admin: Admin) -> None:
    """No file of the tenant holds a refresh token or a code."""
    bot = new_agent(admin)
    code = bot.person.allow("authorize", **bot.authorize_query())["code"]
    token = bot.redeem(code).json()["refresh_token"]
    held = b"".join(f.read_bytes() for f in admin.tenant.home.tenant.iterdir())
    for secret in (code, token):
        assert secret.encode() not in held


ACCESS = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture(scope="module")
def token(agent: Agent) -> str:
    """A refresh token of a user with a connected account."""
    found: str = agent.tokens()["refresh_token"]
    agent.connect(agent.me_token(found))
    return found


def info(admin: Admin, token: str) -> Any:
    return admin.tenant.http.get(
        admin.tenant.issuer + "agentvault/workspace/tokeninfo",
        headers={"authorization": f"Bearer {token}"},
    )


def test_an_exchange_answers_as_auth0_does(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Five members, nulls in the request tolerated, and a token the provider knows."""
    answer = agent.exchange(token, organization=None, login_hint=None)
    assert answer.status_code == 200
    body = answer.json()
    assert body == {
        "access_token": body["access_token"],
        "scope": "calendar.read calendar.write",
        "expires_in": body["expires_in"],
        "issued_token_type": (
            "http://auth0.com/oauth/token-type/federated-connection-access-token"
        ),
        "token_type": "Bearer",
    }
    assert info(admin, body["access_token"]).json()["sub"] == "some-bot"
    row = admin.rows("seta")[0]
    assert row["connection"] == "workspace"
    assert row["client_id"] == agent.client["client_id"]
    assert row["details"]["is_privileged_worker"] is False
    assert body["access_token"] not in str(row)


def test_an_exchange_says_the_seconds_that_are_left(admin: Admin) -> None:
    """The stored token ages; when it is nearly over the provider gives another."""
    agent = Agent(admin, "aging-bot")
    token = agent.tokens()["refresh_token"]
    agent.connect(agent.me_token(token))
    first = agent.exchange(token).json()
    admin.tenant.clock.advance(100)
    second = agent.exchange(token).json()
    assert second["access_token"] == first["access_token"]
    assert second["expires_in"] == first["expires_in"] - 100
    admin.tenant.clock.advance(second["expires_in"] - 4)
    third = agent.exchange(token).json()
    assert third["access_token"] != first["access_token"]
    assert third["expires_in"] == 600
    admin.tenant.clock.advance(5)
    assert info(admin, first["access_token"]).status_code == 401


def test_an_exchange_is_taken_by_json_form_and_basic(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Whatever way an SDK sends it, the exchange is the same."""
    form = {
        "grant_type": VAULT,
        "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
        "subject_token": token,
        "requested_token_type": (
            "http://auth0.com/oauth/token-type/federated-connection-access-token"
        ),
        "connection": "workspace",
    }
    url = admin.tenant.issuer + "oauth/token"
    pair = (agent.auth["client_id"], agent.auth["client_secret"])
    for answer in (
        admin.tenant.http.post(url, data={**form, **agent.auth}),
        admin.tenant.http.post(url, data=form, auth=pair),
        admin.tenant.http.post(url, json={**form, "subject_token": token}, auth=pair),
    ):
        assert answer.status_code == 200, answer.text


NOT_FOUND = {
    "error": "federated_connection_refresh_token_not_found",
    "error_description": "Federated connection Refresh Token not found.",
}


def test_an_exchange_without_an_account_gets_401(
    admin: Admin, agent: Agent, token: str
) -> None:
    """The one error for all that is missing; the log tells the reason."""
    stranger = Agent(admin, "not-connected")
    fresh = stranger.tokens()["refresh_token"]
    answer = stranger.exchange(fresh)
    assert (answer.status_code, answer.json()) == (401, NOT_FOUND)
    reason = admin.rows("feta")[0]["details"]["failure_reason"]
    assert reason == "tokenset_not_found"
    unknown = agent.exchange(token, connection="google-oauth2")
    assert (unknown.status_code, unknown.json()) == (401, NOT_FOUND)


def test_a_disabled_connection_stops_the_next_exchange(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Client unlinked, connection switched off, or grant removed: and back again."""
    admin.enable(agent.client, status=False)
    assert agent.exchange(token).json() == NOT_FOUND
    admin.enable(agent.client)
    path = f"connections/{admin.connection()['id']}"
    off = {"connected_accounts": {"active": False}}
    assert admin.call("PATCH", path, off).status_code == 200
    assert agent.exchange(token).json() == NOT_FOUND
    on = {"connected_accounts": {"active": True}}
    assert admin.call("PATCH", path, on).status_code == 200
    client = f"clients/{agent.client['client_id']}"
    grants = agent.client["grant_types"]
    less = {"grant_types": [g for g in grants if g != VAULT]}
    assert admin.call("PATCH", client, less).status_code == 200
    answer = agent.exchange(token)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "unauthorized_client",
        "error_description": f"Grant type '{VAULT}' not allowed for the client.",
        "error_uri": "https://auth0.com/docs/clients/client-grant-types",
    }
    assert admin.call("PATCH", client, {"grant_types": grants}).status_code == 200
    assert agent.exchange(token).status_code == 200


@pytest.mark.parametrize(
    "members",
    [
        {"is_first_party": False},
        {"oidc_conformant": False},
        {"token_endpoint_auth_method": "none"},
    ],
    ids=str,
)
def test_an_exchange_takes_a_confidential_first_party_client(
    admin: Admin, members: dict[str, Any]
) -> None:
    """First-party, confidential and OIDC-conformant, or the grant is not theirs."""
    client = admin.client(**members)
    auth = {"client_id": client["client_id"]}
    if "client_secret" in client:
        auth["client_secret"] = client["client_secret"]
    body = {
        "grant_type": VAULT,
        "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
        "subject_token": "v1.x",
        "requested_token_type": (
            "http://auth0.com/oauth/token-type/federated-connection-access-token"
        ),
        "connection": "workspace",
        **auth,
    }
    answer = admin.tenant.http.post(admin.tenant.issuer + "oauth/token", json=body)
    assert answer.status_code == 403
    assert answer.json()["error"] == "unauthorized_client"


def test_another_clients_refresh_token_is_not_exchanged(
    admin: Admin, token: str
) -> None:
    """In another client's hands, or invented, it is unknown; and it is not hurt."""
    thief = Agent(admin, "thief")
    for stolen in (token, "v1.invented"):
        answer = thief.exchange(stolen)
        assert (answer.status_code, answer.json()) == (
            403,
            {
                "error": "invalid_grant",
                "error_description": "Unknown or invalid refresh token.",
            },
        )


def test_a_token_revoked_at_the_provider_is_not_refreshed(admin: Admin) -> None:
    """The next refresh fails with its own word; an access token is dead at once."""
    agent = Agent(admin, "revoked-bot")
    token = agent.tokens()["refresh_token"]
    agent.connect(agent.me_token(token))
    access = agent.exchange(token).json()["access_token"]
    url = admin.tenant.issuer + "agentvault/workspace/revoke"
    for _ in range(2):
        answer = admin.tenant.http.post(url, data={"token": access})
        assert (answer.status_code, answer.content) == (200, b"")
    assert info(admin, access).status_code == 401
    # The vault does not know, and gives its copy until that is over.
    assert agent.exchange(token).json()["access_token"] == access
    secret = admin.tenant.provider_refresh_token(agent.user["user_id"])
    admin.tenant.http.post(url, json={"token": secret})
    admin.tenant.clock.advance(600)
    admin.token = admin.machine_token().json()["access_token"]
    answer = agent.exchange(token)
    assert (answer.status_code, answer.json()) == (
        401,
        {
            "error": "federated_connection_refresh_token_flow_failed",
            "error_description": "Federated connection Refresh Token flow failed.",
        },
    )
    account = agent.me(agent.me_token(token), "GET", "accounts").json()["accounts"][0]
    assert secret not in str(account)


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"connection": None}, 400, "invalid_request"),
        ({"subject_token": None}, 400, "invalid_request"),
        ({"subject_token_type": "urn:x"}, 400, "invalid_request"),
        ({"requested_token_type": "urn:x"}, 400, "invalid_request"),
        ({"subject_token_type": ACCESS}, 400, "invalid_request"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
    ],
    ids=str,
)
def test_bad_exchanges_have_their_codes(
    agent: Agent, token: str, form: dict[str, Any], status: int, error: str
) -> None:
    """Each mistake has its own status and code."""
    answer = agent.exchange(token, **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
