"""The device flow for configured clients: who may, for which API, with which codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from auth0_double.running import DETAILS
from joserfc import jwt
from joserfc.jwk import KeySet
from support.tenant_admin import Admin

from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.users import NewUser

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
NATIVE = {
    "app_type": "native",
    "oidc_conformant": True,
    "token_endpoint_auth_method": "none",
    "grant_types": [GRANT, "refresh_token"],
}


@pytest.fixture(scope="module")
def ann(admin: Admin) -> NewUser:
    return admin.tenant.users.add("device-ann", approver=True)


def approved(admin: Admin, user: NewUser, client_id: str, **form: str) -> Any:
    """Walk a whole device flow; return the token answer."""
    tenant = admin.tenant
    tenant.clock.advance(30)  # a one-time code of its own
    flow = tenant.post("oauth/device/code", client_id=client_id, **form)
    assert flow.status_code == 200, flow.text
    tenant.approve(flow.json(), user)
    return tenant.poll(flow.json(), client_id=client_id)


@pytest.mark.parametrize(
    "members",
    [
        {"app_type": "regular_web"},
        {"oidc_conformant": False},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"grant_types": ["refresh_token"]},
    ],
    ids=str,
)
def test_the_device_flow_takes_a_native_public_conformant_client(
    admin: Admin, members: dict[str, Any]
) -> None:
    """Anything else is 403 unauthorized_client with Auth0's text and link."""
    client = admin.made("clients", {"name": "x", **NATIVE, **members})
    answer = admin.tenant.post("oauth/device/code", client_id=client["client_id"])
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "unauthorized_client",
        "error_description": f"Grant type '{GRANT}' not allowed for the client.",
        "error_uri": "https://auth0.com/docs/clients/client-grant-types",
    }
    assert admin.rows("fdeaz")[0]["client_id"] == client["client_id"]


def test_other_clients_device_codes_live_900_seconds_as_at_auth0(admin: Admin) -> None:
    """900 seconds and five between polls; only the broker's own client has others."""
    client_id = admin.made("clients", {"name": "timed", **NATIVE})["client_id"]
    tenant = admin.tenant
    flow = tenant.post("oauth/device/code", client_id=client_id).json()
    assert (flow["expires_in"], flow["interval"]) == (900, 5)
    waiting = tenant.poll(flow, client_id=client_id)
    assert (waiting.status_code, waiting.json()["error"]) == (
        403, "authorization_pending"
    )  # fmt: skip
    tenant.clock.advance(4)
    hasty = tenant.poll(flow, client_id=client_id)
    assert hasty.status_code == 429
    assert hasty.json()["error_description"] == (
        "You are polling faster than the specified interval of 5 seconds."
    )
    tenant.clock.advance(895)
    left = tenant.poll(flow, client_id=client_id)
    assert left.json()["error"] == "authorization_pending"
    tenant.clock.advance(1)
    assert tenant.poll(flow, client_id=client_id).json()["error"] == "expired_token"


def test_an_api_that_wants_a_client_grant(admin: Admin, ann: NewUser) -> None:
    """Its lifetime, its scopes, no refresh token; the second factor in the ID token."""
    client = admin.made("clients", {"name": "console", **NATIVE})["client_id"]
    api = admin.made(
        "resource-servers",
        {
            "identifier": "https://elevated.agentvault.test/",
            "token_lifetime": 300,
            "scopes": [{"value": "stepup:pay"}, {"value": "stepup:mail"}],
            "subject_type_authorization": {"user": {"policy": "require_client_grant"}},
        },
    )["identifier"]
    form = {"audience": api, "scope": "openid stepup:pay offline_access"}
    refused = admin.tenant.post("oauth/device/code", client_id=client, **form)
    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")
    grant = {"client_id": client, "audience": api, "subject_type": "user",
             "scope": ["stepup:pay", "stepup:mail"]}  # fmt: skip
    admin.made("client-grants", grant)
    body = approved(admin, ann, client, **form).json()
    assert (body["expires_in"], body["scope"]) == (300, "openid stepup:pay")
    assert "refresh_token" not in body
    keys = admin.tenant.http.get(admin.tenant.issuer + ".well-known/jwks.json").json()
    known = KeySet.import_key_set(keys)
    access = jwt.decode(body["access_token"], known)
    now = int(admin.tenant.clock.now().timestamp())
    assert access.header["typ"] == "JWT"
    assert access.claims == {
        "iss": admin.tenant.issuer,
        "sub": ann.user.sub,
        "aud": [api, f"{admin.tenant.issuer}userinfo"],
        "iat": now,
        "exp": now + 300,
        "scope": "openid stepup:pay",
        "azp": client,
    }
    said = jwt.decode(body["id_token"], known).claims
    assert said["https://agentvault.dev/mfa_at"] == now
    assert said["amr"] == ["mfa", "pwd", "otp"]
    assert said["exp"] == now + 36_000


