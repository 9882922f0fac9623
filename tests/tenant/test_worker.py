"""Privileged workers: a client signs for a user who is not there, within its pins."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.tenant_admin import VAULT, Admin, Agent, maced, unsigned

from agentvault_tui.model import new_id

KEY = RSAKey.generate_key(2048)
PEM = KEY.as_pem(private=False).decode()
WORKER: dict[str, Any] = {
    "credentials": [{"credential_type": "public_key", "name": "w", "pem": PEM}],
    "ip_allowlist": ["127.0.0.0/8"],
    "grants": [{"connection": "workspace", "scopes": ["calendar.read"]}],
}
TO_VAULT = "http://auth0.com/oauth/token-type/token-vault-access-token"


class Worker:
    """A client with the pins, and the agent whose user it works for."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self.agent = Agent(admin, "worked-for")
        self.agent.connect(self.agent.me_token(self.agent.tokens()["refresh_token"]))
        self.client = self.made(WORKER)

    def made(self, access: dict[str, Any]) -> dict[str, Any]:
        client = self.admin.client(
            name="Worker", grant_types=[VAULT], token_vault_privileged_access=access
        )
        self.admin.enable(client)
        return client

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.admin.tenant.clock.now().timestamp())
        base = {
            "iss": self.client["client_id"],
            "sub": self.agent.user["user_id"],
            "aud": self.admin.tenant.issuer,
            "iat": now,
            "jti": new_id("jti"),
            "audit_context": "Nightly summary",
            **changes,
        }
        return {name: value for name, value in base.items() if value is not None}

    def sign(self, claims: dict[str, Any], typ: str = "token-vault-req+jwt") -> str:
        return jwt.encode({"alg": "RS256", "typ": typ}, claims, KEY)

    def exchange(
        self, token: str, client: dict[str, Any] | None = None, **form: Any
    ) -> Any:
        held = client or self.client
        return self.agent.exchange(
            token,
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",
            requested_token_type=TO_VAULT,
            client_id=held["client_id"],
            client_secret=held["client_secret"],
            **form,
        )


@pytest.fixture(scope="module")
def worker(admin: Admin) -> Worker:
    return Worker(admin)


def test_a_pinned_token_and_its_reason(worker: Worker) -> None:
    """The provider's token has the pinned scope alone; the log tells why it was."""
    answer = worker.exchange(worker.sign(worker.claims()))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["scope"] == "calendar.read"
    assert body["issued_token_type"] == TO_VAULT
    info = worker.admin.tenant.http.get(
        worker.admin.tenant.issuer + "agentvault/workspace/tokeninfo",
        headers={"authorization": f"Bearer {body['access_token']}"},
    )
    assert info.json()["scope"] == "calendar.read"
    details = worker.admin.rows("seta")[0]["details"]
    assert details["is_privileged_worker"] is True
    assert details["audit_context"] == "Nightly summary"
    # The user's own token is still the whole one.
    full = worker.agent.exchange(worker.agent.tokens()["refresh_token"]).json()
    assert full["scope"] == "calendar.read calendar.write"


def test_the_object_is_as_recorded(worker: Worker) -> None:
    """The client shows its pins, its keys by their ids and nothing of the PEM."""
    client_id = worker.client["client_id"]
    shown = worker.admin.call("GET", f"clients/{client_id}").json()
    access = shown["token_vault_privileged_access"]
    assert access["grants"] == WORKER["grants"]
    assert access["ip_allowlist"] == WORKER["ip_allowlist"]
    assert [set(item) for item in access["credentials"]] == [{"id"}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "app_other"}, "bad_issuer_or_audience"),
        ({"aud": "https://elsewhere.test/"}, "bad_issuer_or_audience"),
        ({"iat": None}, "too_old"),
        ({"iat": 0}, "too_old"),
        ({"iat": 2**52}, "too_old"),
        ({"iat": True}, "too_old"),
        ({"exp": 1}, "expired"),
        ({"exp": "never"}, "expired"),
        ({"audit_context": None}, "no_audit_context"),
        ({"audit_context": ""}, "no_audit_context"),
        ({"audit_context": "x" * 257}, "no_audit_context"),
        ({"audit_context": 7}, "no_audit_context"),
        ({"jti": None}, "bad_claims"),
        ({"jti": ""}, "replayed"),
        ({"sub": 7}, "bad_claims"),
        ({"sub": "auth0|nobody"}, "user_is_gone"),
    ],
    ids=str,
)
def test_what_a_request_must_say(
    worker: Worker, changes: dict[str, Any], reason: str
) -> None:
    """Each missing or wrong claim is 401, and the log has its name."""
    answer = worker.exchange(worker.sign(worker.claims(**changes)))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert worker.admin.rows("feta")[0]["details"]["failure_reason"] == reason


