"""Calls of the Management API: refresh tokens, clients, grants and users."""

from __future__ import annotations

from typing import Any

import pytest
from auth0_double.faults import Faults
from support.tenant_admin import Admin, Agent

from agentvault_tui.model import new_id


@pytest.fixture
def agent(admin: Admin) -> Agent:
    return Agent(admin, f"bot-{new_id('x')[2:]}")


@pytest.fixture
def token(agent: Agent) -> str:
    found: str = agent.tokens()["refresh_token"]
    return found


def refreshes(agent: Agent, token: str) -> bool:
    answer = agent.refresh(token)
    if answer.status_code != 200:
        assert answer.status_code == 403, answer.text
        assert answer.json() == {
            "error": "invalid_grant",
            "error_description": "Unknown or invalid refresh token.",
        }
    return answer.status_code == 200


def held(agent: Agent) -> list[dict[str, Any]]:
    path = f"users/{agent.user['user_id']}/refresh-tokens"
    found: list[dict[str, Any]] = agent.admin.call("GET", path).json()["tokens"]
    return found


def test_a_users_and_all_refresh_tokens_are_listed(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Of a user: tokens; over all: refresh_tokens; and each as recorded."""
    user_id = agent.user["user_id"]
    of_user = admin.call("GET", f"users/{user_id}/refresh-tokens").json()
    overall = admin.call("GET", "refresh-tokens", user_id=user_id).json()
    assert of_user == {"tokens": of_user["tokens"]}
    assert overall == {"refresh_tokens": of_user["tokens"]}
    one = of_user["tokens"][0]
    assert admin.call("GET", f"refresh-tokens/{one['id']}").json() == one
    assert one == {
        "id": one["id"],
        "user_id": user_id,
        "created_at": one["created_at"],
        "client_id": agent.client["client_id"],
        "session_id": one["session_id"],
        "rotating": False,
        "resource_servers": [
            {
                "audience": f"{admin.tenant.issuer}userinfo",
                "scopes": "openid profile offline_access",
            }
        ],
        "last_exchanged_at": None,
    }
    assert token not in str(one)


def test_deleting_a_refresh_token_gets_204(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Also a second time; and it refreshes no more."""
    path = f"refresh-tokens/{held(agent)[0]['id']}"
    assert refreshes(agent, token)
    for _ in range(2):
        answer = admin.call("DELETE", path)
        assert (answer.status_code, answer.content) == (204, b"")
    assert admin.call("GET", path).status_code == 404
    assert not refreshes(agent, token)


def test_deleting_a_users_refresh_tokens_gets_202(
    admin: Admin, agent: Agent, token: str
) -> None:
    """An empty object, and all of them are gone."""
    path = f"users/{agent.user['user_id']}/refresh-tokens"
    answer = admin.call("DELETE", path)
    assert (answer.status_code, answer.json()) == (202, {})
    assert held(agent) == []
    assert not refreshes(agent, token)


@pytest.mark.parametrize("by", ["user", "client", "audience"])
def test_refresh_tokens_are_revoked_in_bulk(
    admin: Admin, agent: Agent, token: str, by: str
) -> None:
    """By user, by user and client; another client's or audience's stays."""
    body: dict[str, Any] = {"user_id": agent.user["user_id"]}
    stays = {**body, "client_id": "app_other"}
    if by == "client":
        body["client_id"] = agent.client["client_id"]
    if by == "audience":
        body |= {"client_id": agent.client["client_id"], "audience": ""}
        body.pop("audience")
        stays["audience"] = "https://other.test/"
    assert admin.call("POST", "refresh-tokens/revoke", stays).status_code == 202
    assert refreshes(agent, token)
    assert admin.call("POST", "refresh-tokens/revoke", body).status_code == 202
    assert not refreshes(agent, token)
    assert admin.call("POST", "refresh-tokens/revoke", {}).status_code == 400


def test_a_deletion_takes_effect_after_the_lag(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Answered 204, the token works until the lag is over: eventually consistent."""
    admin.tenant.faults.set(Faults(deletion_lag=30))
    try:
        path = f"refresh-tokens/{held(agent)[0]['id']}"
        assert admin.call("DELETE", path).status_code == 204
        assert admin.call("GET", path).status_code == 200
        assert refreshes(agent, token)
        admin.tenant.clock.advance(20)
        # Asking again does not put it off.
        assert admin.call("DELETE", path).status_code == 204
        admin.tenant.clock.advance(11)
        assert not refreshes(agent, token)
        assert admin.call("GET", path).status_code == 404
    finally:
        admin.tenant.faults.set(Faults())


def test_revoke_answers_200_for_any_refresh_token(
    admin: Admin, agent: Agent, token: str
) -> None:
    """RFC 7009: 200 and nothing else, also again, also for a token nobody knows."""
    stranger = Agent(admin, f"bot-{new_id('x')[2:]}")
    foreign = admin.tenant.post("oauth/revoke", token=token, **stranger.auth)
    assert foreign.status_code == 200
    assert refreshes(agent, token)
    for said in (token, token, "v1.invented"):
        answer = admin.tenant.http.post(
            admin.tenant.issuer + "oauth/revoke", json={"token": said, **agent.auth}
        )
        assert (answer.status_code, answer.content) == (200, b"")
    assert not refreshes(agent, token)
    row = admin.rows("srrt")[0]
    assert row["client_id"] == agent.client["client_id"]
    bad = {"client_id": agent.client["client_id"], "client_secret": "x"}
    assert admin.tenant.post("oauth/revoke", token=token, **bad).status_code == 401


def test_lists_of_refresh_tokens_have_the_fields_asked_for(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Of each the id alone, or all but it."""
    query = {"user_id": agent.user["user_id"], "fields": "id"}
    ids = admin.call("GET", "refresh-tokens", **query).json()["refresh_tokens"]
    assert ids == [{"id": held(agent)[0]["id"]}]
    query["include_fields"] = "false"
    rest = admin.call("GET", "refresh-tokens", **query).json()["refresh_tokens"]
    assert "id" not in rest[0]
    assert rest[0]["client_id"] == agent.client["client_id"]


def test_a_device_credential_is_listed_and_deleted(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Device credentials name the refresh tokens, by kind; deleting one is 204."""
    user_id = agent.user["user_id"]
    query = {"user_id": user_id, "include_totals": "true"}
    found = admin.call("GET", "device-credentials", type="refresh_token", **query)
    one = found.json()["device_credentials"][0]
    assert found.json()["total"] == 1
    assert one["type"] == "refresh_token"
    assert one["client_id"] == agent.client["client_id"]
    rotating = admin.call(
        "GET", "device-credentials", type="rotating_refresh_token", **query
    )
    assert rotating.json()["total"] == 0
    assert admin.call("DELETE", f"device-credentials/{one['id']}").status_code == 204
    assert not refreshes(agent, token)


def test_a_blocked_user_gets_no_token(admin: Admin, agent: Agent, token: str) -> None:
    """No refresh, no sign-in, no exchange, until unblocked; statuses as Auth0's."""
    path = f"users/{agent.user['user_id']}"
    blocked = admin.call("PATCH", path, {"blocked": True})
    assert (blocked.status_code, blocked.json()["blocked"]) == (200, True)
    refused = agent.refresh(token)
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": "access_denied", "error_description": "user is blocked"},
    )
    assert agent.exchange(token).status_code == 403
    agent.person.open("authorize", **agent.authorize_query())
    page = agent.person.send(
        "login", user=agent.person.name, password=agent.person.password
    )
    assert page.status_code == 403
    assert 'data-error="blocked"' in page.text
    assert admin.call("PATCH", path, {"blocked": False}).status_code == 200
    assert refreshes(agent, token)


def test_a_deleted_users_tokens_and_accounts_end(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Refresh tokens, grants and accounts go with the user."""
    user_id = agent.user["user_id"]
    agent.connect(agent.me_token(token))
    assert admin.call("DELETE", f"users/{user_id}").status_code == 204
    assert admin.call("DELETE", f"users/{user_id}").status_code == 204
    assert agent.refresh(token).status_code == 403
    assert admin.call("GET", f"users/{user_id}/connected-accounts").status_code == 404


def test_a_deleted_clients_refresh_tokens_end(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Its refresh tokens end with it, and the next call does not know it."""
    client_id = agent.client["client_id"]
    assert admin.call("DELETE", f"clients/{client_id}").status_code == 204
    assert held(agent) == []
    assert agent.refresh(token).json()["error"] == "invalid_client"


def test_a_client_revokes_its_own_tokens_alone(admin: Admin) -> None:
    """RFC 7009 section 2.1: another's is answered with the same 200, and lives on."""
    owner, other = (Agent(admin, f"own-{new_id('x')[2:]}") for _ in range(2))
    held = owner.tokens()
    bearer = {"authorization": f"Bearer {held['access_token']}"}
    url = f"{admin.tenant.issuer}userinfo"
    for bot, status in ((other, 200), (owner, 401)):
        for token in (held["access_token"], held["refresh_token"]):
            form = {"token": token, **bot.auth}
            assert admin.tenant.post("oauth/revoke", **form).status_code == 200
        assert admin.tenant.http.get(url, headers=bearer).status_code == status
        works = owner.refresh(held["refresh_token"]).status_code == 200
        assert works is (bot is other)


def unique(name: str) -> str:
    return f"{name}-{new_id('x')[2:]}"


def machine(admin: Admin, **members: Any) -> dict[str, Any]:
    return admin.made(
        "clients",
        {"name": "m", "app_type": "non_interactive", "oidc_conformant": True,
         "grant_types": ["client_credentials"], **members},
    )  # fmt: skip


def api(admin: Admin, **members: Any) -> dict[str, Any]:
    identifier = f"https://{unique('api')}.test/"
    scopes = [{"value": "read:it"}]
    return admin.made(
        "resource-servers", {"identifier": identifier, "scopes": scopes, **members}
    )


def machine_token(
    admin: Admin, client: dict[str, Any], audience: str, secret: str
) -> Any:
    return admin.tenant.post(
        "oauth/token",
        grant_type="client_credentials",
        client_id=client["client_id"],
        client_secret=secret,
        audience=audience,
    )


@pytest.mark.parametrize("secret", ["nobody", "", "None"])
def test_a_public_client_made_confidential_has_no_secret_yet(
    admin: Admin, secret: str
) -> None:
    """A public client made confidential has no secret until one is made for it."""
    client = machine(admin, token_endpoint_auth_method="none")
    audience = api(admin)["identifier"]
    grant = {"client_id": client["client_id"], "audience": audience}
    admin.made("client-grants", {**grant, "scope": ["read:it"]})
    path = f"clients/{client['client_id']}"
    method = {"token_endpoint_auth_method": "client_secret_post"}
    assert admin.call("PATCH", path, method).status_code == 200
    answer = machine_token(admin, client, audience, secret)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    made = admin.call("POST", f"{path}/rotate-secret").json()["client_secret"]
    assert machine_token(admin, client, audience, made).status_code == 200


@pytest.mark.parametrize(
    "member",
    ["name", "app_type", "grant_types", "is_first_party", "oidc_conformant",
     "callbacks", "jwt_configuration", "refresh_token"],
)  # fmt: skip
def test_a_null_does_not_remove_a_clients_required_member(
    admin: Admin, member: str
) -> None:
    """A null for such a member is refused or does nothing, and is no fault of ours."""
    client = machine(admin)
    path = f"clients/{client['client_id']}"
    answer = admin.call("PATCH", path, {member: None})
    assert answer.status_code in {200, 400}
    after = admin.call("GET", path)
    assert after.status_code == 200
    assert machine_token(admin, client, "https://none.test/", "x").status_code == 401


def test_changing_one_api_policy_keeps_the_other(admin: Admin) -> None:
    """An API closed to users stays so when only its policy for clients is changed."""
    closed = {"user": {"policy": "deny_all"}, "client": {"policy": "deny_all"}}
    made = api(admin, subject_type_authorization=closed)
    path = f"resource-servers/{made['id']}"
    part = {"client": {"policy": "require_client_grant"}}
    answer = admin.call("PATCH", path, {"subject_type_authorization": part})
    assert answer.status_code == 200
    assert answer.json()["subject_type_authorization"] == {**closed, **part}
    empty = {"subject_type_authorization": {"user": {}}}
    assert admin.call("PATCH", path, empty).status_code == 400
    assert admin.call("GET", path).json() == answer.json()


def test_a_client_grant_ends_with_its_api_and_its_client(admin: Admin) -> None:
    """An API made again under the same name is open to nobody who had the old one."""
    client = machine(admin)
    made = api(admin)
    grant = {"client_id": client["client_id"], "audience": made["identifier"]}
    admin.made("client-grants", {**grant, "scope": ["read:it"]})
    secret = client["client_secret"]
    assert machine_token(admin, client, made["identifier"], secret).status_code == 200
    gone = admin.call("DELETE", f"resource-servers/{made['id']}")
    assert gone.status_code == 204
    again = {"identifier": made["identifier"], "scopes": made["scopes"]}
    admin.made("resource-servers", again)
    assert machine_token(admin, client, made["identifier"], secret).status_code == 403
    admin.made("client-grants", {**grant, "scope": ["read:it"]})
    admin.call("DELETE", f"clients/{client['client_id']}")
    left = admin.call("GET", "client-grants", client_id=client["client_id"]).json()
    assert left == []


def test_a_renamed_role_frees_its_name(admin: Admin) -> None:
    """It is known by the new one, and only by that."""
    old, new = unique("old"), unique("new")
    role = admin.call("POST", "roles", {"name": old}).json()
    path = f"roles/{role['id']}"
    assert admin.call("PATCH", path, {"name": new}).json()["name"] == new
    assert admin.call("POST", "roles", {"name": new}).status_code == 409
    other = admin.call("POST", "roles", {"name": old})
    assert other.status_code == 200
    clash = admin.call("PATCH", f"roles/{other.json()['id']}", {"name": new})
    assert clash.status_code == 409
    assert admin.call("PATCH", path, {"name": None}).json()["name"] == new


def test_a_null_does_not_unblock_a_user(admin: Admin) -> None:
    """A null says nothing of it."""
    user = admin.user(unique("blocked"))
    path = f"users/{user['user_id'].replace('|', '%7C')}"
    assert admin.call("PATCH", path, {"blocked": True}).json()["blocked"] is True
    assert admin.call("PATCH", path, {"blocked": None}).json()["blocked"] is True
    assert "blocked" not in admin.call("PATCH", path, {"blocked": False}).json()


def test_a_blocked_users_token_gets_no_userinfo(admin: Admin) -> None:
    """Neither the opaque one, nor one for an API."""
    bot = Agent(admin, unique("seen"))
    bearer = {"authorization": f"Bearer {bot.tokens()['access_token']}"}
    url = f"{admin.tenant.issuer}userinfo"
    assert admin.tenant.http.get(url, headers=bearer).status_code == 200
    path = f"users/{bot.user['user_id'].replace('|', '%7C')}"
    admin.call("PATCH", path, {"blocked": True})
    assert admin.tenant.http.get(url, headers=bearer).status_code == 401
    admin.call("PATCH", path, {"blocked": False})
    assert admin.tenant.http.get(url, headers=bearer).status_code == 200


def test_a_user_blocked_before_consent_grants_nothing(admin: Admin) -> None:
    """The sign-in before it was theirs, and is worth nothing any more."""
    bot = Agent(admin, unique("late"))
    bot.person.open("authorize", **bot.authorize_query())
    page = bot.person.send("login", user=bot.person.name, password=bot.person.password)
    assert 'data-step="consent"' in page.text
    path = f"users/{bot.user['user_id'].replace('|', '%7C')}"
    admin.call("PATCH", path, {"blocked": True})
    answer = bot.person.send("consent")
    assert answer.status_code == 403
    assert "location" not in answer.headers


def test_a_blocked_user_reaches_no_connected_account(admin: Admin) -> None:
    """The token they hold lives on, and opens nothing of theirs any more."""
    bot = Agent(admin, unique("cut"))
    me = bot.me_token(bot.tokens()["refresh_token"])
    assert bot.me(me, "GET", "accounts").status_code == 200
    path = f"users/{bot.user['user_id'].replace('|', '%7C')}"
    admin.call("PATCH", path, {"blocked": True})
    for method, of in (("GET", "accounts"), ("DELETE", "accounts/cac_x")):
        assert bot.me(me, method, of).status_code == 401


def test_a_removed_client_grant_stops_refreshes(admin: Admin) -> None:
    """Also at the API that the refresh token was issued for."""
    made = api(
        admin,
        allow_offline_access=True,
        subject_type_authorization={"user": {"policy": "require_client_grant"}},
    )
    bot = Agent(admin, unique("granted"))
    grant = {
        "client_id": bot.client["client_id"],
        "audience": made["identifier"],
        "scope": ["read:it"],
        "subject_type": "user",
    }
    kept = admin.made("client-grants", grant)
    scope = "openid offline_access read:it"
    refresh = bot.tokens(audience=made["identifier"], scope=scope)["refresh_token"]
    assert "read:it" in bot.refresh(refresh).json()["scope"].split()
    narrowed = {"scope": []}
    assert admin.call("PATCH", f"client-grants/{kept['id']}", narrowed).json()
    assert "read:it" not in bot.refresh(refresh).json()["scope"].split()
    assert admin.call("DELETE", f"client-grants/{kept['id']}").status_code == 204
    answer = bot.refresh(refresh)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


def test_a_malformed_callback_is_passed_over(admin: Admin) -> None:
    """It is passed over when a request is compared with it, and the others count."""
    bot = Agent(admin, unique("odd"), callbacks=["http://[::1", "http://127.0.0.1/cb"])
    good = bot.authorize_query(redirect_uri="http://127.0.0.1:9/cb")
    assert bot.person.open("authorize", **good).status_code == 200
    bad = bot.authorize_query(redirect_uri="http://127.0.0.1:9/other")
    assert "not registered" in bot.person.open("authorize", **bad).text


def test_an_infinite_number_in_a_body_is_refused(admin: Admin) -> None:
    """1e999 would be kept as Infinity, which is no JSON when it is read again."""
    user = admin.user(unique("huge"))
    answer = admin.tenant.http.patch(
        f"{admin.tenant.issuer}api/v2/users/{user['user_id'].replace('|', '%7C')}",
        headers={
            "authorization": f"Bearer {admin.token}",
            "content-type": "application/json",
        },
        content=b'{"user_metadata": {"n": 1e999}}',
    )
    assert answer.status_code == 400
