"""Signing in for a client: what is refused, who is asked what, what comes back."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet
from support.tenant_admin import (
    CALLBACK,
    CHALLENGE,
    PASSWORD,
    VERIFIER,
    Admin,
    Agent,
    Person,
    carried,
)

from agentvault_tui.encoder import to_base64url
from agentvault_tui.tenant.device_page_client import read_page
from agentvault_tui.tenant.login import _back, redirect_allowed
from agentvault_tui.tenant.oauth.wire import proven


def claims(admin: Admin, token: str) -> dict[str, Any]:
    keys = admin.tenant.http.get(admin.tenant.issuer + ".well-known/jwks.json").json()
    found = jwt.decode(token, KeySet.import_key_set(keys), ["RS256"])
    return dict(found.claims)


def test_a_password_alone_proves_no_second_factor(admin: Admin, agent: Agent) -> None:
    """Code, state back, tokens once; the ID token has nonce and roles, and no amr."""
    found = agent.person.allow("authorize", **agent.authorize_query(nonce="n1"))
    assert found["state"] == "s1"
    answer = agent.redeem(found["code"])
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        "access_token", "id_token", "refresh_token", "scope", "expires_in",
        "token_type",
    }  # fmt: skip
    said = claims(admin, body["id_token"])
    assert said["nonce"] == "n1"
    assert said["https://agentvault.dev/roles"] == []
    assert "amr" not in said
    assert "acr" not in said
    assert "https://agentvault.dev/mfa_at" not in said
    row = admin.rows("s")[0]
    assert row["user_name"] == "some-bot"
    assert [prompt["name"] for prompt in row["details"]["prompts"]] == ["login"]


def test_a_code_used_twice_revokes_its_refresh_token(agent: Agent) -> None:
    """RFC 6749 section 4.1.2: the second use is refused and revokes the first's."""
    code = agent.person.allow("authorize", **agent.authorize_query())["code"]
    token = agent.redeem(code).json()["refresh_token"]
    assert agent.refresh(token).status_code == 200
    again = agent.redeem(code)
    assert (again.status_code, again.json()) == (
        403,
        {"error": "invalid_grant", "error_description": "Invalid authorization code"},
    )
    assert agent.refresh(token).status_code == 403


@pytest.mark.parametrize(
    "form",
    [
        {"code": "invented"},
        {"redirect_uri": "http://127.0.0.1:9/other"},
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"code_verifier": "short"},
    ],
    ids=str,
)
def test_a_code_takes_its_redirect_uri_and_verifier(
    agent: Agent, form: dict[str, str]
) -> None:
    """The code, its redirect_uri and its verifier, or 403; the right ones work."""
    code = agent.person.allow("authorize", **agent.authorize_query())["code"]
    wrong = agent.redeem(code, **form)
    assert (wrong.status_code, wrong.json()["error"]) == (403, "invalid_grant")
    assert agent.redeem(code).status_code == 200


def test_a_code_is_bound_to_its_client_and_lives_a_minute(
    admin: Admin, agent: Agent
) -> None:
    """Another client's code is unknown, and a late one over."""
    thief = Agent(admin, "code-thief")
    code = agent.person.allow("authorize", **agent.authorize_query())["code"]
    assert agent.redeem(code, **thief.auth).json()["error"] == "invalid_grant"
    admin.tenant.clock.advance(61)
    assert agent.redeem(code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "query",
    [
        {"client_id": "app_nobody"},
        {"redirect_uri": "http://127.0.0.1:9/other"},
        {"redirect_uri": "https://evil.test/"},
        {"redirect_uri": ""},
        {"redirect_uri": CALLBACK + "#x"},
        {"state": "x" * 501},
    ],
    ids=str,
)
def test_an_unregistered_redirect_uri_is_not_redirected_to(
    agent: Agent, query: dict[str, str]
) -> None:
    """Without a known client and address the person is told, and not sent on."""
    answer = agent.person.open("authorize", **agent.authorize_query(**query))
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert 'data-error="bad_request"' in answer.text


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge_method": "S512"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"audience": "https://nowhere.test/"}, "access_denied"),
        ({"prompt": "none"}, "login_required"),
    ],
    ids=str,
)
def test_a_wrong_request_is_redirected_back_to_its_client(
    agent: Agent, query: dict[str, str], error: str
) -> None:
    """A wrong request of a known client goes back to it, with its state."""
    answer = agent.person.open("authorize", **agent.authorize_query(**query))
    assert carried(answer)["error"] == error
    assert carried(answer)["state"] == "s1"
    assert answer.headers["location"].startswith(CALLBACK)