def test_a_minute_and_once(worker: Worker) -> None:
    """Sixty seconds old it counts, sixty-one not; and never a second time."""
    old = worker.sign(worker.claims(exp=2**33))
    worker.admin.tenant.clock.advance(60)
    assert worker.exchange(old).status_code == 200
    assert worker.exchange(old).status_code == 401
    older = worker.sign(worker.claims(exp=2**33))
    worker.admin.tenant.clock.advance(61)
    assert worker.exchange(older).status_code == 401


def test_signatures_that_are_none(worker: Worker) -> None:
    """Another type, no signature, a MAC with the public key, a stranger's key."""
    said = worker.claims()
    typ = "token-vault-req+jwt"
    for token in (
        worker.sign(said, typ="JWT"),
        unsigned(said, typ=typ),
        maced(said, PEM.encode(), typ=typ),
        jwt.encode({"alg": "RS256", "typ": typ}, said, RSAKey.generate_key(2048)),
        "x",
    ):
        answer = worker.exchange(token)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_beyond_the_pins(worker: Worker) -> None:
    """Another connection, a wider scope, a scope the user never gave: 403."""
    for form in (
        {"connection": "google-oauth2"},
        {"scope": "calendar.read calendar.write"},
        {"scope": "mail.send"},
    ):
        answer = worker.exchange(worker.sign(worker.claims()), **form)
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    pins = [{"connection": "workspace", "scopes": ["calendar.read", "mail.send"]}]
    wide = worker.made({**WORKER, "grants": pins})
    said = worker.claims(iss=wide["client_id"])
    answer = worker.exchange(worker.sign(said), wide)
    assert answer.status_code == 403
    reason = worker.admin.rows("feta")[0]["details"]["failure_reason"]
    assert reason == "scope_not_granted"
    fits = worker.exchange(
        worker.sign(worker.claims(iss=wide["client_id"])), wide, scope="calendar.read"
    )
    assert fits.json()["scope"] == "calendar.read"


@pytest.mark.parametrize(
    ("access", "reason"),
    [
        ({"ip_allowlist": []}, "privileged_access_not_configured"),
        ({"grants": []}, "privileged_access_not_configured"),
        ({"ip_allowlist": ["203.0.113.0/24"]}, "ip_not_allowed"),
    ],
    ids=str,
)
def test_both_lists_must_be_there(
    worker: Worker, access: dict[str, Any], reason: str
) -> None:
    """Without addresses or pins, or from elsewhere, every call is refused."""
    client = worker.made({**WORKER, **access})
    said = worker.claims(iss=client["client_id"])
    answer = worker.exchange(worker.sign(said), client)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert worker.admin.rows("feta")[0]["details"]["failure_reason"] == reason


@pytest.mark.parametrize(
    "access",
    [
        {"ip_allowlist": ["nowhere"]},
        {"ip_allowlist": [f"10.0.0.{n}" for n in range(11)]},
        {"grants": [{"connection": f"c{n}", "scopes": ["a"]} for n in range(6)]},
        {"grants": [{"connection": "c", "scopes": [str(n) for n in range(21)]}]},
        {
            "grants": [
                {"connection": c, "scopes": [str(n) for n in range(11)]} for c in "cd"
            ]
        },
        {"credentials": [{"id": "cred_none"}]},
        {"credentials": [{"name": "no pem"}]},
    ],
    ids=str,
)
def test_pins_are_bounded(worker: Worker, access: dict[str, Any]) -> None:
    """Ten addresses, five connections, twenty scopes, keys there are; else 400."""
    body = {"name": "x", "token_vault_privileged_access": {**WORKER, **access}}
    assert worker.admin.call("POST", "clients", body).status_code == 400


def test_pins_take_their_own_scope(worker: Worker) -> None:
    """update:client_token_vault_privileged_access reaches the pins and no more."""
    scope = "update:client_token_vault_privileged_access"
    token = worker.admin.machine_token(scope=scope).json()["access_token"]
    url = f"{worker.admin.tenant.issuer}api/v2/clients/{worker.client['client_id']}"
    headers = {"authorization": f"Bearer {token}"}
    pins = {"token_vault_privileged_access": {
        "credentials": [], "ip_allowlist": [], "grants": []}}  # fmt: skip
    client = worker.made(WORKER)
    other = url.replace(worker.client["client_id"], client["client_id"])
    allowed = worker.admin.tenant.http.patch(other, json=pins, headers=headers)
    assert allowed.status_code == 200
    refused = worker.admin.tenant.http.patch(
        other, json={**pins, "grant_types": []}, headers=headers
    )
    assert refused.status_code == 403
