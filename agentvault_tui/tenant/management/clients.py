"""``/clients``: listed, made, changed, deleted, and given new secrets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agentvault_tui.tenant.clients import (
    DEFAULT_GRANTS,
    DEFAULT_REFRESH,
    Client,
)
from agentvault_tui.tenant.management import paging
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import (
    checked,
    flag,
    integer,
    one_of,
    table,
    tables,
    text,
    texts,
)
from agentvault_tui.tenant.management.credentials import KEY, keep_keys
from agentvault_tui.tenant.management.problems import ApiError, bad_body, no_client
from agentvault_tui.tenant.objects import Document, merged
from agentvault_tui.tenant.parts import Parts

_APP_TYPES: Final = (
    "native",
    "spa",
    "regular_web",
    "non_interactive",
    "resource_server",
)
_METHODS: Final = ("none", "client_secret_post", "client_secret_basic")
_REFRESH: Final = table(
    {
        "rotation_type": one_of("rotating", "non-rotating"),
        "expiration_type": one_of("expiring", "non-expiring"),
        "leeway": integer(0, 3600),
        "token_lifetime": integer(1, 157_788_000),
        "idle_token_lifetime": integer(1, 157_788_000),
        "infinite_token_lifetime": flag,
        "infinite_idle_token_lifetime": flag,
        "policies": tables(
            table({"audience": text(600), "scope": texts()}, "audience", "scope"), 20
        ),
    }
)
_KEYS: Final = tables(table({"id": text(64), **KEY}), 5)
_PRIVILEGED: Final = table(
    {
        "credentials": _KEYS,
        "ip_allowlist": texts(10, 64),
        "grants": tables(
            table(
                {"connection": text(128), "scopes": texts(20)}, "connection", "scopes"
            ),
            5,
        ),
    }
)
_MEMBERS: Final = {
    "name": text(128),
    "description": text(140, 0),
    "app_type": one_of(*_APP_TYPES),
    "is_first_party": flag,
    "oidc_conformant": flag,
    "grant_types": texts(50),
    "token_endpoint_auth_method": one_of(*_METHODS),
    "client_authentication_methods": table(
        {"private_key_jwt": table({"credentials": _KEYS}, "credentials")}
    ),
    "callbacks": texts(100, 2000),
    "allowed_logout_urls": texts(100, 2000),
    "web_origins": texts(100, 2000),
    "client_metadata": table({}),
    "refresh_token": _REFRESH,
    "jwt_configuration": table(
        {"alg": one_of("RS256"), "lifetime_in_seconds": integer(1, 2_592_000)}
    ),
    "resource_server_identifier": text(600),
    "token_exchange": table({"allow_any_profile_of_type": texts()}),
    "token_vault_privileged_access": _PRIVILEGED,
    "agent_id": text(64),
}
_PINNED_SCOPES: Final = 20


class ClientCalls:
    """The calls about clients."""

    def __init__(self, parts: Parts) -> None:
        """Act on the clients of *parts*, and on what they have by being there."""
        self._clients = parts.clients
        self._credentials = parts.credentials
        self._refresh = parts.refresh
        self._consents = parts.consents
        self._apis = parts.apis
        self._connections = parts.connections
        self._settings = parts.settings

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        one = "/clients/{id}"
        read = ("read:clients", "read:client_keys")
        return [
            Endpoint("GET", "/clients", read, "Get clients", self._list),
            Endpoint("POST", "/clients", ("create:clients",), "Create a client",
                     self._add),
            Endpoint("GET", one, read, "Get client by ID", self._get),
            Endpoint("PATCH", one, ("update:clients", "update:client_keys",
                     "update:client_token_vault_privileged_access"),
                     "Update a Client", self._change),
            Endpoint("DELETE", one, ("delete:clients",), "Delete a Client",
                     self._delete),
            Endpoint("POST", f"{one}/rotate-secret", ("update:client_keys",),
                     "Rotate a client secret", self._rotate),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = [shape(client) for client in self._clients.all()]
        for name in ("app_type", "is_first_party"):
            if (wanted := call.query.get(name)) is not None:
                found = [doc for doc in found if str(doc[name]).lower() == wanted]
        page = paging.either(call.query, "clients", found, name="client_id")
        return Answer(200, paging.chosen(call.query, page, "clients"))

    def _get(self, call: Call) -> Answer:
        return Answer(200, paging.chosen(call.query, shape(self._found(call))))

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "name")
        doc = new_client(body)
        _check(doc)
        client, secret = self._clients.add(_without_keys(doc))
        try:
            client = self._with_keys(client, {**client.doc, **_keys(doc)}, body)
        except BaseException:
            self._forget(client)
            raise
        if self._settings.connects_all:
            self._connections.enable_all(client.client_id)
        shown = shape(client)
        return Answer(
            201, shown if secret is None else shown | {"client_secret": secret}
        )

    def _change(self, call: Call) -> Answer:
        client = self._of_store(call)
        body = checked(call.body, _MEMBERS)
        _check_power(call, body)
        for name in _NEEDED:
            if name in body and body[name] is None:
                raise bad_body(name, "Expected a value")
        changed = merged(client.doc, body)
        changed.setdefault("token_endpoint_auth_method", None)
        if body.get("refresh_token") is not None:
            held = client.doc.get("refresh_token") or {}
            changed["refresh_token"] = {**held, **body["refresh_token"]}
        _check(changed)
        return Answer(200, shape(self._with_keys(client, changed, body)))

    def _delete(self, call: Call) -> Answer:
        client = self._clients.find(call.path["id"])
        if client is not None and not client.of_run:
            self._forget(client)
            self._consents.delete_client(client.client_id)
            for held in self._refresh.list(client_id=client.client_id):
                self._refresh.revoke(held.id, at_once=True)
        return Answer(204)

    def _forget(self, client: Client) -> None:
        self._clients.delete(client)
        self._apis.drop_grants("client_id", client.client_id)
        for key in self._credentials.of_client(client.client_id):
            self._credentials.delete(client.client_id, key["id"])

    def _rotate(self, call: Call) -> Answer:
        client = self._of_store(call)
        if client.key_ids or not client.confidential:
            raise ApiError(
                400, "The client does not authenticate with a secret.", "invalid_body"
            )
        secret = self._clients.rotate_secret(client)
        return Answer(200, shape(client) | {"client_secret": secret})

    def _found(self, call: Call) -> Client:
        client = self._clients.find(call.path["id"])
        if client is None:
            raise no_client()
        return client

    def _of_store(self, call: Call) -> Client:
        client = self._found(call)
        if client.of_run:
            raise ApiError(
                403, "The broker's own clients change with its run alone.", "forbidden"
            )
        return client

    def _with_keys(
        self, client: Client, doc: Document, body: Mapping[str, Any]
    ) -> Client:
        """Make a client *doc*, which names the keys that came in *body* by their ids.

        What it had before is not looked at again: a client whose key was deleted can
        still be changed, and so cut off.
        """
        methods = body.get("client_authentication_methods") or {}
        if methods.get("private_key_jwt") is not None:
            kept = keep_keys(
                self._credentials, client, methods["private_key_jwt"]["credentials"]
            )
            doc["client_authentication_methods"] = {
                "private_key_jwt": {"credentials": kept}
            }
            # RFC 7523 keys and a secret exclude each other.
            doc["token_endpoint_auth_method"] = None
        privileged = body.get("token_vault_privileged_access")
        if privileged is not None:
            listed = privileged.get("credentials") or []
            kept = keep_keys(self._credentials, client, listed)
            doc["token_vault_privileged_access"] = {**privileged, "credentials": kept}
        return self._clients.change(client, doc)


_HOLDERS: Final = ("client_authentication_methods", "token_vault_privileged_access")
_NEEDED: Final = (
    "name", "app_type", "grant_types", "is_first_party", "oidc_conformant"
)  # fmt: skip
"""Members that a null does not take away: a client without them is none."""


def new_client(body: Mapping[str, Any]) -> Document:
    """Return *body* with the defaults a client made over this API has."""
    signs = (body.get("client_authentication_methods") or {}).get("private_key_jwt")
    doc: Document = {
        "app_type": "regular_web",
        "is_first_party": True,
        "oidc_conformant": False,
        "grant_types": list(DEFAULT_GRANTS),
        "token_endpoint_auth_method": None if signs else "client_secret_post",
        "callbacks": [],
        "jwt_configuration": {"alg": "RS256", "lifetime_in_seconds": 36_000},
        **{name: value for name, value in body.items() if value is not None},
    }
    doc["refresh_token"] = {**DEFAULT_REFRESH, **(body.get("refresh_token") or {})}
    return doc


def shape(client: Client) -> Document:
    """Return a client as the API shows it: no secret, for none is kept."""
    return {"tenant": "agentvault", "global": False, **client.doc,
            "client_id": client.client_id}  # fmt: skip


def _without_keys(doc: Document) -> Document:
    return {name: value for name, value in doc.items() if name not in _HOLDERS}


def _keys(doc: Document) -> Document:
    return {name: doc[name] for name in _HOLDERS if name in doc}


def _check(doc: Mapping[str, Any]) -> None:
    """Check what holds between members."""
    if doc["app_type"] == "resource_server" and not doc.get(
        "resource_server_identifier"
    ):
        raise bad_body("resource_server_identifier", "Required for this app_type")
    access = doc.get("token_vault_privileged_access")
    if access is None:
        return
    scopes = [s for grant in access.get("grants") or () for s in grant["scopes"]]
    if len(scopes) > _PINNED_SCOPES:
        raise bad_body("token_vault_privileged_access", "At most 20 scopes in all")
    for network in access.get("ip_allowlist") or ():
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise bad_body(
                "token_vault_privileged_access", "ip_allowlist: not an IP or CIDR"
            ) from None


def _check_power(call: Call, body: Iterable[str]) -> None:
    """Hold scopes that reach one member alone to that member."""
    needed = {"update:clients"}
    if set(body) == {"token_vault_privileged_access"}:
        needed = {"update:clients", "update:client_token_vault_privileged_access"}
    if not needed & call.caller.scopes:
        raise ApiError(
            403,
            f"Insufficient scope, expected any of: {','.join(sorted(needed))}",
            "insufficient_scope",
        )
