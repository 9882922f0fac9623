"""An Auth0-shaped Management API on a real socket, its objects plain dicts.

Shapes and statuses are those recorded from real tenants; faults are switches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from auth0_double.resource_servers import SCOPES as OFFERED
from support.http_server import http_server

Json = dict[str, Any]
ADMIN = ("admin", "admin-secret-value")
PAGED = {
    "clients": "clients",
    "client-grants": "client_grants",
    "resource-servers": "resource_servers",
    "roles": "roles",
    "connections": "connections",
}
SCOPES = {
    name: name.replace("-", "_") for name in (*PAGED, "actions", "tenant_settings")
}
DEFAULTS: dict[str, Json] = {
    "clients": {
        "is_first_party": True,
        "oidc_conformant": False,
        "grant_types": ["authorization_code", "implicit", "refresh_token"],
        "refresh_token": {"rotation_type": "non-rotating", "leeway": 0},
    },
    "resource-servers": {
        "allow_offline_access": False,
        "token_lifetime": 86400,
        "subject_type_authorization": {
            "user": {"policy": "allow_all"},
            "client": {"policy": "require_client_grant"},
        },
    },
}


@dataclass
class DictTenant:
    """The tenant: what a test sets up, and what it may look at afterwards."""

    issuer: str = ""
    tables: dict[str, dict[str, Json]] = field(default_factory=dict)
    bindings: list[Json] = field(default_factory=list)
    exchange: list[Json] = field(default_factory=list)
    """What is bound to credentials-exchange."""
    factors: dict[str, bool] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)
    settings: Json = field(default_factory=lambda: {"friendly_name": "Acme"})
    enabled: dict[str, list[str]] = field(default_factory=dict)
    permissions: dict[str, list[Json]] = field(default_factory=dict)
    credentials: dict[str, list[Json]] = field(default_factory=dict)
    writes: list[tuple[str, str, Any]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """Every secret it gave out."""
    granted: str = ""
    """What the token's answer says it may do; nothing: it does not say."""
    without: frozenset[str] = frozenset()
    """Scopes its token lacks, whatever it says."""
    deaf: frozenset[str] = frozenset()
    """Members of APIs it takes a change of and does not store."""
    drop_subject_type: bool = False
    fail_after: int = -1
    """Writes until it answers 503 to each; -1: never."""
    busy: int = 0
    """Requests it answers 429 before it answers any."""
    busy_seconds: int = 0
    """How far ahead it says that its limit is renewed."""
    classic: bool = False
    """Whether people sign in on the old pages."""
    trials: frozenset[str] = frozenset()
    """Factors whose trial is over."""
    plan_lacks: dict[str, str] = field(default_factory=dict)
    """Path of a write to the code it is refused with."""
    skew: float = 0.0
    token_answer: tuple[int, Json] | None = None
    discovery: Json = field(default_factory=dict)
    """Members of the discovery document that differ."""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    builds: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*PAGED, "actions"):
            self.tables.setdefault(name, {})
        for name in ("otp", "sms", "webauthn-roaming", "webauthn-platform"):
            self.factors.setdefault(name, name == "sms")

    def seed(self, *, my_account: bool = True) -> None:
        """Put there what an empty tenant has."""
        self.add(
            "resource-servers",
            identifier=f"{self.issuer}api/v2/",
            is_system=True,
            scopes=[{"value": scope} for scope in OFFERED],
        )
        if my_account:
            self.add("resource-servers", identifier=f"{self.issuer}me/", is_system=True)
        self.connect("Username-Password-Authentication", "auth0")

    def connect(self, name: str, strategy: str, **options: Any) -> str:
        """Add a connection; its options hold a secret, as they do."""
        options = {"client_id": "x", "client_secret": "provider-secret", **options}
        made = self.add(
            "connections", prefix="con_", name=name, strategy=strategy, options=options
        )
        return str(made["id"])

    def add(self, table: str, *, prefix: str = "", **values: Any) -> Json:
        """Put a row there; applications get a client id and a secret."""
        identity = f"{prefix or table[:2] + '_'}{next(self.numbers)}"
        row = {**json.loads(json.dumps(DEFAULTS.get(table, {}))), **values}
        if table == "clients":
            row["client_id"] = identity
            if row.get("token_endpoint_auth_method") != "none":
                row["client_secret"] = self.new_secret()
        else:
            row["id"] = identity
        self.tables[table][identity] = row
        return row

    def new_secret(self) -> str:
        """Return a secret nobody had before, and remember it."""
        self.secrets.append(f"given-secret-{next(self.numbers)}")
        return self.secrets[-1]

    @contextmanager
    def kept_whole(self) -> Iterator[None]:
        """Put everything back afterwards as it stood."""
        names = ("tables", "bindings", "exchange", "factors", "policies", "settings",
                 "enabled", "classic", "trials")  # fmt: skip
        before = {name: deepcopy(getattr(self, name)) for name in names}
        yield
        for name, value in before.items():
            setattr(self, name, value)

    def named(self, table: str, name: str) -> Json:
        """Return the row of that name or identifier."""
        return next(
            row
            for row in self.tables[table].values()
            if name in (row.get("name"), row.get("identifier"))
        )


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.answer = (
            status,
            {
                "statusCode": status,
                "error": "Refused",
                "message": message,
                "errorCode": code,
            },
        )


