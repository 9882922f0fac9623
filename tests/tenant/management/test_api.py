"""The Management API's face: tokens, scopes, envelopes, paging, rates, rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth0_double.faults import Faults
from auth0_double.running import CHEAP, START
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.manual_clock import ManualClock
from support.tenant_admin import Admin, maced, unsigned
from support.tenant_store import open_store, seal_of

from agentvault_tui.home import Home
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.apis import (
    MANAGEMENT_SCOPES,
    Apis,
    ResourceServer,
    SubjectType,
    grant_name,
)
from agentvault_tui.tenant.app import Surface
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.management.calls import CALLS
from agentvault_tui.tenant.management.wire import ApiError, read_json
from agentvault_tui.tenant.parts import Parts, Run

RATE = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture
def two_a_second(admin: Admin) -> Iterator[None]:
    admin.tenant.faults.set(Faults(rate=2))
    admin.tenant.clock.advance(1)
    yield
    admin.tenant.faults.set(Faults())


def bearer(admin: Admin, token: str | None, path: str = "clients") -> Any:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return admin.tenant.http.get(f"{admin.tenant.issuer}api/v2/{path}", headers=headers)


def test_a_management_token_has_the_scopes_of_its_grant(admin: Admin) -> None:
    """As recorded: 24 hours, Bearer, the scopes of the grant, and a JWT for the API."""
    answer = admin.machine_token()
    assert answer.status_code == 200
    assert (answer.json()["expires_in"], answer.json()["token_type"]) == (
        86_400, "Bearer"
    )  # fmt: skip
    keys = admin.tenant.http.get(admin.tenant.issuer + ".well-known/jwks.json").json()
    found = jwt.decode(
        answer.json()["access_token"], RSAKey.import_key(keys["keys"][0])
    )
    now = int(admin.tenant.clock.now().timestamp())
    client_id = admin.tenant.run.management_id
    assert found.header["typ"] == "JWT"
    assert found.claims == {
        "iss": admin.tenant.issuer,
        "sub": f"{client_id}@clients",
        "aud": f"{admin.tenant.issuer}api/v2/",
        "iat": now,
        "exp": now + 86_400,
        "scope": answer.json()["scope"],
        "azp": client_id,
        "gty": "client-credentials",
    }
    less = admin.machine_token(scope="read:users read:users delete:everything")
    assert less.json()["scope"] == "read:users"


def test_a_missing_or_bad_management_token_gets_401(admin: Admin) -> None:
    """Missing, forged, unsigned, MACed, another audience's, another key's, and old."""
    assert bearer(admin, None).json() == {
        "statusCode": 401,
        "error": "Unauthorized",
        "message": "Missing authentication",
    }
    now = int(admin.tenant.clock.now().timestamp())
    good = {
        "iss": admin.tenant.issuer,
        "sub": f"{admin.tenant.run.management_id}@clients",
        "aud": f"{admin.tenant.issuer}api/v2/",
        "iat": now,
        "exp": now + 60,
        "scope": "read:clients",
        "azp": admin.tenant.run.management_id,
    }
    stranger = RSAKey.generate_key(2048)
    keys = admin.tenant.http.get(admin.tenant.issuer + ".well-known/jwks.json").json()
    kid = keys["keys"][0]["kid"]
    for token in (
        "nonsense",
        "a.b.c",
        unsigned(good, typ="JWT"),
        unsigned(good, typ="JWT", kid=kid),
        maced(good, json.dumps(keys["keys"][0]).encode(), typ="JWT", kid=kid),
        jwt.encode({"alg": "RS256", "typ": "JWT", "kid": kid}, good, stranger),
    ):
        answer = bearer(admin, token)
        assert answer.status_code == 401, token
        assert answer.json()["message"] == "Invalid token"
        assert answer.json()["errorCode"] == "invalid_token"
        assert all(name in answer.headers for name in RATE)
    client = admin.made("clients", {"name": "x", "grant_types": ["client_credentials"]})
    other = admin.made(
        "resource-servers",
        {"identifier": "https://other.test/", "scopes": [{"value": "read:clients"}]},
    )
    grant = {
        "client_id": client["client_id"],
        "audience": other["identifier"],
        "scope": ["read:clients"],
    }
    admin.made("client-grants", grant)
    foreign = admin.tenant.post(
        "oauth/token", grant_type="client_credentials", audience="https://other.test/",
        client_id=client["client_id"], client_secret=client["client_secret"],
    ).json()["access_token"]  # fmt: skip
    assert bearer(admin, foreign).status_code == 401


def test_a_missing_scope_gets_403_with_its_name(admin: Admin) -> None:
    """403 with the recorded envelope, naming any scope that would have been enough."""
    token = admin.machine_token(scope="read:users").json()["access_token"]
    assert bearer(admin, token, "users").status_code == 200
    assert bearer(admin, token, "clients").json() == {
        "statusCode": 403,
        "error": "Forbidden",
        "message": "Insufficient scope, expected any of: read:clients,read:client_keys",
        "errorCode": "insufficient_scope",
    }


def test_a_deleted_clients_management_token_gets_401(admin: Admin) -> None:
    """It still verifies by itself; this API looks whether its client is there."""
    client = admin.made("clients", {"name": "x", "grant_types": ["client_credentials"]})
    audience = f"{admin.tenant.issuer}api/v2/"
    grant = {
        "client_id": client["client_id"],
        "audience": audience,
        "scope": ["read:users"],
    }
    admin.made("client-grants", grant)
    token = admin.machine_token(
        client_id=client["client_id"], client_secret=client["client_secret"]
    ).json()["access_token"]
    assert bearer(admin, token, "users").status_code == 200
    assert admin.call("DELETE", f"clients/{client['client_id']}").status_code == 204
    assert bearer(admin, token, "users").status_code == 401


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("clients/app_none", 404, "inexistent_client"),
        ("users/auth0%7Cnobody", 404, "inexistent_user"),
        ("refresh-tokens/rt_none", 404, "inexistent_refresh_token"),
        ("connections/con_none", 404, "inexistent_connection"),
        (
            "resource-servers/https%3A%2F%2Fno.test%2F",
            404,
            "inexistent_resource_server",
        ),
        ("client-grants/cgr_none", 404, "inexistent_client_grant"),
        ("actions/actions/act_none", 404, None),
        ("logs/900", 404, "inexistent_log"),
        ("nothing/here", 404, None),
        ("clients?per_page=101", 400, "invalid_query_string"),
        ("clients?page=x", 400, "invalid_query_string"),
        ("clients?page=10&per_page=100", 400, "invalid_paging"),
        ("refresh-tokens", 400, "invalid_query_string"),
        ("logs?q=type:seta%20OR%20x", 400, "invalid_query_string"),
        ("logs?q=details:x", 400, "invalid_query_string"),
        ("device-credentials?type=nonsense", 400, "invalid_query_string"),
    ],
)
def test_management_errors_have_auth0s_envelope(
    admin: Admin, path: str, status: int, code: str | None
) -> None:
    """Unknown ids and bad queries: statusCode, error, message, errorCode."""
    said = admin.call("GET", path).json()
    assert said["statusCode"] == status
    assert said.get("errorCode") == code
    assert set(said) - {"errorCode"} == {"statusCode", "error", "message"}


def test_lists_page_by_offset_and_by_checkpoint(admin: Admin) -> None:
    """Offset with and without totals; checkpoint until there is no next."""
    names = {f"api-{n}" for n in range(5)}
    for name in names:
        admin.made("resource-servers", {"identifier": f"https://{name}.test/"})
    bare = admin.call("GET", "resource-servers", per_page=2).json()
    assert [type(item) for item in bare] == [dict, dict]
    whole = admin.call(
        "GET", "resource-servers", per_page=2, page=1, include_totals="true"
    ).json()
    assert (whole["start"], whole["limit"], len(whole["resource_servers"])) == (2, 2, 2)
    seen: list[str] = []
    query: dict[str, Any] = {"take": 2}
    while True:
        page = admin.call("GET", "resource-servers", **query).json()
        seen += [item["identifier"] for item in page["resource_servers"]]
        if "next" not in page:
            break
        query["from"] = page["next"]
    assert len(seen) == len(set(seen)) == whole["total"]


def test_clients_are_listed_by_type_and_party(admin: Admin) -> None:
    """Both filters of Auth0's list; a switch that is neither on nor off is a 400."""
    made = admin.made("clients", {"name": "third", "is_first_party": False})
    native = admin.call("GET", "clients", app_type="native,spa").json()
    assert {client["app_type"] for client in native} == {"native"}
    third = admin.call("GET", "clients", is_first_party="false").json()
    assert [client["client_id"] for client in third] == [made["client_id"]]
    both = admin.call("GET", "clients", is_first_party="true", app_type="spa").json()
    assert both == []
    assert admin.call("GET", "clients", is_first_party="maybe").status_code == 400


