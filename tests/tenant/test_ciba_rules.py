"""Whom a client may ask for by CIBA, for what, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from support.backchannel import CIBA, MESSAGE, Asking
from support.tenant_admin import Admin, Agent
from support.tenant_thread import TenantThread

from agentvault_tui.tenant.ciba import requests
from agentvault_tui.tenant.page_reader import read_page

API = "https://pay.test/"
GRANTED = "https://granted.test/"
PAYMENT = {"type": "payment", "amount": {"value": 42, "currency": "EUR"}}


@pytest.fixture
def asking(admin: Admin) -> Asking:
    return Asking.someone(admin)


@pytest.fixture(scope="module")
def api(admin: Admin) -> dict[str, Any]:
    body = {
        "identifier": API,
        "scopes": [{"value": "send:payment"}, {"value": "read:payment"}],
        "authorization_details": [{"type": "payment"}],
        "allow_offline_access": True,
        "token_lifetime": 900,
    }
    return admin.made("resource-servers", body)


@pytest.mark.parametrize(
    "members",
    [
        {"grant_types": ["authorization_code"]},
        {"is_first_party": False},
        {"oidc_conformant": False},
    ],
)
def test_the_client_must_be_of_the_kind(
    admin: Admin, asking: Asking, members: dict[str, Any]
) -> None:
    """First party, conformant and with the grant, at the start and at each poll."""
    token = asking.asked()
    path = f"clients/{asking.client['client_id']}"
    assert admin.call("PATCH", path, members).status_code == 200
    for answer in (asking.ask(), asking.poll(token)):
        assert answer.status_code == 403
        assert answer.json() == {
            "error": "unauthorized_client",
            "error_description": f"Grant type '{CIBA}' not allowed for the client.",
            "error_uri": "https://auth0.com/docs/clients/client-grant-types",
        }


def test_public_and_wrong_clients_ask_nothing(admin: Admin, asking: Asking) -> None:
    """No client asks for a person without a secret, or with a wrong one."""
    wrong = asking.ask(client_secret="wrong")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    body = {
        "name": "public",
        "app_type": "native",
        "oidc_conformant": True,
        "token_endpoint_auth_method": "none",
        "grant_types": [CIBA],
    }
    public = admin.made("clients", body)["client_id"]
    answer = asking.ask(client_id=public, client_secret=None)
    assert (answer.status_code, answer.json()["error"]) == (403, "unauthorized_client")


def test_what_is_granted_is_for_one_request(
    admin: Admin, asking: Asking, api: dict[str, Any]
) -> None:
    """API, scope and details reach token, answer and page; no grant is kept for it."""
    token = asking.asked(
        resource=api["identifier"],
        scope="openid send:payment offline_access admin:everything",
        authorization_details='[{"type":"payment","amount":{"value":42,"currency":"EUR"}}]',
        requested_expiry="259200",
    )
    page = asking.signed_in()
    assert page.values["message"] == MESSAGE
    assert page.values["audience"] == API
    assert ("type", "payment", "text") in page.parameters
    assert ("amount", '{"value": 42, "currency": "EUR"}', "json") in page.parameters
    asking.person.send("consent")
    said = asking.poll(token).json()
    assert said["scope"] == "openid send:payment offline_access"
    assert said["authorization_details"] == [PAYMENT]
    assert said["expires_in"] == 900
    access = asking.claims(said["access_token"])
    assert access["aud"] == [API, asking.tenant.issuer + "userinfo"]
    assert access["authorization_details"] == [PAYMENT]
    assert said["refresh_token"].startswith("v1.")
    user_id = asking.user.user.sub
    assert admin.call("GET", "grants", user_id=user_id).json() == []


def test_an_api_that_wants_a_grant_names_the_types_in_it(
    admin: Admin, asking: Asking
) -> None:
    """Without the client grant no access; without its types no such details."""
    body = {
        "identifier": GRANTED,
        "scopes": [{"value": "send:payment"}],
        "authorization_details": [{"type": "payment"}],
        "subject_type_authorization": {"user": {"policy": "require_client_grant"}},
    }
    made = admin.made("resource-servers", body)
    form = {"audience": GRANTED, "authorization_details": '[{"type":"payment"}]'}
    closed = asking.ask(**form)
    assert (closed.status_code, closed.json()["error"]) == (403, "access_denied")
    grant = {
        "client_id": asking.client["client_id"],
        "audience": GRANTED,
        "scope": ["send:payment"],
        "subject_type": "user",
    }
    key = admin.made("client-grants", grant)["id"]
    wrong = asking.ask(**form)
    assert wrong.json()["error"] == "invalid_authorization_details"
    types = {"authorization_details_types": ["payment"]}
    assert admin.call("PATCH", f"client-grants/{key}", types).status_code == 200
    token = asking.asked(**form)
    asking.accept()
    # What is taken back after the yes is not given.
    none: dict[str, Any] = {"authorization_details_types": []}
    assert admin.call("PATCH", f"client-grants/{key}", none).status_code == 200
    assert asking.poll(token).json()["error"] == "access_denied"
    assert admin.call("PATCH", f"client-grants/{key}", types).status_code == 200
    token = asking.asked(**form)
    asking.accept()
    assert admin.call("DELETE", f"client-grants/{key}").status_code == 204
    assert asking.poll(token).json()["error"] == "access_denied"
    admin.made("client-grants", {**grant, **types})
    assert asking.ask(**form).status_code == 200
    policy = {"consent_policy": "transactional-authorization-with-mfa"}
    path = f"resource-servers/{made['id']}"
    assert admin.call("PATCH", path, policy).status_code == 200
    unsupported = asking.ask(**form)
    assert unsupported.json()["error"] == "invalid_request"


def test_such_an_api_takes_a_second_factor_at_each_sign_in(admin: Admin) -> None:
    """Its consent policy is not only kept: /authorize asks for the code as well."""
    body = {
        "identifier": "https://transactional.test/",
        "consent_policy": "transactional-authorization-with-mfa",
    }
    audience = admin.made("resource-servers", body)["identifier"]
    agent = Agent(admin, "transacting-bot")
    agent.person.open("authorize", **agent.authorize_query(audience=audience))
    agent.person.send("login", user=agent.person.name, password=agent.person.password)
    assert read_page(agent.person.last.text).step == "login-otp"


def test_a_person_nobody_can_tell_is_not_asked(admin: Admin, asking: Asking) -> None:
    """It takes a verified address and a client that uses it; push reaches nobody."""
    path = f"clients/{asking.client['client_id']}"
    for channels, expiry in ((["guardian-push"], "300"), (["guardian-push"], "301"),
                             ([], "300")):  # fmt: skip
        body = {"async_approval_notification_channels": channels}
        assert admin.call("PATCH", path, body).status_code == 200
        answer = asking.ask(requested_expiry=expiry)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    body = {"async_approval_notification_channels": ["email"]}
    assert admin.call("PATCH", path, body).status_code == 200
    assert asking.ask().status_code == 200
    nameless = admin.tenant.users.add("nameless").user.sub
    members = {"email": "unverified@acme.test", "password": "p" * 12}
    members["connection"] = "Username-Password-Authentication"
    unverified = admin.made("users", members)["user_id"]
    for sub in (nameless, unverified):
        answer = asking.ask(login_hint=asking.hint(sub=sub))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    body = {"async_approval_notification_channels": ["pigeon"]}
    assert admin.call("PATCH", path, body).status_code == 400


def test_a_blocked_person_is_not_asked_and_gives_nothing(
    admin: Admin, asking: Asking
) -> None:
    """Blocked before the start, or between the yes and the poll."""
    token = asking.asked()
    asking.accept()
    path = f"users/{asking.user.user.sub}"
    assert admin.call("PATCH", path, {"blocked": True}).status_code == 200
    assert asking.poll(token).json()["error"] == "access_denied"
    assert asking.ask().json()["error"] == "access_denied"


def test_one_person_is_asked_five_times_a_minute(admin: Admin, asking: Asking) -> None:
    """By all clients together, whatever the wall clock says; others still are."""
    other = Asking(admin, asking.user)
    for number in range(5):
        (asking, other)[number % 2].asked()
    answer = other.ask()
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_requests")
    assert int(answer.headers["retry-after"]) == 60
    someone = admin.tenant.users.add("someone@acme.test").user.sub
    assert asking.ask(login_hint=asking.hint(sub=someone)).status_code == 200
    asking.tenant.clock.jump_wall(3600)
    assert other.ask().status_code == 429
    asking.tenant.clock.jump_wall(-3600)
    asking.tenant.clock.advance(60)
    assert other.ask().status_code == 200


def test_the_tenants_own_limits(
    tenant: TenantThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many starts a minute, so many waiting; each told with when to come again."""
    admin = Admin(tenant)
    monkeypatch.setattr(requests, "_STARTS", 2)
    for _ in range(2):
        Asking.someone(admin).asked()
        tenant.clock.advance(1)
    full = Asking.someone(admin).ask()
    assert (full.status_code, full.json()["error"]) == (429, "too_many_requests")
    assert full.headers["retry-after"] == "58"
    tenant.clock.advance(58)
    monkeypatch.setattr(requests, "_PENDING", 2)
    full = Asking.someone(admin).ask()
    assert (full.status_code, full.headers["retry-after"]) == (429, "60")
    tenant.clock.advance(300)
    assert Asking.someone(admin).ask().status_code == 200


