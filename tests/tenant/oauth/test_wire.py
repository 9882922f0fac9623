"""The OAuth endpoints: Auth0's statuses and texts, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from auth0_double.running import DETAILS, GRANT, TenantThread

from agentvault_tui.tenant.users import NewUser


def test_a_device_answer_has_all_members_of_rfc_8628(tenant: TenantThread) -> None:
    """All members of RFC 8628 section 3.2, with a code of the 20 letters."""
    answer = tenant.ask()
    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    letters = body["user_code"].replace("-", "")
    assert len(letters) == 8
    assert set(letters) <= set("BCDFGHJKLMNPQRSTVWXZ")
    assert body["verification_uri"] == f"{tenant.issuer}activate"
    assert body["verification_uri_complete"].endswith(f"?user_code={body['user_code']}")
    assert (body["expires_in"], body["interval"]) == (120, 1)


def test_device_and_user_codes_are_stored_as_hashes(tenant: TenantThread) -> None:
    """Neither code of a flow stands in the store's files."""
    flow = tenant.flow()
    held = b"".join(file.read_bytes() for file in tenant.home.tenant.iterdir())
    for secret in (flow["device_code"], flow["user_code"]):
        assert secret.encode() not in held


def test_a_fast_poller_gets_slow_down(tenant: TenantThread) -> None:
    """A fast poller is told slow_down and owes five seconds more each time."""
    flow = tenant.flow()
    answer = tenant.poll(flow)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "authorization_pending",
        "error_description": "User has yet to authorize device code.",
    }
    tenant.clock.advance(0.5)
    answer = tenant.poll(flow)
    assert answer.status_code == 429
    assert answer.json() == {
        "error": "slow_down",
        "error_description": (
            "You are polling faster than the specified interval of 1 second."
        ),
    }
    tenant.clock.advance(5)
    answer = tenant.poll(flow)
    assert answer.json()["error"] == "slow_down"
    assert "of 6 seconds" in answer.json()["error_description"]
    tenant.clock.advance(11)
    assert tenant.poll(flow).json()["error"] == "authorization_pending"


def test_polling_at_the_interval_stays_pending(tenant: TenantThread) -> None:
    """Polling at the stated interval stays pending."""
    flow = tenant.flow()
    for _ in range(5):
        assert tenant.poll(flow).json()["error"] == "authorization_pending"
        tenant.clock.advance(1)


def test_expired_token_is_answered_once(tenant: TenantThread) -> None:
    """After its 120 s a code says expired_token, then nothing more."""
    flow = tenant.flow()
    tenant.clock.advance(120)
    answers = [tenant.poll(flow) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403] * 3
    assert [answer.json()["error"] for answer in answers] == [
        "expired_token", "invalid_grant", "invalid_grant"
    ]  # fmt: skip


def test_setting_the_clock_back_revives_no_device_code(tenant: TenantThread) -> None:
    """The boot clock ends a code even when the wall clock says otherwise."""
    flow = tenant.flow()
    tenant.clock.advance(121)
    tenant.clock.jump_wall(-3600)
    assert tenant.poll(flow).json()["error"] == "expired_token"


def test_an_approved_device_code_expires(tenant: TenantThread, alice: NewUser) -> None:
    """Tokens wait no longer than their code lives."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    tenant.clock.advance(120)
    assert tenant.poll(flow).json()["error"] == "expired_token"


def test_unknown_and_foreign_device_codes_look_the_same(
    tenant: TenantThread, alice: NewUser
) -> None:
    """A code of the client of an earlier run is as unknown as an invented one."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    mine, tenant.client_id = tenant.client_id, "app_other"
    tenant.restart()
    foreign = tenant.poll(flow)
    unknown = tenant.poll(flow, device_code="av_d_invented")
    assert foreign.status_code == unknown.status_code == 403
    assert foreign.json() == unknown.json()
    assert foreign.json()["error"] == "invalid_grant"
    tenant.client_id = mine
    tenant.restart()
    assert tenant.poll(flow).status_code == 200


