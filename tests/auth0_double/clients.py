"""``/clients`` and their keys: every member, privileged workers, and deletion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentvault_tui.clock import parse_iso
from agentvault_tui.tenant.clients import AUTHORIZATION_CODE, Client
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.calls import (
    changed_client,
    client_shape,
    kept_client,
    new_client,
)
from agentvault_tui.tenant.management.wire import bad_body, not_found
from agentvault_tui.tenant.objects import Document
from agentvault_tui.tenant.parts import Parts
from auth0_double.bodies import (
    Check,
    checked,
    flag,
    integer,
    one_of,
    table,
    tables,
    text,
    texts,
)
from auth0_double.calls import Answer, Call, Endpoint
from auth0_double.credentials import ALGORITHMS, Credentials
from auth0_double.resource_servers import drop_grants
from auth0_double.settings import TenantSettings

WORKER = "token_vault_privileged_access"
_GRANTS = [AUTHORIZATION_CODE, "implicit", "refresh_token", "client_credentials"]
_REFRESH = {
    "rotation_type": "non-rotating",
    "expiration_type": "non-expiring",
    "leeway": 0,
    "token_lifetime": 31_557_600,
    "infinite_token_lifetime": True,
    "infinite_idle_token_lifetime": True,
    "idle_token_lifetime": 2_592_000,
}


def _date(value: Any) -> str | None:
    try:
        parse_iso(value)
    except (ValueError, TypeError, OverflowError):
        return "Expected an RFC 3339 date"
    return None


_KEY: Mapping[str, Check] = {
    "credential_type": one_of("public_key"),
    "name": text(128),
    "pem": text(8000),
    "alg": one_of(*ALGORITHMS),
    "expires_at": _date,
}
_MEMBERS = {
    "name": text(128),
    "description": text(140, 0),
    "app_type": one_of(
        "native", "spa", "regular_web", "non_interactive", "resource_server"
    ),
    "is_first_party": flag,
    "oidc_conformant": flag,
    "grant_types": texts(50),
    "token_endpoint_auth_method": one_of(
        "none", "client_secret_post", "client_secret_basic"
    ),
    "callbacks": texts(100, 2000),
    "allowed_logout_urls": texts(100, 2000),
    "web_origins": texts(100, 2000),
    "client_metadata": table({}),
    "refresh_token": table(
        {
            "rotation_type": one_of("rotating", "non-rotating"),
            "expiration_type": one_of("expiring", "non-expiring"),
            "leeway": integer(0, 3600),
            "token_lifetime": integer(1, 157_788_000),
            "idle_token_lifetime": integer(1, 157_788_000),
            "infinite_token_lifetime": flag,
            "infinite_idle_token_lifetime": flag,
            "policies": tables(
                table({"audience": text(600), "scope": texts()}, "audience", "scope"),
                20,
            ),
        }
    ),
    "jwt_configuration": table(
        {"alg": one_of("RS256"), "lifetime_in_seconds": integer(1, 2_592_000)}
    ),
    "resource_server_identifier": text(600),
    "token_exchange": table({"allow_any_profile_of_type": texts()}),
    WORKER: table(
        {
            "credentials": tables(table({"id": text(64), **_KEY}), 5),
            "ip_allowlist": texts(10, 64),
            "grants": tables(
                table(
                    {"connection": text(128), "scopes": texts(20)},
                    "connection",
                    "scopes",
                ),
                5,
            ),
        }
    ),
    "agent_id": text(64),
}


class ClientCalls:
    def __init__(
        self, parts: Parts, settings: TenantSettings, credentials: Credentials
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._credentials = credentials

    def endpoints(self) -> list[ManagementCall]:
        one, keys = "/clients/{id}", "/clients/{id}/credentials"
        read = ("read:client_credentials",)
        return [
            Endpoint("POST", "/clients", ("create:clients",), "Create a client",
                     self._add),
            Endpoint("PATCH", one, ("update:clients", "update:client_keys",
                     f"update:client_{WORKER}"), "Update a Client", self._change),
            Endpoint("DELETE", one, ("delete:clients",), "Delete a Client",
                     self._delete),
            Endpoint("GET", keys, read, "Get client credentials", self._keys),
            Endpoint("POST", keys, ("create:client_credentials",),
                     "Create a client credential", self._add_key),
            Endpoint("GET", f"{keys}/{{key}}", read, "Get client credential details",
                     self._get_key),
            Endpoint("DELETE", f"{keys}/{{key}}", ("delete:client_credentials",),
                     "Delete a client credential", self._delete_key),
        ]  # fmt: skip

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "name")
        doc = new_client({"grant_types": _GRANTS, **body})
        doc["refresh_token"] = {**_REFRESH, **doc["refresh_token"]}
        worker = doc.pop(WORKER, None)
        client, secret = self._parts.clients.add(doc)
        if worker is not None:
            doc = {**client.doc, WORKER: self._with_keys(client, worker)}
            client = self._parts.clients.change(client, doc)
        if self._settings.connects_all:
            connections = self._parts.connections.objects
            for one in connections.all():
                enabled = [*one["enabled_clients"], client.client_id]
                connections.replace(one["id"], {**one, "enabled_clients": enabled})
        given = {} if secret is None else {"client_secret": secret}
        return Answer(201, client_shape(client) | given)

    def _change(self, call: Call) -> Answer:
        client = kept_client(self._parts, call)
        body = checked(call.body, _MEMBERS)
        if body.get(WORKER) is not None:
            body[WORKER] = self._with_keys(client, body[WORKER])
        doc = changed_client(client, body)
        return Answer(200, client_shape(self._parts.clients.change(client, doc)))

    def _delete(self, call: Call) -> Answer:
        parts, client = self._parts, self._parts.clients.find(call.path["id"])
        if client is not None and not client.of_run:
            parts.clients.objects.delete(client.client_id)
            drop_grants(parts.apis, "client_id", client.client_id)
            for held in parts.refresh.list(client_id=client.client_id):
                parts.refresh.revoke(held.id)
        return Answer(204)

    def _with_keys(self, client: Client, worker: Mapping[str, Any]) -> Document:
        """Return a worker's access, its keys named by their ids."""
        kept = []
        for item in worker.get("credentials") or []:
            held = item.get("id") and self._credentials.find(
                client.client_id, item["id"]
            )
            if item.get("id") and held is None:
                raise bad_body("credentials", "Unknown credential id")
            kept.append({"id": (held or self._keep(client, item))["id"]})
        return {**worker, "credentials": kept}

    def _keep(self, client: Client, body: Mapping[str, Any]) -> Document:
        return self._credentials.add(
            client.client_id,
            body.get("name") or "",
            body["pem"],
            body.get("alg") or "RS256",
            body.get("expires_at"),
        )

    def _keys(self, call: Call) -> Answer:
        client = kept_client(self._parts, call)
        found = self._credentials.of_client(client.client_id)
        return Answer(200, list(map(_key_shape, found)))

    def _add_key(self, call: Call) -> Answer:
        body = checked(call.body, _KEY, "credential_type", "pem")
        return Answer(201, _key_shape(self._keep(kept_client(self._parts, call), body)))

    def _get_key(self, call: Call) -> Answer:
        doc = self._credentials.find(call.path["id"], call.path["key"])
        if doc is None:
            raise not_found("The credential does not exist", "inexistent_credential")
        return Answer(200, _key_shape(doc))

    def _delete_key(self, call: Call) -> Answer:
        self._get_key(call)
        self._credentials.delete(call.path["id"], call.path["key"])
        return Answer(204)


def _key_shape(doc: Document) -> Document:
    hidden = {"client_id", "pem"}
    return {name: value for name, value in doc.items()
            if name not in hidden and value is not None}  # fmt: skip
