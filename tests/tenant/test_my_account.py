"""The My Account API: a user connects accounts, sees them, and drops them."""

from __future__ import annotations

from typing import Any

import pytest
from auth0_double.faults import Faults
from support.tenant_admin import (
    CALLBACK,
    PASSWORD,
    VERIFIER,
    Admin,
    Agent,
    Person,
    carried,
)


@pytest.fixture(scope="module")
def token(agent: Agent) -> str:
    return agent.me_token(agent.tokens()["refresh_token"])


def proof(started: dict[str, Any], code: str, **changes: Any) -> dict[str, Any]:
    base = {
        "auth_session": started["auth_session"],
        "connect_code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **changes,
    }
    return {name: value for name, value in base.items() if value is not None}


def test_an_account_is_connected_listed_and_deleted(
    admin: Admin, agent: Agent, token: str
) -> None:
    """201, the page, 302 with a code, 201, listed, 204, gone; as recorded."""
    started = agent.start(token)
    assert started == {
        "auth_session": started["auth_session"],
        "connect_uri": f"{admin.tenant.issuer}connected-accounts/connect",
        "connect_params": {"ticket": started["connect_params"]["ticket"]},
        "expires_in": 300,
    }
    assert len(started["auth_session"]) <= 64
    found = agent.person.allow(
        "connected-accounts/connect", **started["connect_params"]
    )
    assert found["state"] == "s2"
    assert len(found["connect_code"]) <= 46
    answer = agent.me(token, "POST", "complete", proof(started, found["connect_code"]))
    assert answer.status_code == 201
    account = answer.json()
    assert account == {
        "id": account["id"],
        "connection": "workspace",
        "access_type": "offline",
        "scopes": ["calendar.read", "calendar.write"],
        "created_at": account["created_at"],
    }
    assert account["id"].startswith("cac_")
    assert agent.me(token, "GET", "accounts").json() == {"accounts": [account]}
    assert agent.me(token, "GET", "connections").json() == {
        "connections": [{"name": "workspace", "strategy": "oauth2"}]
    }
    managed = admin.call(
        "GET", f"users/{agent.user['user_id']}/connected-accounts"
    ).json()["connected_accounts"][0]
    assert managed == {
        **account,
        "connection_id": admin.connection()["id"],
        "strategy": "oauth2",
    }
    gone = agent.me(token, "DELETE", f"accounts/{account['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    again = agent.me(token, "DELETE", f"accounts/{account['id']}")
    assert again.status_code == 404
    assert agent.me(token, "GET", "accounts").json() == {"accounts": []}
    for kind in ("connection_succeeded", "delete_succeeded"):
        row = admin.rows(f"connected_accounts_{kind}")[0]
        said = row["details"]["connected_account"]
        assert said == {"id": account["id"], "idp_user_id": "some-bot"}


def test_deleting_an_account_leaves_the_providers_tokens(
    admin: Admin, agent: Agent
) -> None:
    """Auth0's own rule: the vault forgets; who holds a copy can go on."""
    refresh = agent.tokens()["refresh_token"]
    me = agent.me_token(refresh)
    account = agent.connect(me)
    access = agent.exchange(refresh).json()["access_token"]
    assert agent.me(me, "DELETE", f"accounts/{account['id']}").status_code == 204
    assert agent.exchange(refresh).status_code == 401
    info = admin.tenant.http.get(
        admin.tenant.issuer + "agentvault/workspace/tokeninfo",
        headers={"authorization": f"Bearer {access}"},
    )
    assert info.json()["active"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"connect_code": "invented"},
        {"auth_session": "invented"},
        {"redirect_uri": "http://127.0.0.1:9/other"},
        {"code_verifier": "w" * 43},
        {"code_verifier": None},
    ],
    ids=str,
)
def test_completing_takes_session_code_redirect_uri_and_verifier(
    agent: Agent, token: str, changes: dict[str, Any]
) -> None:
    """Session, code, address and verifier; each wrong one alone is 400."""
    started = agent.start(token)
    path = "connected-accounts/connect"
    code = agent.person.allow(path, **started["connect_params"])["connect_code"]
    body = proof(started, code, **changes)
    answer = agent.me(token, "POST", "complete", body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"type", "status", "title", "detail"}
    # Nothing was used up by the wrong one.
    right = agent.me(token, "POST", "complete", proof(started, code))
    assert right.status_code == 201
    once = agent.me(token, "POST", "complete", proof(started, code))
    assert once.status_code == 400


def test_a_connect_code_expires_with_its_request(admin: Admin, agent: Agent) -> None:
    """Five minutes after the request the consent it led to is worth nothing."""
    token = agent.me_token(agent.tokens()["refresh_token"])
    started = agent.start(token)
    path = "connected-accounts/connect"
    code = agent.person.allow(path, **started["connect_params"])["connect_code"]
    admin.tenant.clock.advance(started["expires_in"])
    late = agent.me(token, "POST", "complete", proof(started, code))
    assert late.status_code == 400


def test_another_users_connect_code_is_refused(
    admin: Admin, agent: Agent, token: str
) -> None:
    """A code that leaked is worth nothing in another account."""
    thief = Agent(admin, "account-thief")
    started = agent.start(token)
    path = "connected-accounts/connect"
    code = agent.person.allow(path, **started["connect_params"])["connect_code"]
    theirs = thief.me_token(thief.tokens()["refresh_token"])
    stolen = thief.me(theirs, "POST", "complete", proof(started, code))
    assert stolen.status_code == 400
    account = agent.me(token, "POST", "complete", proof(started, code)).json()
    foreign = thief.me(theirs, "DELETE", f"accounts/{account['id']}")
    assert foreign.status_code == 404


