"""Clients of the tenant: how they prove who they are, and what they then get."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.tenant_admin import Admin, maced, unsigned

from agentvault_tui.model import new_id

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048)


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


@pytest.fixture(scope="module")
def signer(admin: Admin, api: str, key: RSAKey) -> dict[str, Any]:
    pem = key.as_pem(private=False).decode()
    credential = {"credential_type": "public_key", "name": "k", "pem": pem}
    methods = {"private_key_jwt": {"credentials": [credential]}}
    return machine(admin, api, client_authentication_methods=methods)


def ask(admin: Admin, api: str, **form: Any) -> Any:
    body = {"grant_type": "client_credentials", "audience": api, **form}
    return admin.tenant.http.post(admin.tenant.issuer + "oauth/token", json=body)


def claims(admin: Admin, client_id: str, **changes: Any) -> dict[str, Any]:
    now = int(admin.tenant.clock.now().timestamp())
    base = {
        "iss": client_id,
        "sub": client_id,
        "aud": admin.tenant.issuer,
        "iat": now,
        "exp": now + 60,
        "jti": new_id("jti"),
    }
    return {name: v for name, v in {**base, **changes}.items() if v is not None}


def test_three_ways_to_show_a_secret(
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


def test_a_wrong_proof_and_an_unknown_client_look_the_same(
    admin: Admin, api: str, secretive: dict[str, Any], signer: dict[str, Any]
) -> None:
    """401 and one text for a wrong secret, no secret, nobody, and a key's owner."""
    wrong = [
        {"client_id": secretive["client_id"], "client_secret": "x"},
        {"client_id": secretive["client_id"]},
        {"client_id": "app_nobody", "client_secret": "x"},
        {"client_id": signer["client_id"], "client_secret": "x"},
        {"client_id": signer["client_id"]},
    ]
    answers = [ask(admin, api, **form) for form in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].json()["error"] == "invalid_client"