def test_a_repeated_parameter_of_authorize_is_refused(agent: Agent) -> None:
    """RFC 6749 section 3.1: of two values nobody guesses which is meant."""
    pairs = [*agent.authorize_query().items(), ("scope", "openid")]
    answer = agent.person.http.get("authorize", params=pairs)  # type: ignore[arg-type]
    assert answer.status_code == 400


def test_a_public_client_needs_pkce(admin: Admin) -> None:
    """Without a secret only the challenge binds the code (RFC 9700 section 2.1.1)."""
    agent = Agent(
        admin, "spa-user", app_type="spa", token_endpoint_auth_method="none",
        grant_types=["authorization_code"],
    )  # fmt: skip
    query = agent.authorize_query(code_challenge="")
    del query["code_challenge"]
    assert carried(agent.person.open("authorize", **query))["error"] == (
        "invalid_request"
    )
    code = agent.person.allow("authorize", **agent.authorize_query())["code"]
    answer = admin.tenant.post(
        "oauth/token", grant_type="authorization_code", code=code,
        redirect_uri=CALLBACK, code_verifier=VERIFIER,
        client_id=agent.client["client_id"],
    )  # fmt: skip
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()


def test_a_state_after_sign_in_takes_no_other_password(
    admin: Admin, agent: Agent
) -> None:
    """The state of a later page takes no other person's password."""
    ann, bob = (admin.tenant.users.add(f"factor-{name}") for name in ("ann", "bob"))
    person = Person(admin.tenant, ann.user.name, ann.password)
    person.open("authorize", **agent.authorize_query())
    page = person.send("login", user=ann.user.name, password=ann.password)
    state = read_page(page.text).forms["consent"].fields["state"]
    form = {"state": state, "user": bob.user.name, "password": bob.password}
    again = person.http.post("u/login", data=form)
    assert again.status_code == 403
    assert 'data-error="stale_form"' in again.text


def test_the_login_page_does_not_tell_unknown_users_apart(
    admin: Admin, agent: Agent
) -> None:
    """A stranger and a wrong password look the same, and the log names neither."""
    pages = []
    for name in ("some-bot", "nobody-at-all"):
        agent.person.open("authorize", **agent.authorize_query())
        pages.append(agent.person.send("login", user=name, password="wrong" * 3))
    assert {page.status_code for page in pages} == {403}
    assert all('data-error="wrong_sign_in"' in page.text for page in pages)
    assert "nobody-at-all" not in str(admin.rows("fp"))
    assert admin.rows("fp")[0]["user_name"] is None


def test_cancelling_a_login_redirects_with_access_denied(agent: Agent) -> None:
    """At the first page as at the last: access_denied, with the state."""
    agent.person.open("authorize", **agent.authorize_query())
    assert carried(agent.person.send("cancel"))["error"] == "access_denied"
    agent.person.open("authorize", **agent.authorize_query())
    agent.person.send("login", user="some-bot", password=PASSWORD)
    said = carried(agent.person.send("cancel"))
    assert said == {
        "error": "access_denied",
        "error_description": "User did not authorize the request",
        "state": "s1",
    }


def test_a_login_form_is_bound_to_its_browser_for_ten_minutes(
    admin: Admin, agent: Agent
) -> None:
    """T-22: without the cookie of the page, or ten minutes later, it does nothing."""
    page = agent.person.open("authorize", **agent.authorize_query())
    errand = page.text.split('name="state" value="')[1].split('"')[0]
    form = {"state": errand, "user": "some-bot", "password": PASSWORD}
    other = admin.tenant.browser()
    for browser, cookies in ((other, {}), (other, {"agentvault_login": "x" * 43})):
        browser.cookies.update(cookies)
        answer = browser.post("u/login", data=form)
        assert answer.status_code == 403
        assert 'data-error="stale_form"' in answer.text
    for forged in ("", "AAAA", errand[:-4] + "AAAA", "é", "x" * 3999):
        answer = agent.person.http.post("u/login", data={**form, "state": forged})
        assert answer.status_code == 403
    cross = agent.person.http.post(
        "u/login", data=form, headers={"origin": "https://evil.test"}
    )
    assert cross.status_code == 403
    admin.tenant.clock.advance(601)
    late = agent.person.http.post("u/login", data=form)
    assert 'data-error="stale_form"' in late.text


def test_two_logins_in_one_browser_do_not_mix(agent: Agent) -> None:
    """A second request in the same browser does not spoil the first one's page."""
    first = agent.person.open("authorize", **agent.authorize_query(state="one"))
    agent.person.open("authorize", **agent.authorize_query(state="two"))
    agent.person.last = first
    agent.person.send("login", user="some-bot", password=PASSWORD)
    assert carried(agent.person.send("consent"))["state"] == "one"