def test_a_device_flow_gives_a_refresh_token_where_allowed(
    admin: Admin, ann: NewUser
) -> None:
    """offline_access is granted; the refreshed ID token knows no second factor."""
    client = admin.made("clients", {"name": "console", **NATIVE})["client_id"]
    api = admin.made(
        "resource-servers",
        {"identifier": "https://offline.test/", "allow_offline_access": True},
    )["identifier"]
    form = {"audience": api, "scope": "openid offline_access"}
    body = approved(admin, ann, client, **form).json()
    answer = admin.tenant.post(
        "oauth/token", grant_type="refresh_token", client_id=client,
        refresh_token=body["refresh_token"],
    )  # fmt: skip
    assert answer.status_code == 200
    keys = admin.tenant.http.get(admin.tenant.issuer + ".well-known/jwks.json").json()
    known = KeySet.import_key_set(keys)
    said = jwt.decode(answer.json()["id_token"], known).claims
    assert {"amr", "acr", "https://agentvault.dev/mfa_at"} & set(said) == set()


def test_a_client_grant_removed_after_approval_gives_no_token(
    admin: Admin, ann: NewUser
) -> None:
    """The client's access to the API is looked at once more when it fetches."""
    body = {
        "identifier": "https://granted-device.test/",
        "scopes": [{"value": "read:all"}],
        "subject_type_authorization": {"user": {"policy": "require_client_grant"}},
    }
    audience = admin.made("resource-servers", body)["identifier"]
    client_id = admin.made("clients", {"name": "granted", **NATIVE})["client_id"]
    grant = {"client_id": client_id, "audience": audience, "scope": ["read:all"]}
    key = admin.made("client-grants", {**grant, "subject_type": "user"})["id"]
    form = {"client_id": client_id, "audience": audience, "scope": "openid read:all"}
    admin.tenant.clock.advance(30)
    flow = admin.tenant.post("oauth/device/code", **form).json()
    admin.tenant.approve(flow, ann)
    assert admin.call("DELETE", f"client-grants/{key}").status_code == 204
    answer = admin.tenant.poll(flow, client_id=client_id)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


def test_a_code_that_is_spent_in_the_same_moment_gives_nothing(
    admin: Admin, ann: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two brokers that are polled at once one has the tokens (RFC 8628, 3.5)."""
    client_id = admin.made("clients", {"name": "twice", **NATIVE})["client_id"]
    monkeypatch.setattr(DeviceCodes, "spend", lambda *_: False)
    answer = approved(admin, ann, client_id)
    assert (answer.status_code, answer.json()["error"]) == (403, "invalid_grant")


def test_another_clients_device_code_is_unknown(admin: Admin, ann: NewUser) -> None:
    """A code is polled for by the client that asked, and by no other."""
    one, two = (admin.made("clients", {"name": n, **NATIVE})["client_id"] for n in "ab")
    flow = admin.tenant.post("oauth/device/code", client_id=one).json()
    foreign = admin.tenant.poll(flow, client_id=two)
    assert (foreign.status_code, foreign.json()["error"]) == (403, "invalid_grant")
    mine = admin.tenant.poll(flow, client_id=one)
    assert mine.json()["error"] == "authorization_pending"


@pytest.mark.parametrize("own", ["api/v2/", "me/"])
def test_the_console_client_gets_no_token_for_the_tenants_apis(
    admin: Admin, own: str
) -> None:
    """It says who a person is; with a token for these it could act for them."""
    answer = admin.tenant.post(
        "oauth/device/code",
        client_id=admin.tenant.client_id,
        audience=f"{admin.tenant.issuer}{own}",
        scope="openid",
    )
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


def test_only_the_broker_gives_a_step_up_its_approval_page(admin: Admin) -> None:
    """A client's id is public: it puts no words where people approve, voids no code."""
    tenant = admin.tenant
    page = {"id": "sup_0123456789abcdef", "digest": "sha256:" + "7" * 64}
    ours = tenant.flow({**DETAILS, "page": page})
    client = admin.made("clients", {"name": "y", **NATIVE})
    answer = tenant.post(
        "oauth/device/code",
        client_id=client["client_id"],
        authorization_details=json.dumps([{**DETAILS, "page": page}]),
    )
    assert answer.json()["error"] == "invalid_authorization_details"
    assert tenant.poll(ours).json()["error"] == "authorization_pending"


def test_only_the_broker_says_where_a_sign_in_comes_from(admin: Admin) -> None:
    """The page shows it before the sign-in, made visible; another client's is not."""
    tenant = admin.tenant
    origin = "192.0.2.7, key 7F3A\u202e<b>"
    stranger = admin.made("clients", {"name": "z", **NATIVE})["client_id"]
    for client_id, shown in (
        (tenant.client_id, "192.0.2.7, key 7F3A⟦U+202E⟧<b>"),
        (stranger, None),
    ):
        form = {"client_id": client_id, "origin": origin}
        flow = tenant.post("oauth/device/code", **form).json()
        with Activation() as page:
            details = page.open(tenant.issuer, flow["user_code"])
        assert (details.agent_id, details.requested_on) == (None, shown)