def test_a_third_request_in_a_second_gets_429(admin: Admin, two_a_second: None) -> None:
    """The third gets 429 with the reset in epoch seconds; a second later it is well."""
    first, second, third = (admin.call("GET", "clients") for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert first.headers["x-ratelimit-limit"] == "2"
    assert first.headers["x-ratelimit-remaining"] == "1"
    now = int(admin.tenant.clock.now().timestamp())
    assert int(third.headers["x-ratelimit-reset"]) == now + 1
    assert third.headers["retry-after"] == "1"
    assert third.json() == {
        "statusCode": 429,
        "error": "Too Many Requests",
        "message": "Global limit has been reached",
        "errorCode": "too_many_requests",
    }
    admin.tenant.clock.advance(1)
    assert admin.call("GET", "clients").headers["x-ratelimit-remaining"] == "1"


def test_a_management_write_is_logged_without_secrets(admin: Admin) -> None:
    """A sapi row says who, what and with which answer; a password is not in it."""
    user = admin.user("logged")
    row = admin.rows("sapi")[0]
    assert row["description"] == "Create a User"
    assert row["client_name"] == "AgentVault broker (built in)"
    request = row["details"]["request"]
    assert (request["method"], request["path"]) == ("post", "/api/v2/users")
    assert request["body"]["password"] == "*****"
    assert request["auth"]["credentials"]["scopes"] == ["create:users"]
    assert row["details"]["response"]["statusCode"] == 201
    admin.call("PATCH", f"users/{user['user_id']}", {"blocked": "perhaps"})
    assert admin.rows("fapi")[0]["details"]["response"]["statusCode"] == 400


def test_management_bodies_are_read_strictly(admin: Admin) -> None:
    """No form, no duplicate, no NaN, no megabyte; unknown members are passed over."""
    url = f"{admin.tenant.issuer}api/v2/clients"
    headers = {"authorization": f"Bearer {admin.token}"}
    for body, kind, status in (
        ("name=x", "application/x-www-form-urlencoded", 415),
        ('{"name":"a","name":"b"}', "application/json", 400),
        ('{"name":NaN}', "application/json", 400),
        ('{"name":"\\ud800"}', "application/json", 400),
        ("[1]", "application/json", 400),
        ('{"name":7}', "application/json", 400),
        ('{"name":""}', "application/json", 400),
        ("{}", "application/json", 400),
        ("[" * 50_000, "application/json", 400),
        ('{"name":"' + "x" * 300_000 + '"}', "application/json", 413),
    ):
        answer = admin.tenant.http.post(
            url, content=body, headers={**headers, "content-type": kind}
        )
        assert answer.status_code == status, body[:40]
    extra = {"whatever": {"a": 1}, "callbacks": None}
    made = admin.made("clients", {"name": "x", **extra})
    assert "whatever" not in made
    assert made["callbacks"] == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_body_is_json_or_a_refusal(raw: bytes) -> None:
    """Whatever comes as a body, it is what json reads, or an envelope: no crash."""
    found, status = None, 200
    try:
        found = read_json("application/json", raw)
    except ApiError as error:
        status = error.status
    assert status in {200, 400}
    if status == 200:
        assert found == (json.loads(raw) if raw else {})


def test_cross_site_requests_to_the_management_api_are_refused(admin: Admin) -> None:
    """T-22: a foreign Host is 421, a foreign Origin or a cross-site fetch 403."""
    url = f"{admin.tenant.issuer}api/v2/clients"
    bearer = {"authorization": f"Bearer {admin.token}"}
    for headers, status in (
        ({"host": "evil.test"}, 421),
        ({"origin": "https://evil.test"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ):
        answer = admin.tenant.http.get(url, headers={**bearer, **headers})
        assert answer.status_code == status


@pytest.mark.parametrize("policy", ["deny_all", "a_new_one"])
def test_an_unknown_api_policy_grants_nothing(home: Home, policy: str) -> None:
    """Neither to machines nor to people, whatever client grants there are."""
    store = open_store(home)
    apis = Apis(store, "http://127.0.0.1:1/")

    def granted(policy: str, subject: SubjectType) -> frozenset[str] | None:
        policies = {subject: policy}
        api = ResourceServer("https://api.test/", "it", ("read:it",), policies)
        return apis.granted(Client("app_1", {"name": "m"}), api, subject)

    subjects: tuple[SubjectType, ...] = ("user", "client")
    for subject in subjects:
        grant = {"id": subject, "scope": ["read:it"]}
        name = grant_name("app_1", "https://api.test/", subject)
        apis.grants.add(subject, name, grant)
        assert granted("require_client_grant", subject) == {"read:it"}
        assert granted(policy, subject) is None
    store.close()


def test_each_management_scope_is_needed_by_a_call() -> None:
    """What the API offers as scopes is what its calls ask for, no more and no less."""
    asked = {scope for call in CALLS for scope in call.scopes}
    assert asked == set(MANAGEMENT_SCOPES)
    assert len(MANAGEMENT_SCOPES) == len(set(MANAGEMENT_SCOPES))


async def test_the_embedded_tenant_serves_the_brokers_calls_alone(home: Home) -> None:
    """Calls that only Auth0's administrators make are not there: 404, whoever asks."""
    store = open_store(home)
    parts = Parts(store, seal_of(home), 1, ManualClock(START), run=Run(), hasher=CHEAP)
    app = Surface.of(parts, StepUpSettings()).app()
    token = parts.tokens.for_machine(
        parts.clients.all()[1], " ".join(MANAGEMENT_SCOPES), parts.apis.all()[0]
    ).answer["access_token"]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url=parts.issuer,
        headers={"authorization": f"Bearer {token}"},
    ) as http:
        assert (await http.get("api/v2/clients")).status_code == 200
        for path in ("users", "actions/actions", "roles", "tenants/settings", "grants",
                     "guardian/factors", "prompts", "refresh-tokens"):  # fmt: skip
            assert (await http.get(f"api/v2/{path}")).status_code == 404
        assert (await http.post("api/v2/users", json={})).status_code == 404
        assert (await http.post("bc-authorize")).status_code == 404
    store.close()