def test_a_hostile_client_name_is_escaped_on_the_login_pages(admin: Admin) -> None:
    """Markup, controls and tricks in a client's name are shown and do nothing."""
    name = "<script>x</script>\x1b[31m\u202egnp"
    agent = Agent(admin, "shown-bot", name=name)
    page = agent.person.open("authorize", **agent.authorize_query())
    assert "<script>" not in page.text
    assert "&lt;script&gt;x&lt;/script&gt;⟦U+001B⟧[31m⟦U+202E⟧gnp" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self';" in policy
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    agent.person.send("login", user="shown-bot", password=PASSWORD)
    policy = agent.person.last.headers["content-security-policy"]
    assert "form-action 'self' http://127.0.0.1:9;" in policy


def test_an_apis_access_token_has_auth0s_default_claims(
    admin: Admin, agent: Agent
) -> None:
    """Auth0's default profile: azp, aud with openid, the API's lifetime."""
    api = "https://profile.test/"
    scopes = [{"value": "read:a"}, {"value": "stepup:pay"}]
    body = {"identifier": api, "token_lifetime": 300, "scopes": scopes}
    admin.made("resource-servers", body)
    body = agent.tokens(audience=api, scope="openid read:a offline_access")
    assert body["expires_in"] == 300
    assert "refresh_token" not in body  # the API gives none
    said = claims(admin, body["access_token"])
    assert said["aud"] == [api, f"{admin.tenant.issuer}userinfo"]
    assert said["exp"] - said["iat"] == 300
    assert said["azp"] == agent.client["client_id"]
    assert said["scope"] == "openid read:a"
    bearer = {"authorization": f"Bearer {body['access_token']}"}
    url = admin.tenant.issuer + "userinfo"
    answer = admin.tenant.http.get(url, headers=bearer).json()
    assert answer["sub"] == agent.user["user_id"]


def test_an_api_that_wants_a_client_grant(admin: Admin, agent: Agent) -> None:
    """Auth0's words without one; with one, its scopes and no more."""
    policy = {"user": {"policy": "require_client_grant"}}
    api = admin.made(
        "resource-servers",
        {
            "identifier": "https://granted.test/",
            "scopes": [{"value": "a"}, {"value": "b"}],
            "subject_type_authorization": policy,
        },
    )["identifier"]
    client_id = agent.client["client_id"]
    query = agent.authorize_query(audience=api, scope="a b")
    refused = carried(agent.person.open("authorize", **query))
    assert refused["error_description"] == (
        f'Client "{client_id}" is not authorized to access resource server "{api}".'
    )
    grant = {
        "client_id": client_id, "audience": api, "scope": ["a"],
        "subject_type": "user",
    }  # fmt: skip
    admin.made("client-grants", grant)
    assert agent.tokens(audience=api, scope="a b")["scope"] == "a"


@pytest.mark.parametrize(
    ("uri", "fits"),
    [
        ("http://127.0.0.1:9/callback", True),
        ("http://127.0.0.1:41234/callback", True),
        ("http://127.0.0.1/callback", False),
        ("http://127.0.0.2:9/callback", False),
        ("http://localhost:9/callback", False),
        ("http://127.0.0.1:9/callback?x=1", False),
        ("http://user@127.0.0.1:9/callback", False),
        ("http://127.0.0.1:99999/callback", False),
        ("https://app.test/cb", True),
        ("https://app.test:8443/cb", False),
        ("https://app.test/cb/..", False),
        ("javascript:alert(1)", False),
        ("com.app:/cb", False),
        ("http://app.test/cb", False),
    ],
)
def test_redirect_uris_are_compared_but_for_a_loopback_port(
    uri: str, fits: bool
) -> None:
    """Only a loopback port may differ (RFC 8252 section 7.3)."""
    registered = (CALLBACK, "https://app.test/cb", "javascript:alert(1)",
                  "com.app:/cb", "http://app.test/cb")  # fmt: skip
    assert redirect_allowed(uri, registered) is fits


@given(st.text(max_size=80))
def test_any_text_is_a_registered_redirect_uri_or_refused(text: str) -> None:
    """What was not registered is refused, and nothing crashes on it."""
    registered = ("https://app.test/cb", "http://127.0.0.1/cb")
    assert not redirect_allowed(text, registered) or text in registered


def test_a_verifier_proves_its_challenge() -> None:
    """RFC 7636 appendix B's example by S256 alone, and what is too short."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert proven(challenge, verifier)
    assert not proven(verifier, verifier)
    for bad in ("short", "x" * 129, "x" * 42 + "!"):
        own = to_base64url(sha256(bad.encode()).digest())
        assert not proven(own, bad)
    assert proven(CHALLENGE, VERIFIER)
    assert not proven(None, VERIFIER)
    back = _back("https://a.test/?x=1", y="é&", z=None)
    assert back.headers["location"] == ("https://a.test/?x=1&y=%C3%A9%26")
