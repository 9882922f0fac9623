"""``/clients``: every member, and deletion."""

from __future__ import annotations

from agentvault_tui.tenant.clients import AUTHORIZATION_CODE
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.calls import (
    changed_client,
    client_shape,
    kept_client,
    new_client,
)
from agentvault_tui.tenant.parts import Parts
from auth0_double.bodies import (
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
from auth0_double.resource_servers import drop_grants
from auth0_double.settings import TenantSettings

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
    "agent_id": text(64),
}


class ClientCalls:
    def __init__(self, parts: Parts, settings: TenantSettings) -> None:
        self._parts = parts
        self._settings = settings

    def endpoints(self) -> list[ManagementCall]:
        one = "/clients/{id}"
        return [
            Endpoint("POST", "/clients", ("create:clients",), "Create a client",
                     self._add),
            Endpoint("PATCH", one, ("update:clients", "update:client_keys"),
                     "Update a Client", self._change),
            Endpoint("DELETE", one, ("delete:clients",), "Delete a Client",
                     self._delete),
        ]  # fmt: skip

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "name")
        doc = new_client({"grant_types": _GRANTS, **body})
        doc["refresh_token"] = {**_REFRESH, **doc["refresh_token"]}
        client, secret = self._parts.clients.add(doc)
        if self._settings.connects_all:
            connections = self._parts.connections.objects
            for one in connections.all():
                enabled = [*one["enabled_clients"], client.client_id]
                connections.replace(one["id"], {**one, "enabled_clients": enabled})
        given = {} if secret is None else {"client_secret": secret}
        return Answer(201, client_shape(client) | given)

    def _change(self, call: Call) -> Answer:
        client = kept_client(self._parts, call)
        doc = changed_client(client, checked(call.body, _MEMBERS))
        return Answer(200, client_shape(self._parts.clients.change(client, doc)))

    def _delete(self, call: Call) -> Answer:
        parts, client = self._parts, self._parts.clients.find(call.path["id"])
        if client is not None and not client.of_run:
            parts.clients.objects.delete(client.client_id)
            drop_grants(parts.apis, "client_id", client.client_id)
            for held in parts.refresh.list(client_id=client.client_id):
                parts.refresh.revoke(held.id)
        return Answer(204)
