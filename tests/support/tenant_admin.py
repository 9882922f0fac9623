"""An administrator's program, a client of agents, and people who sign in for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from auth0_double.running import TenantThread

from agentvault_tui.tenant.device_page_client import read_page

VAULT = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
TO_CONNECTION = "http://auth0.com/oauth/token-type/federated-connection-access-token"
CALLBACK = "http://127.0.0.1:9/callback"
DATABASE = "Username-Password-Authentication"
ME = ("create", "read", "delete")
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .rstrip(b"=")
    .decode()
)
PASSWORD = "correct-horse-battery"


class Admin:
    """Manages one tenant with the credential that the broker of its run has."""

    def __init__(self, tenant: TenantThread) -> None:
        self.tenant = tenant
        self.token = self.machine_token().json()["access_token"]

    def machine_token(self, **form: str) -> httpx.Response:
        base = {
            "grant_type": "client_credentials",
            "client_id": self.tenant.run.management_id,
            "client_secret": self.tenant.run.management_secret,
            "audience": f"{self.tenant.issuer}api/v2/",
        }
        return self.tenant.post("oauth/token", **{**base, **form})

    def call(
        self, method: str, path: str, body: Any = None, **query: Any
    ) -> httpx.Response:
        return self.tenant.http.request(
            method,
            f"{self.tenant.issuer}api/v2/{path}",
            headers={"authorization": f"Bearer {self.token}"},
            json=body,
            params=query or None,
        )

    def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.call("POST", path, body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def client(self, **members: Any) -> dict[str, Any]:
        """Make an agent's client, as Appendix A of the facts has it."""
        me = f"{self.tenant.issuer}me/"
        scopes = [f"{verb}:me:connected_accounts" for verb in ME]
        made = self.made(
            "clients",
            {
                "name": "Agent: calendar-bot",
                "app_type": "regular_web",
                "is_first_party": True,
                "oidc_conformant": True,
                "token_endpoint_auth_method": "client_secret_post",
                "grant_types": ["authorization_code", "refresh_token", VAULT],
                "callbacks": [CALLBACK],
                "refresh_token": {
                    "rotation_type": "non-rotating",
                    "expiration_type": "non-expiring",
                    "policies": [{"audience": me, "scope": scopes}],
                },
                **members,
            },
        )
        grant = {
            "client_id": made["client_id"],
            "audience": me,
            "scope": scopes,
            "subject_type": "user",
        }
        self.made("client-grants", grant)
        return made

    def management_client(self, scopes: Iterable[str]) -> dict[str, Any]:
        """Make a client that may use the Management API as far as *scopes* go."""
        made = self.made(
            "clients",
            {
                "name": "AgentVault management",
                "app_type": "non_interactive",
                "oidc_conformant": True,
                "token_endpoint_auth_method": "client_secret_post",
                "grant_types": ["client_credentials"],
            },
        )
        grant = {
            "client_id": made["client_id"],
            "audience": f"{self.tenant.issuer}api/v2/",
            "scope": list(scopes),
            "subject_type": "client",
        }
        self.made("client-grants", grant)
        return made

    def user(self, name: str) -> dict[str, Any]:
        return self.made(
            "users", {"connection": DATABASE, "username": name, "password": PASSWORD}
        )

    def connection(self, name: str = "workspace") -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "connections", name=name).json()[0]
        return found

    def enable(self, client: dict[str, Any], *, status: bool = True) -> None:
        body = [{"client_id": client["client_id"], "status": status}]
        path = f"connections/{self.connection()['id']}/clients"
        assert self.call("PATCH", path, body).status_code == 204

    def rows(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "logs", q=f"type:{kind}").json()
        return found


class Person:
    """Signs in on the login pages; the browser follows nothing by itself."""

    def __init__(self, tenant: TenantThread, name: str, password: str) -> None:
        self.tenant = tenant
        self.name, self.password = name, password
        self.http = tenant.browser()
        self.last = httpx.Response(0)

    def open(self, path: str, **query: str) -> httpx.Response:
        self.last = self.http.get(path, params=query)
        return self.last

    def send(self, form: str, **fields: str) -> httpx.Response:
        found = read_page(self.last.text).forms[form]
        self.last = self.http.post(
            found.action,
            data={**found.fields, **fields},
            headers={"origin": self.tenant.issuer.rstrip("/")},
        )
        return self.last

    def allow(self, path: str, otp: str | None = None, **query: str) -> dict[str, str]:
        """Walk all the pages; return what the redirect carries."""
        assert self.open(path, **query).status_code == 200, self.last.text
        self.send("login", user=self.name, password=self.password)
        if otp is not None:
            self.send("login-otp", otp=otp)
        return carried(self.send("consent"))