def test_a_connect_ticket_is_good_for_one_decision(
    admin: Admin, agent: Agent, token: str
) -> None:
    """After a yes, a no, or five minutes the link leads nowhere."""
    path = "connected-accounts/connect"
    yes, no, late = (agent.start(token) for _ in range(3))
    agent.person.allow(path, **yes["connect_params"])
    agent.person.open(path, **no["connect_params"])
    assert carried(agent.person.send("cancel"))["error"] == "access_denied"
    row = admin.rows("connected_accounts_connection_failed")[0]
    assert row["user_name"] == "some-bot"
    agent.person.open(path, **late["connect_params"])
    admin.tenant.clock.advance(301)
    agent.person.send("login", user="some-bot", password=PASSWORD)
    assert "Start again" in agent.person.last.text
    for started in (yes, no, late, {"connect_params": {"ticket": "x"}}):
        page = agent.person.open(path, **started["connect_params"])
        assert "Start again" in page.text
        assert page.status_code == 410


def test_the_consent_page_names_client_provider_user_and_scopes(
    admin: Admin, agent: Agent, token: str
) -> None:
    """Who consents sees client, provider, vault user, scopes and where it goes."""
    started = agent.start(token, scopes=["mail.send", "<b>bold</b>"])
    page = agent.person.open("connected-accounts/connect", **started["connect_params"])
    for text in (
        "Agent: calendar-bot", "workspace", "some-bot", "mail.send",
        "&lt;b&gt;bold&lt;/b&gt;", "http://127.0.0.1:9",
    ):  # fmt: skip
        assert text in page.text
    assert "<b>bold" not in page.text


def test_connecting_an_account_again_keeps_its_id(agent: Agent, token: str) -> None:
    """The same account at the provider is one entry, with the scopes of this time."""
    first = agent.connect(token)
    second = agent.connect(token, scopes=["calendar.read"])
    assert second == {**first, "scopes": ["calendar.read"]}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"connection": "google-oauth2"}, 404),
        ({"connection": None}, 400),
        ({"connection": 7}, 400),
        ({"redirect_uri": "https://evil.test/"}, 400),
        ({"scopes": ["a b"]}, 400),
        ({"scopes": "a"}, 400),
        ({"scopes": [str(n) for n in range(101)]}, 400),
        ({"code_challenge_method": "plain"}, 400),
        ({"code_challenge": None}, 400),
    ],
    ids=str,
)
def test_bad_connect_requests_are_refused(
    agent: Agent, token: str, changes: dict[str, Any], status: int
) -> None:
    """Each is refused with type, status, title and detail, and starts nothing."""
    body = {
        "connection": "workspace",
        "redirect_uri": CALLBACK,
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        **changes,
    }
    answer = agent.me(token, "POST", "connect", body)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.headers["x-ratelimit-limit"]


def test_my_account_refuses_other_tokens(
    admin: Admin, agent: Agent, token: str
) -> None:
    """No token, another API's, a machine's, and one without the scope."""
    refresh = agent.tokens()["refresh_token"]
    url = f"{admin.tenant.issuer}me/v1/connected-accounts/accounts"
    assert admin.tenant.http.get(url).status_code == 401
    assert agent.me(admin.token, "GET", "accounts").status_code == 401
    assert agent.me("a.b.c", "GET", "accounts").status_code == 401
    less = agent.refresh(
        refresh,
        audience=f"{admin.tenant.issuer}me/",
        scope="read:me:connected_accounts",
    ).json()["access_token"]
    assert agent.me(less, "GET", "accounts").status_code == 200
    refused = agent.me(less, "POST", "connect", {})
    assert refused.status_code == 403
    assert "create:me:connected_accounts" in refused.json()["detail"]
    assert agent.me(token, "GET", "nothing").json()["title"] == "Not Found"


def test_connected_accounts_are_paged(admin: Admin) -> None:
    """take is 1 to 20, ten by default; next until the end; by connection too."""
    agent = Agent(admin, "many-bot")
    me = agent.me_token(agent.tokens()["refresh_token"])
    for name in ("p-one", "p-two", "p-three"):
        admin.user(name)
        agent.person = Person(admin.tenant, name, PASSWORD)
        agent.connect(me)
    page = agent.me(me, "GET", "accounts?take=2").json()
    rest = agent.me(me, "GET", f"accounts?take=2&from={page['next']}").json()
    assert (len(page["accounts"]), len(rest["accounts"])) == (2, 1)
    assert "next" not in rest
    assert agent.me(me, "GET", "accounts?take=21").status_code == 400
    assert agent.me(me, "GET", "accounts?connection=x").json() == {"accounts": []}


def test_my_account_rate_limit_gets_429_with_retry_after(
    admin: Admin, agent: Agent, token: str
) -> None:
    """429 with retry-after and Auth0's own header for the kind."""
    admin.tenant.faults.set(Faults(rate=1))
    admin.tenant.clock.advance(1)
    try:
        first = agent.me(token, "GET", "accounts")
        second = agent.me(token, "GET", "accounts")
    finally:
        admin.tenant.faults.set(Faults())
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["x-auth0-error-kind"] == "global-rate-limit"
    assert second.headers["retry-after"] == "1"


def test_provider_tokens_are_sealed(admin: Admin, agent: Agent, token: str) -> None:
    """Neither of the provider's tokens stands in a file in clear."""
    refresh = agent.tokens()["refresh_token"]
    agent.connect(token)
    access = agent.exchange(refresh).json()["access_token"]
    secret = admin.tenant.provider_refresh_token(agent.user["user_id"])
    held = b"".join(f.read_bytes() for f in admin.tenant.home.tenant.iterdir())
    assert access.encode() not in held
    assert secret.encode() not in held