def test_two_methods_at_once_are_refused(
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


def test_an_assertion_counts_once(
    admin: Admin, api: str, signer: dict[str, Any], key: RSAKey
) -> None:
    """A client's key signs it in, and the same assertion a second time does not."""
    said = claims(admin, signer["client_id"])
    token = jwt.encode({"alg": "RS256"}, said, key, algorithms=["RS256"])
    form = {"client_assertion": token, "client_assertion_type": ASSERTION}
    assert "client_secret" not in signer
    assert ask(admin, api, **form).status_code == 200
    assert ask(admin, api, **form).json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "app_other"},
        {"sub": "app_other"},
        {"aud": "https://elsewhere.test/"},
        {"aud": None},
        {"exp": None},
        {"exp": 1},
        {"exp": "soon"},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 300},
    ],
    ids=str,
)
def test_assertions_that_prove_too_little(
    admin: Admin,
    api: str,
    signer: dict[str, Any],
    key: RSAKey,
    changes: dict[str, Any],
) -> None:
    """RFC 7523 section 3: issuer, subject, audience, end, and a name of its own."""
    said = claims(admin, signer["client_id"], **changes)
    token = jwt.encode({"alg": "RS256"}, said, key, algorithms=["RS256"])
    answer = ask(
        admin, api, client_id=signer["client_id"], client_assertion=token,
        client_assertion_type=ASSERTION,
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_assertions_that_live_too_long_or_are_signed_otherwise(
    admin: Admin, api: str, signer: dict[str, Any], key: RSAKey
) -> None:
    """An hour ahead, no signature, a MAC with the public key, a stranger's key."""
    said = claims(admin, signer["client_id"])
    now = int(admin.tenant.clock.now().timestamp())
    stranger = RSAKey.generate_key(2048)
    for token in (
        jwt.encode({"alg": "RS256"}, {**said, "exp": now + 3600}, key),
        unsigned(said),
        maced(said, key.as_pem(private=False)),
        jwt.encode({"alg": "RS256"}, said, stranger),
        jwt.encode({"alg": "PS256"}, said, key, algorithms=["PS256"]),
        "a.b.c",
        "",
    ):
        answer = ask(
            admin, api, client_id=signer["client_id"], client_assertion=token,
            client_assertion_type=ASSERTION,
        )  # fmt: skip
        assert answer.status_code == 401, token


def test_secrets_are_rotated_at_once_and_kept_nowhere(admin: Admin, api: str) -> None:
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


def test_a_client_that_got_a_key_has_its_secret_no_more(
    admin: Admin, api: str, key: RSAKey
) -> None:
    """One way to prove who it is: the old secret, which may lie about, is none."""
    client = machine(admin, api)
    form = {
        "grant_type": "client_credentials",
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
        "audience": api,
    }
    assert admin.tenant.post("oauth/token", **form).status_code == 200
    pem = key.as_pem(private=False).decode()
    keys = [{"credential_type": "public_key", "name": "k", "pem": pem}]
    methods = {"private_key_jwt": {"credentials": keys}}
    path = f"clients/{client['client_id']}"
    body = {"client_authentication_methods": methods}
    assert admin.call("PATCH", path, body).status_code == 200
    answer = admin.tenant.post("oauth/token", **form)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_keys_come_and_go(admin: Admin, api: str, key: RSAKey) -> None:
    """A key is added by PEM, named by its thumbprint, lapses, and is deleted."""
    client = machine(admin, api)
    path = f"clients/{client['client_id']}/credentials"
    pem = key.as_pem(private=False).decode()
    body = {"credential_type": "public_key", "name": "one", "pem": pem, "alg": "RS256"}
    made = admin.made(path, body)
    assert made["id"].startswith("cred_")
    assert made["kid"] == key.thumbprint()
    assert "pem" not in made
    assert admin.call("POST", path, body).status_code == 409
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1024)  # noqa: S505 - refused
    short = (
        weak.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    for pem in ("nonsense", key.as_pem(private=True).decode(), "x" * 9000, short):
        assert admin.call("POST", path, {**body, "pem": pem}).status_code == 400
    methods = {"private_key_jwt": {"credentials": [{"id": made["id"]}]}}
    changed = admin.call(
        "PATCH", f"clients/{client['client_id']}",
        {"client_authentication_methods": methods},
    )  # fmt: skip
    assert changed.status_code == 200, changed.text

    def sign_in() -> int:
        said = claims(admin, client["client_id"])
        token = jwt.encode({"alg": "RS256", "kid": made["kid"]}, said, key)
        form = {"client_assertion": token, "client_assertion_type": ASSERTION}
        status: int = ask(admin, api, **form).status_code
        return status

    assert sign_in() == 200
    past = {"expires_at": "2020-01-01T00:00:00Z"}
    assert admin.call("PATCH", f"{path}/{made['id']}", past).status_code == 200
    assert sign_in() == 401
    assert admin.call("GET", path).json()[0]["expires_at"] == past["expires_at"]
    assert admin.call("DELETE", f"{path}/{made['id']}").status_code == 204
    assert admin.call("DELETE", f"{path}/{made['id']}").status_code == 404
    refused = admin.call("POST", f"clients/{client['client_id']}/rotate-secret")
    assert refused.status_code == 400


def test_a_key_is_its_own_clients_alone(admin: Admin, key: RSAKey, api: str) -> None:
    """By another's path it is not seen, changed, deleted or taken over."""
    owner, other = machine(admin, api), machine(admin, api)
    pem = key.as_pem(private=False).decode()
    body = {"credential_type": "public_key", "name": "k", "pem": pem}
    made = admin.made(f"clients/{owner['client_id']}/credentials", body)
    path = f"clients/{other['client_id']}/credentials/{made['id']}"
    assert admin.call("GET", path).status_code == 404
    assert admin.call("DELETE", path).status_code == 404
    later = {"expires_at": "2030-01-01T00:00:00Z"}
    assert admin.call("PATCH", path, later).status_code == 404
    methods = {"private_key_jwt": {"credentials": [{"id": made["id"]}]}}
    taken = {"client_authentication_methods": methods}
    answer = admin.call("PATCH", f"clients/{other['client_id']}", taken)
    assert answer.status_code == 400
    assert len(admin.call("GET", path.replace(
        other["client_id"], owner["client_id"])).json()) > 0  # fmt: skip


def test_a_machine_without_a_grant_is_told_what_to_make(
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


def test_a_basic_header_is_read_as_the_rfc_encodes_it(
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
