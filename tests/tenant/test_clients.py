"""Clients of the tenant: how they prove who they are, and what they then get."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.tenant_admin import Admin


@pytest.fixture(scope="module")
def api(admin: Admin) -> str:
    admin.made(
        "resource-servers",
        {"identifier": "https://api.test/", "scopes": [{"value": "read:it"}]},
    )
    return "https://api.test/"


def machine(admin: Admin, api: str, **members: Any) -> dict[str, Any]:
    """Make a client that may ask for *api*."""
    made = admin.made(
        "clients",
        {"name": "m", "app_type": "non_interactive", "oidc_conformant": True,
         "grant_types": ["client_credentials"], **members},
    )  # fmt: skip
    grant = {"client_id": made["client_id"], "audience": api, "scope": ["read:it"]}
    admin.made("client-grants", grant)
    return made


@pytest.fixture(scope="module")
def secretive(admin: Admin, api: str) -> dict[str, Any]:
    return machine(admin, api)


def ask(admin: Admin, api: str, **form: Any) -> Any:
    body = {"grant_type": "client_credentials", "audience": api, **form}
    return admin.tenant.http.post(admin.tenant.issuer + "oauth/token", json=body)


def test_a_client_secret_is_taken_by_json_form_and_basic(
    admin: Admin, api: str, secretive: dict[str, Any]
) -> None:
    """In a JSON body with nulls, in a form, and in HTTP Basic: the same token."""
    client_id, secret = secretive["client_id"], secretive["client_secret"]
    form = {"client_id": client_id, "client_secret": secret}
    body = ask(admin, api, **form, organization=None, nested={"a": 1})
    posted = admin.tenant.post(
        "oauth/token", grant_type="client_credentials", audience=api, **form
    )
    basic = admin.tenant.http.post(
        admin.tenant.issuer + "oauth/token",
        data={"grant_type": "client_credentials", "audience": api},
        auth=(client_id, secret),
    )
    for answer in (body, posted, basic):
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["scope"], said["expires_in"]) == ("read:it", 86_400)
        assert set(said) == {"access_token", "scope", "expires_in", "token_type"}


def test_a_wrong_secret_and_an_unknown_client_look_the_same(
    admin: Admin, api: str, secretive: dict[str, Any]
) -> None:
    """401 and one text for a wrong secret, no secret, and nobody."""
    wrong = [
        {"client_id": secretive["client_id"], "client_secret": "x"},
        {"client_id": secretive["client_id"]},
        {"client_id": "app_nobody", "client_secret": "x"},
    ]
    answers = [ask(admin, api, **form) for form in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].json()["error"] == "invalid_client"


def test_two_methods_of_client_authentication_are_refused(
    admin: Admin, api: str, secretive: dict[str, Any]
) -> None:
    """RFC 6749 section 2.3: one method of client authentication a request."""
    answer = admin.tenant.http.post(
        admin.tenant.issuer + "oauth/token",
        data={"grant_type": "client_credentials", "client_secret": "x"},
        auth=(secretive["client_id"], secretive["client_secret"]),
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    broken = admin.tenant.http.post(
        admin.tenant.issuer + "oauth/token",
        data={"grant_type": "client_credentials"},
        headers={"authorization": "Basic !!!"},
    )
    assert (broken.status_code, broken.json()["error"]) == (401, "invalid_client")


def test_a_rotated_client_secret_ends_at_once_and_no_file_has_it(
    admin: Admin, api: str
) -> None:
    """The old secret ends with the answer that has the new one; no file has either."""
    client = machine(admin, api)
    form = {"client_id": client["client_id"]}
    answer = admin.call("POST", f"clients/{client['client_id']}/rotate-secret")
    assert answer.status_code == 200
    fresh = answer.json()["client_secret"]
    assert ask(
        admin, api, **form, client_secret=client["client_secret"]
    ).status_code == (401)
    assert ask(admin, api, **form, client_secret=fresh).status_code == 200
    shown = admin.call("GET", f"clients/{client['client_id']}").json()
    assert "client_secret" not in shown
    held = b"".join(file.read_bytes() for file in admin.tenant.home.tenant.iterdir())
    for secret in (
        fresh, client["client_secret"], admin.tenant.run.management_secret,
        admin.tenant.run.management_id, admin.tenant.run.client_id,
    ):  # fmt: skip
        assert secret.encode() not in held


def test_a_public_client_gets_no_token_of_its_own(admin: Admin, api: str) -> None:
    """RFC 6749 section 4.4: confidential clients alone, whatever grants it has."""
    public = machine(admin, api, token_endpoint_auth_method="none")
    answer = admin.tenant.post(
        "oauth/token",
        grant_type="client_credentials",
        client_id=public["client_id"],
        audience=api,
    )
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


def test_a_header_and_a_form_name_the_same_client(
    admin: Admin, secretive: dict[str, Any], api: str
) -> None:
    """Who proves to be one client acts for no other, which the form names."""
    proof = f"{secretive['client_id']}:{secretive['client_secret']}".encode()
    header = {"authorization": f"Basic {base64.b64encode(proof).decode()}"}
    form = {"grant_type": "client_credentials", "audience": api}
    for client_id, status in ((secretive["client_id"], 200), ("app_other", 401)):
        answer = admin.tenant.http.post(
            f"{admin.tenant.issuer}oauth/token",
            data={**form, "client_id": client_id},
            headers=header,
        )
        assert answer.status_code == status


def test_client_credentials_without_a_client_grant_are_refused(
    admin: Admin, api: str, secretive: dict[str, Any]
) -> None:
    """403 with Auth0's words; an unknown API, and My Account, the same status."""
    form = {
        "client_id": secretive["client_id"],
        "client_secret": secretive["client_secret"],
    }
    management = f"{admin.tenant.issuer}api/v2/"
    answer = ask(admin, management, **form)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert 'You need to create a "client-grant"' in answer.json()["error_description"]
    unknown = ask(admin, "https://nowhere.test/", **form)
    assert unknown.json() == {
        "error": "access_denied",
        "error_description": "Service not found: https://nowhere.test/",
    }
    # My Account is for people: no machine has it, whatever its grants.
    assert ask(admin, f"{admin.tenant.issuer}me/", **form).status_code == 403
    none = ask(admin, None, **form)
    assert "No audience parameter" in none.json()["error_description"]


def test_http_basic_is_form_encoded_before_base64(
    admin: Admin, api: str, secretive: dict[str, Any]
) -> None:
    """RFC 6749 section 2.3.1: both halves are form-encoded before base64."""
    pair = f"{secretive['client_id']}:{secretive['client_secret']}".replace("_", "%5F")
    encoded = base64.b64encode(pair.encode()).decode()
    answer = admin.tenant.http.post(
        admin.tenant.issuer + "oauth/token",
        data={"grant_type": "client_credentials", "audience": api},
        headers={"authorization": f"Basic {encoded}"},
    )
    assert answer.status_code == 200