@pytest.mark.slow
def test_an_unknown_client_starts_no_device_flow(tenant: TenantThread) -> None:
    """Who does not know this run's client id starts nothing, and finds it nowhere."""
    for _ in range(300):
        answer = tenant.ask(client_id="app_0000000000000000")
        assert answer.json()["error"] == "invalid_client"
    tenant.flow()
    for path in tenant.home.data.rglob("*"):
        assert path.is_dir() or tenant.client_id.encode() not in path.read_bytes()


@pytest.mark.slow
def test_sign_ins_leave_room_for_approvals(tenant: TenantThread) -> None:
    """However many sign-ins wait, an approval still gets its code; and again later."""
    while (answer := tenant.ask()).status_code == 200:
        pass
    assert answer.status_code == 429
    assert answer.json()["error"] == "too_many_requests"
    assert answer.json()["cap"] == 64
    for _ in range(16):
        tenant.flow()
    details = json.dumps([DETAILS])
    assert tenant.ask(authorization_details=details).json()["cap"] == 16
    tenant.flow({**DETAILS, "agent_id": "agt_another"})
    tenant.clock.advance(120)
    tenant.flow(None)
    tenant.flow()


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_id": "app_nobody"}, 401, "invalid_client"),
        ({"client_id": ""}, 400, "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 403, "unauthorized_client"),
        ({"grant_type": "client_credentials"}, 403, "unauthorized_client"),
        ({"grant_type": "\x1b[31mred"}, 400, "unsupported_grant_type"),
        ({"device_code": ""}, 400, "invalid_request"),
    ],
)
def test_bad_token_requests_have_their_codes(
    tenant: TenantThread, form: dict[str, str], status: int, error: str
) -> None:
    """Each mistake at the token endpoint has its own code, and echoes no controls."""
    answer = tenant.poll(tenant.flow(), **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "\x1b" not in answer.json()["error_description"]


def test_the_token_endpoint_takes_json(tenant: TenantThread) -> None:
    """As Auth0's does, since SDKs send it."""
    body = {
        "grant_type": GRANT,
        "client_id": tenant.client_id,
        "device_code": tenant.flow()["device_code"],
    }
    answer = tenant.http.post(tenant.issuer + "oauth/token", json=body)
    assert answer.json()["error"] == "authorization_pending"


def test_malformed_token_requests_are_refused(tenant: TenantThread) -> None:
    """Duplicates, other content types, bad encodings and too much are refused."""
    for path, too_much in (("oauth/token", 70_000), ("oauth/device/code", 600_000)):
        url = tenant.issuer + path
        form = "application/x-www-form-urlencoded"
        twice = f"client_id={tenant.client_id}&client_id=x"
        for body, kind, status in (
            (twice, form, 400),
            ("client_id=%ff%fe", form, 400),
            (twice, "text/plain", 415),
            ("", form, 400),
            ("a=" + "x" * too_much, form, 413),
        ):
            answer = tenant.http.post(url, content=body, headers={"content-type": kind})
            assert answer.status_code == status, (path, body[:40])
            assert "error" in answer.json()
        assert tenant.http.get(url).status_code == 405


def test_the_console_client_gets_no_refresh_token_and_no_api(
    tenant: TenantThread, alice: NewUser
) -> None:
    """offline_access is dropped, and an API audience is refused: T-08."""
    flow = tenant.ask(scope="openid offline_access read:everything").json()
    tenant.approve(flow, alice)
    body = tenant.poll(flow).json()
    assert body["scope"] == "openid"
    assert "refresh_token" not in body
    answer = tenant.ask(audience="https://broker.test/")
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


def test_without_openid_there_is_no_id_token(
    tenant: TenantThread, alice: NewUser
) -> None:
    """An ID token is for who asked for one."""
    flow = tenant.ask(scope="profile").json()
    tenant.approve(flow, alice)
    assert "id_token" not in tenant.poll(flow).json()


def test_userinfo_ends_with_a_revoked_access_token(
    tenant: TenantThread, alice: NewUser
) -> None:
    """The access token opens userinfo until it is revoked or old; revoking says 200."""
    flow = tenant.flow()
    tenant.approve(flow, alice)
    token = tenant.poll(flow).json()["access_token"]
    url = tenant.issuer + "userinfo"
    bearer = {"authorization": f"Bearer {token}"}
    assert tenant.http.get(url, headers=bearer).json() == {
        "sub": alice.user.sub,
        "name": "alice@acme.test",
        "nickname": "alice",
        "email": "alice@acme.test",
        "email_verified": True,
    }
    foreign = tenant.post("oauth/revoke", token=token, client_id="app_other")
    assert (foreign.status_code, foreign.json()["error"]) == (401, "invalid_client")
    assert tenant.http.get(url, headers=bearer).status_code == 200
    for _ in range(2):
        gone = tenant.post("oauth/revoke", token=token, client_id=tenant.client_id)
        assert (gone.status_code, gone.content) == (200, b"")
    refused = tenant.http.get(url, headers=bearer)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert tenant.http.get(url).status_code == 401


def test_discovery_names_the_endpoints_that_are_served(tenant: TenantThread) -> None:
    """RFC 8414 section 2: each is under the issuer and answers; it has two keys."""
    found = tenant.http.get(tenant.issuer + ".well-known/openid-configuration").json()
    alias = tenant.http.get(tenant.issuer + ".well-known/oauth-authorization-server")
    assert alias.json() == found
    assert found["issuer"] == tenant.issuer
    assert found["issuer"].endswith("/")
    named = {name for name in found if name.endswith("_endpoint")}
    assert named == {
        "authorization_endpoint", "token_endpoint", "device_authorization_endpoint",
        "userinfo_endpoint", "revocation_endpoint",
    }  # fmt: skip
    for name in named - {"authorization_endpoint"}:
        assert found[name].startswith(tenant.issuer)
        assert tenant.http.post(found[name]).status_code != 404
    assert tenant.http.get(found["authorization_endpoint"]).status_code == 400
    keys = tenant.http.get(found["jwks_uri"]).json()["keys"]
    assert len({key["kid"] for key in keys}) == 2
    assert all(key["alg"] == "RS256" and len(key["n"]) >= 342 for key in keys)


def test_extension_metadata_is_apart_from_the_standard_document(
    tenant: TenantThread,
) -> None:
    """It names the type of details the device flow shows; no introspection is there."""
    extensions = tenant.http.get(tenant.issuer + "agentvault/metadata").json()
    assert extensions["kind"] == "embedded"
    assert extensions["authorization_details_types_supported"] == [DETAILS["type"]]
    for path in ("oauth/introspect", "introspect"):
        assert tenant.post(path).status_code == 404


def _with(**changes: Any) -> str:
    return json.dumps([{**DETAILS, **changes}])


_DEEP: Any = 1
for _ in range(7):
    _DEEP = [_DEEP]


BAD_DETAILS = (
    "not json",
    "{}",
    "[]",
    "[1]",
    json.dumps([DETAILS, DETAILS]),
    _with(type="payment"),
    _with(agent_id=""),
    _with(agent_name=7),
    _with(why=None),
    _with(action="x" * 4001),
    _with(risk="enormous"),
    _with(fingerprint="7f3a"),
    _with(fingerprint="<b>1"),
    _with(requested_at="yesterday"),
    _with(recipient="mallory@evil.test"),
    _with(parameters=[1]),
    _with(parameters={"a": _DEEP}),
    _with(parameters={str(n): n for n in range(65)}),
    _with(parameters={"a": "x" * 4001}),
    _with(parameters={"x" * 4001: 1}),
    _with(parameters=float("nan")),
    json.dumps([DETAILS])[:-2] + ', "why": "another"}]',
    _with(parameters={"a": 1}).replace('"a": 1', '"a": 1e999'),
    "[" * 20_000,
)


def test_authorization_details_of_a_device_flow_are_validated(
    tenant: TenantThread,
) -> None:
    """What a person could be misled by is refused when the flow starts (RFC 9396)."""
    for details in BAD_DETAILS:
        answer = tenant.ask(authorization_details=details)
        assert answer.status_code == 400, details[:200]
        assert answer.json()["error"] == "invalid_authorization_details"


def test_waiting_device_codes_are_limited(tenant: TenantThread) -> None:
    """Device codes nobody uses cannot pile up; when they expire, there is room."""
    while (answer := tenant.ask()).status_code == 200:
        pass
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_requests")
    tenant.clock.advance(121)
    assert tenant.ask().status_code == 200