class _Handler(BaseHTTPRequestHandler):
    tenant: DictTenant
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one write an answer: two would wait for each other's ACK

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate((timestamp or time.time()) + self.tenant.skew, usegmt=True)

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        url = urlsplit(self.path)
        try:
            status, body = self._route(url.path, parse_qs(url.query), raw)
        except _RefusedError as refused:
            status, body = refused.answer
        except KeyError:
            status, body = _RefusedError(404, "inexistent", "no such object").answer
        content = b"" if status == 204 else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status == 429:
            renewed = int(time.time() + self.tenant.skew) + self.tenant.busy_seconds
            self.send_header("x-ratelimit-reset", str(renewed))
        if status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815

    def _route(self, path: str, query: Any, raw: bytes) -> tuple[int, Any]:
        here = self.tenant
        if path == "/.well-known/openid-configuration":
            names = ("oauth/token", "oauth/device/code", ".well-known/jwks.json")
            token, device, keys = (f"{here.issuer}{name}" for name in names)
            return 200, {
                "issuer": here.issuer,
                "token_endpoint": token,
                "device_authorization_endpoint": device,
                "jwks_uri": keys,
                "id_token_signing_alg_values_supported": ["RS256"],
                **here.discovery,
            }
        if path == "/oauth/token":
            return self._token({k: v[0] for k, v in parse_qs(raw.decode()).items()})
        if here.busy:
            here.busy -= 1
            raise _RefusedError(
                429, "too_many_requests", "Global limit has been reached"
            )
        if self.headers.get("authorization") != "Bearer management-token":
            raise _RefusedError(401, "invalid_token", "Invalid token")
        body = json.loads(raw) if raw else None
        method = self.command
        if method != "GET":
            if code := here.plan_lacks.get(path):
                message = "Please upgrade your subscription."
                raise _RefusedError(403, code, message)
            if here.fail_after == 0:
                raise _RefusedError(503, "unavailable", "try later")
            here.fail_after -= 1
            here.writes.append((method, path, body))
        parts = [unquote(part) for part in path.removeprefix("/api/v2/").split("/")]
        flat = {name: values[0] for name, values in query.items()}
        return _Calls(here).call(method, parts, flat, body)

    def _token(self, form: dict[str, str]) -> tuple[int, Any]:
        if self.tenant.token_answer is not None:
            return self.tenant.token_answer
        if (form.get("client_id"), form.get("client_secret")) != ADMIN:
            return 401, {"error": "access_denied", "error_description": "Unauthorized"}
        return 200, {
            "access_token": "management-token",
            "token_type": "Bearer",
            "expires_in": 86400,
            **({"scope": self.tenant.granted} if self.tenant.granted else {}),
        }


