"""The calls of the Management API that the broker makes.

They make an agent's client and let it use a connection, revoke its tokens and grants,
and read the log. Users and keys of a home are managed by commands, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlencode

from msgspec import UNSET, Struct

from agentvault_tui.model import new_id
from agentvault_tui.tenant.apis import grant_name
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.journal import of_epoch
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.api import (
    Handler,
    ManagementAnswer,
    ManagementCall,
    ManagementRequest,
)
from agentvault_tui.tenant.management.wire import (
    ApiError,
    Maybe,
    Scope,
    Scopes,
    Uri,
    Word,
    bad_body,
    bad_query,
    checked,
    no_api,
    no_client,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.store import Document, merged
from agentvault_tui.tenant.tokens import RefreshToken
from agentvault_tui.tenant.users import ROLES


class RefreshPolicy(Struct):
    """An audience that refresh tokens reach besides their own."""

    audience: Uri
    scope: Scopes


class RefreshRules(Struct):
    """How refresh tokens live: they neither rotate nor expire."""

    rotation_type: Literal["non-rotating"] = "non-rotating"
    expiration_type: Literal["non-expiring"] = "non-expiring"
    policies: list[RefreshPolicy] | Maybe = UNSET


class JwtRules(Struct):
    """How ID tokens are signed."""

    alg: Literal["RS256"] = "RS256"


class ClientBody(Struct):
    """The members of a client that the broker sets."""

    name: Word | Maybe = UNSET
    app_type: Literal["native", "regular_web", "non_interactive"] | Maybe = UNSET
    is_first_party: bool | Maybe = UNSET
    oidc_conformant: bool | Maybe = UNSET
    grant_types: list[Word] | Maybe = UNSET
    token_endpoint_auth_method: (
        Literal["none", "client_secret_post", "client_secret_basic"] | Maybe
    ) = UNSET
    callbacks: list[Uri] | Maybe = UNSET
    client_metadata: dict[str, object] | Maybe = UNSET
    refresh_token: RefreshRules | Maybe = UNSET
    jwt_configuration: JwtRules | Maybe = UNSET


class GrantBody(Struct):
    """The members of a client grant."""

    client_id: Word | Maybe = UNSET
    audience: Uri | Maybe = UNSET
    subject_type: Literal["client", "user"] | Maybe = UNSET
    scope: Scopes | Maybe = UNSET
    allow_all_scopes: bool | Maybe = UNSET


class ConnectedAccounts(Struct):
    """Whether Token Vault may be used through a connection."""

    active: bool = False


class ConnectionBody(Struct):
    """The members of a connection that the broker sets."""

    connected_accounts: ConnectedAccounts | Maybe = UNSET


class EnabledClient(Struct):
    """A client for which a connection is switched on or off."""

    client_id: Word
    status: bool


class RevokedTokens(Struct):
    """The owner of refresh tokens that are to end."""

    user_id: Scope
    client_id: Word | Maybe = UNSET
    audience: Uri | Maybe = UNSET


_NEEDED: Final = (
    "name", "app_type", "grant_types", "is_first_party", "oidc_conformant"
)  # fmt: skip
"""Members of a client that a null does not take away."""
_REFRESH: Final[Document] = {
    "rotation_type": "non-rotating",
    "expiration_type": "non-expiring",
}
_MOST_ENABLED: Final = 50
_calls: Final[list[ManagementCall]] = []


def _call(
    method: str, path: str, title: str, *scopes: str
) -> Callable[[Handler], Handler]:
    """Register a call; any of *scopes* is enough to make it."""

    def registered(act: Handler) -> Handler:
        _calls.append(ManagementCall(method, path, scopes, title, act))
        return act

    return registered


def client_shape(client: Client) -> Document:
    """Return a client as the API shows it: without a secret, since none is stored."""
    return {"tenant": "agentvault", "global": False, **client.doc,
            "client_id": client.client_id}  # fmt: skip


def new_client(body: Mapping[str, Any]) -> Document:
    """Return *body* with the defaults of a client made over this API."""
    doc: Document = {
        "app_type": "regular_web",
        "is_first_party": True,
        "oidc_conformant": False,
        "grant_types": [],
        "token_endpoint_auth_method": "client_secret_post",
        "callbacks": [],
        "jwt_configuration": {"alg": "RS256", "lifetime_in_seconds": 36_000},
        **{name: value for name, value in body.items() if value is not None},
    }
    doc["refresh_token"] = {**_REFRESH, **(body.get("refresh_token") or {})}
    return doc


def changed_client(client: Client, body: Mapping[str, Any]) -> Document:
    """Return a client's document with the changes of *body*.

    Raises:
        ApiError: 400: a member that it needs would be taken away.
    """
    for name in _NEEDED:
        if name in body and body[name] is None:
            raise bad_body(name, "Expected a value")
    doc = merged(client.doc, body)
    doc.setdefault("token_endpoint_auth_method", None)
    if body.get("refresh_token") is not None:
        held = client.doc.get("refresh_token") or {}
        doc["refresh_token"] = {**held, **body["refresh_token"]}
    return doc


def found_client(parts: Parts, request: ManagementRequest) -> Client:
    """Return the client that the path names.

    Raises:
        ApiError: 404: there is none.
    """
    client = parts.clients.find(request.path["id"])
    if client is None:
        raise no_client()
    return client


def kept_client(parts: Parts, request: ManagementRequest) -> Client:
    """Return the client that the path names, if it may be changed.

    Raises:
        ApiError: 404: there is none; 403: it is the broker's own.
    """
    client = found_client(parts, request)
    if client.of_run:
        raise ApiError(
            403, "The broker's own clients change with its run alone.", "forbidden"
        )
    return client


@_call("GET", "/clients", "Get clients", "read:clients", "read:client_keys")
def _list_clients(parts: Parts, request: ManagementRequest) -> object:
    clients = [client_shape(client) for client in parts.clients.all()]
    if (types := request.query.get("app_type")) is not None:
        clients = [doc for doc in clients if doc["app_type"] in types.split(",")]
    if "is_first_party" in request.query:
        first = wire.flagged(request.query, "is_first_party")
        clients = [doc for doc in clients if doc["is_first_party"] is first]
    return wire.listed(request.query, "clients", clients, name="client_id")


@_call("GET", "/clients/{id}", "Get client by ID", "read:clients", "read:client_keys")
def _get_client(parts: Parts, request: ManagementRequest) -> object:
    shape = client_shape(found_client(parts, request))
    return wire.chosen(request.query, shape)


@_call("POST", "/clients", "Create a client", "create:clients")
def _add_client(parts: Parts, request: ManagementRequest) -> object:
    body = checked(request.body, ClientBody, "name")
    client, secret = parts.clients.add(new_client(body))
    given = {} if secret is None else {"client_secret": secret}
    return ManagementAnswer(201, client_shape(client) | given)


@_call("PATCH", "/clients/{id}", "Update a Client", "update:clients")
def _change_client(parts: Parts, request: ManagementRequest) -> object:
    client = kept_client(parts, request)
    doc = changed_client(client, checked(request.body, ClientBody))
    return client_shape(parts.clients.change(client, doc))


@_call(
    "POST",
    "/clients/{id}/rotate-secret",
    "Rotate a client secret",
    "update:client_keys",
)
def _rotate_secret(parts: Parts, request: ManagementRequest) -> object:
    client = kept_client(parts, request)
    if not client.confidential:
        raise ApiError(
            400, "The client does not authenticate with a secret.", "invalid_body"
        )
    secret = parts.clients.new_secret(client.client_id)
    return client_shape(client) | {"client_secret": secret}


@_call(
    "GET",
    "/clients/{id}/connections",
    "Get enabled connections for a client",
    "read:connections",
)
def _connections_of_client(parts: Parts, request: ManagementRequest) -> object:
    client_id = found_client(parts, request).client_id
    connections = [
        {name: value for name, value in doc.items() if name != "enabled_clients"}
        for doc in parts.connections.objects.all()
        if client_id in doc["enabled_clients"]
    ]
    return wire.by_checkpoint(request.query, "connections", connections)


@_call("GET", "/client-grants", "Get client grants", "read:client_grants")
def _list_grants(parts: Parts, request: ManagementRequest) -> object:
    grants = parts.apis.grants.all()
    for name in ("client_id", "audience", "subject_type"):
        if (wanted := request.query.get(name)) is not None:
            grants = [grant for grant in grants if grant[name] == wanted]
    return wire.listed(request.query, "client_grants", grants)


@_call("POST", "/client-grants", "Create a client grant", "create:client_grants")
def _add_grant(parts: Parts, request: ManagementRequest) -> object:
    body = checked(request.body, GrantBody, "client_id", "audience")
    client = parts.clients.find(body["client_id"])
    if client is None:
        raise no_client()
    if client.of_run:
        raise ApiError(403, "The broker's own clients get no grants.", "forbidden")
    api = parts.apis.find(body["audience"])
    if api is None:
        raise no_api()
    subject = body.get("subject_type") or "client"
    if subject == "client" and api.policies["client"] == "deny_all":
        raise ApiError(400, "The API gives clients no access.", "invalid_body")
    grant: Document = {"scope": [], **merged({}, body), "subject_type": subject}
    _check_grant(parts, grant)
    grant["id"] = new_id("cgr")
    name = grant_name(client.client_id, api.identifier, subject)
    if parts.apis.grants.named(name) is not None:
        raise ApiError(
            409, "A resource with the same identifier already exists.",
            "resource_already_exists",
        )  # fmt: skip
    parts.apis.grants.add(grant["id"], name, grant)
    return ManagementAnswer(201, grant)


@_call("PATCH", "/client-grants/{id}", "Update a client grant", "update:client_grants")
def _change_grant(parts: Parts, request: ManagementRequest) -> object:
    held = parts.apis.grants.get(request.path["id"])
    if held is None:
        raise ApiError(
            404, "The client grant does not exist", "inexistent_client_grant"
        )
    body = checked(request.body, GrantBody)
    changes: Document = {n: body[n] for n in ("scope", "allow_all_scopes") if n in body}
    grant = merged(held, changes)
    grant.setdefault("scope", [])
    _check_grant(parts, grant)
    parts.apis.grants.replace(grant["id"], grant)
    return grant


def _check_grant(parts: Parts, grant: Mapping[str, Any]) -> None:
    """Refuse scopes the API does not have."""
    api = parts.apis.find(grant["audience"])
    if unknown := set(grant["scope"]) - set(() if api is None else api.scopes):
        raise ApiError(
            400,
            f"The following scopes are not supported: {','.join(sorted(unknown))}",
            "invalid_scope",
        )


@_call("GET", "/resource-servers", "Get resource servers", "read:resource_servers")
def _list_apis(parts: Parts, request: ManagementRequest) -> object:
    apis = [api.shape() for api in parts.apis.all()]
    return wire.listed(request.query, "resource_servers", apis)


@_call("GET", "/connections", "Get all connections", "read:connections")
def _list_connections(parts: Parts, request: ManagementRequest) -> object:
    connections = parts.connections.objects.all()
    for name in ("name", "strategy"):
        if (wanted := request.query.get(name)) is not None:
            connections = [doc for doc in connections if doc[name] == wanted]
    return wire.listed(request.query, "connections", connections)


def found_connection(parts: Parts, request: ManagementRequest) -> Document:
    """Return the connection that the path names.

    Raises:
        ApiError: 404: there is none.
    """
    doc = parts.connections.objects.get(request.path["id"])
    if doc is None:
        raise ApiError(404, "The connection does not exist", "inexistent_connection")
    return doc


def change_connection(
    parts: Parts, doc: Document, changes: Mapping[str, object]
) -> Document:
    """Change a connection; members removed by a null return to their defaults."""
    changed = merged(doc, changes)
    changed.setdefault("options", {})
    changed.setdefault("enabled_clients", [])
    changed.setdefault("connected_accounts", {"active": False})
    parts.connections.objects.replace(changed["id"], changed)
    return changed


@_call("PATCH", "/connections/{id}", "Update a connection", "update:connections")
def _change_connection(parts: Parts, request: ManagementRequest) -> object:
    doc = found_connection(parts, request)
    return change_connection(parts, doc, checked(request.body, ConnectionBody))


@_call("GET", "/connections/{id}/clients", "Get enabled clients", "read:connections")
def _enabled_clients(parts: Parts, request: ManagementRequest) -> object:
    enabled = found_connection(parts, request)["enabled_clients"]
    listed = [{"client_id": client_id} for client_id in enabled]
    return wire.by_checkpoint(request.query, "clients", listed, name="client_id")


@_call(
    "PATCH", "/connections/{id}/clients", "Update enabled clients", "update:connections"
)
def _enable_clients(parts: Parts, request: ManagementRequest) -> object:
    doc = found_connection(parts, request)
    if not isinstance(request.body, list) or not 0 < len(request.body) <= _MOST_ENABLED:
        raise ApiError(
            400, f"Payload validation error: 'Expected 1 to {_MOST_ENABLED} items'",
            "invalid_body",
        )  # fmt: skip
    enabled = dict.fromkeys(doc["enabled_clients"])
    for item in request.body:
        pair = checked(item, EnabledClient)
        # Taking away must work for a client that is gone; giving must not.
        if pair["status"] and parts.clients.find(pair["client_id"]) is None:
            raise no_client()
        if pair["status"]:
            enabled[pair["client_id"]] = None
        else:
            enabled.pop(pair["client_id"], None)
    parts.connections.objects.replace(doc["id"], {**doc, "enabled_clients": [*enabled]})
    return ManagementAnswer(204)


@_call(
    "POST", "/refresh-tokens/revoke", "Revoke refresh tokens", "delete:refresh_tokens"
)
def _revoke_refresh_tokens(parts: Parts, request: ManagementRequest) -> object:
    for held in parts.refresh.list(**checked(request.body, RevokedTokens)):
        parts.refresh.revoke(held.id)
    return ManagementAnswer(202, {})


def refresh_token_shape(parts: Parts, held: RefreshToken) -> dict[str, object]:
    """Return a refresh token as the API shows it, which is never the token."""
    return {
        "id": held.id,
        "user_id": held.user_id,
        "created_at": of_epoch(held.created_at),
        "client_id": held.client_id,
        "session_id": held.session_id,
        "rotating": False,
        "resource_servers": [
            {"audience": audience or parts.apis.userinfo, "scopes": scopes}
            for audience, scopes in held.reach.items()
        ],
        "last_exchanged_at": of_epoch(held.last_exchanged_at),
    }


@_call(
    "GET",
    "/users/{id}/refresh-tokens",
    "Get refresh tokens for a user",
    "read:refresh_tokens",
)
def _refresh_tokens_of_user(parts: Parts, request: ManagementRequest) -> object:
    tokens = parts.refresh.list(user_id=request.path["id"])
    shapes = [refresh_token_shape(parts, held) for held in tokens]
    return wire.by_checkpoint(request.query, "tokens", shapes)


@_call(
    "GET",
    "/device-credentials",
    "Retrieve device credentials",
    "read:device_credentials",
)
def _device_credentials(parts: Parts, request: ManagementRequest) -> object:
    kind = request.query.get("type", "refresh_token")
    if kind not in {"refresh_token", "rotating_refresh_token", "public_key"}:
        raise bad_query("type", "Must be a type of device credentials")
    tokens = parts.refresh.list(
        user_id=request.query.get("user_id"), client_id=request.query.get("client_id")
    )
    shapes = [
        {
            "id": "dcr_" + held.id.removeprefix("rt_"),
            "type": kind,
            "user_id": held.user_id,
            "client_id": held.client_id,
        }
        for held in tokens
        if kind == "refresh_token"
    ]
    return wire.by_offset(request.query, "device_credentials", shapes)


@_call("GET", "/roles/{id}/users", "Get a role's users", "read:users")
def _users_of_role(parts: Parts, request: ManagementRequest) -> object:
    """Return who has a role; its id is its name."""
    if request.path["id"] not in ROLES:
        raise ApiError(404, "The role does not exist.", "inexistent_role")
    users = [
        {"user_id": user.sub, "name": user.name, "email": user.email}
        for user in parts.people.all()
        if request.path["id"] in user.roles and not user.blocked
    ]
    return wire.by_offset(request.query, "users", users)


@_call("GET", "/logs", "Search log events", "read:logs")
def _list_logs(parts: Parts, request: ManagementRequest) -> object:
    """Return rows after a checkpoint, or the newest or oldest ones by page."""
    if "from" in request.query or "take" in request.query:
        take = max(wire.number(request.query, "take", 50, 100), 1)
        after = request.query.get("from", "")
        rows = parts.journal.after(after, take)
        last = rows[-1]["log_id"] if rows else after
        query = urlencode({"from": last, "take": take})
        return ManagementAnswer(
            200, rows, {"link": f'<{request.url}?{query}>; rel="next"'}
        )
    order = request.query.get("sort", "date:-1")
    if order not in {"date:1", "date:-1"}:
        raise bad_query("sort", "Must be date:1 or date:-1")
    page = wire.number(request.query, "page", 0, 1000)
    size = wire.number(request.query, "per_page", 50, 100)
    return parts.journal.page(page * size, size, newest_first=order == "date:-1")


@_call("GET", "/logs/{id}", "Get a log event by id", "read:logs", "read:logs_users")
def _get_log(parts: Parts, request: ManagementRequest) -> object:
    row = parts.journal.one(request.path["id"])
    if row is None:
        raise ApiError(404, "Log not found.", "inexistent_log")
    return row


CALLS: Final = tuple(_calls)
"""Every call, in the order of the code above."""