def carried(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 302, answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


class Agent:
    """A client with its own vault user."""

    def __init__(self, admin: Admin, name: str, /, **members: Any) -> None:
        self.admin = admin
        self.tenant = admin.tenant
        self.client = admin.client(**members)
        self.user = admin.user(name)
        self.person = Person(self.tenant, name, PASSWORD)
        admin.enable(self.client)

    @property
    def auth(self) -> dict[str, str]:
        return {
            "client_id": self.client["client_id"],
            "client_secret": self.client["client_secret"],
        }

    def authorize_query(self, **query: str) -> dict[str, str]:
        return {
            "client_id": self.client["client_id"],
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": "openid profile offline_access",
            "state": "s1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **query,
        }

    def redeem(self, code: str, /, **form: str) -> httpx.Response:
        base = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            **self.auth,
        }
        return self.tenant.post("oauth/token", **{**base, **form})

    def tokens(self, **query: str) -> dict[str, Any]:
        """Sign in as the vault user, and return the token answer."""
        found = self.person.allow("authorize", **self.authorize_query(**query))
        answer = self.redeem(found["code"])
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def refresh(self, token: str, **form: str) -> httpx.Response:
        base = {"grant_type": "refresh_token", "refresh_token": token, **self.auth}
        return self.tenant.post("oauth/token", **{**base, **form})

    def me_token(self, refresh_token: str) -> str:
        answer = self.refresh(
            refresh_token,
            audience=f"{self.tenant.issuer}me/",
            scope=" ".join(f"{verb}:me:connected_accounts" for verb in ME),
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def me(
        self, token: str, method: str, path: str, body: Any = None
    ) -> httpx.Response:
        return self.tenant.http.request(
            method,
            f"{self.tenant.issuer}me/v1/connected-accounts/{path}",
            headers={"authorization": f"Bearer {token}"},
            json=body,
        )

    def start(self, me_token: str, **members: Any) -> dict[str, Any]:
        body = {
            "connection": "workspace",
            "redirect_uri": CALLBACK,
            "state": "s2",
            "scopes": ["calendar.read", "calendar.write"],
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **members,
        }
        answer = self.me(me_token, "POST", "connect", body)
        assert answer.status_code == 201, answer.text
        started: dict[str, Any] = answer.json()
        return started

    def connect(self, me_token: str, **members: Any) -> dict[str, Any]:
        """Connect an account, as the vault user at the provider too."""
        started = self.start(me_token, **members)
        found = self.person.allow(
            "connected-accounts/connect", **started["connect_params"]
        )
        body = {
            "auth_session": started["auth_session"],
            "connect_code": found["connect_code"],
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        }
        answer = self.me(me_token, "POST", "complete", body)
        assert answer.status_code == 201, answer.text
        account: dict[str, Any] = answer.json()
        return account

    def exchange(self, token: str, **form: Any) -> httpx.Response:
        """Exchange as the SDKs do: JSON, the secret in the body."""
        body = {
            "grant_type": VAULT,
            "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
            "subject_token": token,
            "requested_token_type": TO_CONNECTION,
            "connection": "workspace",
            **self.auth,
            **form,
        }
        return self.tenant.http.post(self.tenant.issuer + "oauth/token", json=body)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """Return a JWT with ``alg: none``."""
    return f"{_part({'alg': 'none', **header})}.{_part(claims)}."


def maced(claims: dict[str, Any], secret: bytes, **header: Any) -> str:
    """Return a JWT with a MAC, whatever the secret is; libraries refuse public keys."""
    signed = f"{_part({'alg': 'HS256', **header})}.{_part(claims)}"
    mac = hmac.new(secret, signed.encode(), "sha256").digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _part(value: dict[str, Any]) -> str:
    raw = json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