@dataclass
class _Calls:
    here: DictTenant

    def call(
        self, method: str, parts: list[str], query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        match parts:
            case ["guardian", *rest]:
                return self._guardian(method, rest, body)
            case ["tenants", "settings"]:
                self._may(f"{_verb(method)}:tenant_settings")
                sent = body or {}
                flags = {**self.here.settings.get("flags", {}), **sent.get("flags", {})}
                self.here.settings.update({**sent, "flags": flags})
                return 200, self.here.settings
            case ["prompts"]:
                self._may("read:prompts")
                kind = "classic" if self.here.classic else "new"
                return 200, {"universal_login_experience": kind}
            case ["actions", "triggers", "post-login", "bindings"]:
                return self._bindings(self.here.bindings, method, body, query)
            case ["actions", "triggers", "credentials-exchange", "bindings"]:
                return self._bindings(self.here.exchange, method, body, query)
            case ["actions", "actions", *rest]:
                return self._actions(method, rest, query, body)
            case [table, identity, inner]:
                return self._inner(method, (table, inner), identity, body, query)
            case [table, *rest] if table in PAGED:
                return self._rows(method, table, rest, query, body)
        raise KeyError(parts)

    def _guardian(self, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        kind = "mfa_policies" if rest == ["policies"] else "guardian_factors"
        self._may(f"{_verb(method)}:{kind}")
        match method, rest:
            case "GET", ["factors"]:
                return 200, [
                    {
                        "name": one,
                        "enabled": on,
                        "trial_expired": one in self.here.trials,
                    }
                    for one, on in self.here.factors.items()
                ]
            case "PUT", ["factors", name]:
                self.here.factors[name] = body["enabled"]
                return 200, body
            case "GET", ["policies"]:
                return 200, self.here.policies
            case "PUT", ["policies"]:
                self.here.policies = body
                return 200, body
        raise KeyError(rest)

    def _inner(
        self, method: str, what: tuple[str, str], identity: str, body: Any, query: Any
    ) -> tuple[int, Any]:
        match what:
            case "roles", "permissions":
                return self._permissions(method, identity, body, query)
            case "connections", "clients":
                return self._enabled(method, identity, body)
            case "clients", "connections":
                rows = self.here.tables["connections"]
                held = self.here.enabled
                found = [rows[one] for one in rows if identity in held.get(one, [])]
                return 200, {"connections": found}
            case "clients", "credentials":
                self._may("create:client_credentials")
                made = {"id": f"cred_{next(self.here.numbers)}", "name": body["name"]}
                self.here.credentials.setdefault(identity, []).append(made)
                return 201, made
            case "clients", "rotate-secret":
                self._may("update:client_keys")
                row = self.here.tables["clients"][identity]
                row["client_secret"] = self.here.new_secret()
                return 200, row
        raise KeyError(what)

    def _may(self, scope: str) -> None:
        if scope in self.here.without:
            message = f"Insufficient scope, expected any of: {scope}"
            raise _RefusedError(403, "insufficient_scope", message)

    def _rows(
        self, method: str, table: str, rest: list[str], query: Any, body: Any
    ) -> tuple[int, Any]:
        rows = self.here.tables[table]
        self._may(f"{_verb(method)}:{SCOPES[table]}")
        match method, rest:
            case "GET", []:
                return 200, _page(list(rows.values()), PAGED[table], query)
            case "GET", [identity]:
                return 200, _fields(rows[identity], query)
            case "POST", []:
                return self._create(table, body)
            case "PATCH", [identity]:
                if "token_vault_privileged_access" in body:
                    self._may("update:client_token_vault_privileged_access")
                stored = {k: v for k, v in body.items() if k not in self.here.deaf}
                _merge(rows[identity], stored)
                return 200, rows[identity]
            case "DELETE", [identity]:
                gone = rows.pop(identity)
                grants = self.here.tables["client-grants"]
                for one, row in [*grants.items()]:
                    uses = (row.get("audience"), row.get("client_id"))
                    if gone.get("identifier", "") in uses or identity in uses:
                        del grants[one]
                return 204, None
        raise KeyError(rest)

    def _create(self, table: str, body: Json) -> tuple[int, Any]:
        if table == "client-grants" and self.here.drop_subject_type:
            body = {**body, "subject_type": "client"}
        made = self.here.add(table, **body)
        flags = self.here.settings.get("flags", {})
        if table == "clients" and flags.get("enable_client_connections", True):
            for one in self.here.tables["connections"]:
                self.here.enabled.setdefault(one, []).append(made["client_id"])
        return (200 if table == "roles" else 201), made

    def _permissions(
        self, method: str, identity: str, body: Any, query: Any
    ) -> tuple[int, Any]:
        held = self.here.permissions.setdefault(identity, [])
        if method == "POST":
            self._may("update:roles")
            held += [{**one, "sources": []} for one in body["permissions"]]
            return 201, {}
        return 200, _page(held, "permissions", query)

    def _enabled(self, method: str, identity: str, body: Any) -> tuple[int, Any]:
        held = self.here.enabled.setdefault(identity, [])
        if method == "GET":
            return 200, {"clients": [{"client_id": one} for one in held]}
        self._may("update:connections")
        assert len(body) <= 50
        held += [one["client_id"] for one in body if one["status"]]
        for one in body:
            if not one["status"]:
                held.remove(one["client_id"])
        return 204, None

    def _actions(
        self, method: str, rest: list[str], query: Any, body: Any
    ) -> tuple[int, Any]:
        rows = self.here.tables["actions"]
        self._may(f"{_verb(method)}:actions")
        match method, rest:
            case "GET", []:
                return 200, _page(list(rows.values()), "actions", query)
            case "GET", [identity]:
                self._build(rows[identity])
                return 200, rows[identity]
            case "POST", []:
                made = self.here.add("actions", **body, status="pending")
                return 201, made
            case "PATCH", [identity]:
                rows[identity].update(body, status="pending")
                return 200, rows[identity]
            case "POST", [identity, "deploy"]:
                assert rows[identity]["status"] == "built", (
                    "deployed before it was built"
                )
                code = rows[identity]["code"]
                rows[identity]["deployed_version"] = {"code": code, "deployed": True}
                return 200, {"code": code, "deployed": False}
        raise KeyError(rest)

    def _build(self, row: Json) -> None:
        """Be pending, then building, then built: one step a look."""
        steps = ["pending", "building", "built"]
        if row["status"] in steps[:2]:
            row["status"] = steps[steps.index(row["status"]) + 1]

    def _bindings(
        self, bound: list[Json], method: str, body: Any, query: Any
    ) -> tuple[int, Any]:
        if method == "PATCH":
            self._may("update:actions")
            bound[:] = [
                {
                    "id": f"bind_{next(self.here.numbers)}",
                    "display_name": one.get("display_name", "?"),
                    "action": {"id": one["ref"]["value"]},
                }
                for one in body["bindings"]
            ]
        return 200, _page(bound, "bindings", query)


def _page(rows: list[Json], key: str, query: dict[str, str]) -> Any:
    start = int(query.get("page", 0)) * int(query.get("per_page", 50))
    named = query.get("name")
    found = [row for row in rows if named is None or row.get("name") == named]
    shown = found[start : start + int(query.get("per_page", 50))]
    return {key: [_fields(row, query) for row in shown], "total": len(found)}


def _fields(row: Json, query: dict[str, str]) -> Json:
    if query.get("include_fields") != "false":
        return row
    left_out = query["fields"].split(",")
    return {name: row[name] for name in row if name not in left_out}


def _merge(row: Json, body: Json) -> None:
    """Replace members as a whole, but add to metadata, as Auth0 does."""
    for name, value in body.items():
        if name == "client_metadata":
            row.setdefault(name, {}).update(value)
        else:
            row[name] = value


def _verb(method: str) -> str:
    return {"GET": "read", "POST": "create", "DELETE": "delete"}.get(method, "update")


@contextmanager
def dict_tenant() -> Iterator[DictTenant]:
    """Serve an empty tenant on a port of its own."""
    tenant = DictTenant()
    handler = type("Handler", (_Handler,), {"tenant": tenant})
    with http_server(handler) as url:
        tenant.issuer = f"{url}/"
        yield tenant