def test_recorded_and_documented_refusals(asking: Asking) -> None:
    """Nobody of that id, no openid, an API there is not: words and statuses."""
    nobody = asking.ask(login_hint=asking.hint(sub="auth0|nobody"))
    assert (nobody.status_code, nobody.json()) == (
        400,
        {
            "error": "unknown_user_id",
            "error_description": "User ID is malformed or unknown",
        },
    )
    closed = asking.ask(scope="profile")
    assert (closed.status_code, closed.json()) == (
        400,
        {
            "error": "invalid_request",
            "error_description": "openid scope must be requested",
        },
    )
    nowhere = asking.ask(audience="https://nowhere.test/")
    assert (nowhere.status_code, nowhere.json()) == (
        403,
        {
            "error": "access_denied",
            "error_description": "Service not found: https://nowhere.test/",
        },
    )


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"scope=openid&scope=openid", 400),
        ("application/x-www-form-urlencoded", b"scope=%ff", 400),
        ("application/x-www-form-urlencoded", b"", 400),
        ("application/json", b'{"scope":"openid","scope":"openid"}', 400),
        ("application/json", b'["openid"]', 400),
        ("application/json", b"{", 400),
        ("text/plain", b"scope=openid", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 70_000, 413),
    ],
)
def test_bodies_are_read_strictly(
    asking: Asking, kind: str, body: bytes, status: int
) -> None:
    """Twice the same, no UTF-8, no object, another type, too much: refused."""
    url = asking.tenant.issuer + "bc-authorize"
    headers = {"content-type": kind}
    answer = asking.tenant.http.post(url, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]
