"""``/connections``: made, changed, and enabled for clients."""

from __future__ import annotations

import re
from typing import Any, Final

from agentvault_tui.tenant.clients import Clients
from agentvault_tui.tenant.connections import Connections
from agentvault_tui.tenant.management import paging
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import (
    checked,
    flag,
    table,
    text,
    texts,
)
from agentvault_tui.tenant.management.problems import (
    ApiError,
    bad_body,
    no_client,
    not_found,
)
from agentvault_tui.tenant.objects import Document, merged

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_CHANGES: Final = {
    "display_name": text(128),
    "options": table({}),
    "enabled_clients": texts(100, 64),
    "is_domain_connection": flag,
    "metadata": table({}),
    "authentication": table({"active": flag}),
    "connected_accounts": table({"active": flag, "cross_app_access": flag}),
}
_MEMBERS: Final = {"name": text(128), "strategy": text(64), **_CHANGES}
_MOST: Final = 50


class ConnectionCalls:
    """The calls about connections."""

    def __init__(self, connections: Connections, clients: Clients) -> None:
        """Act on *connections*."""
        self._connections = connections
        self._clients = clients

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_, one, read = "/connections", "/connections/{id}", ("read:connections",)
        clients = f"{one}/clients"
        return [
            Endpoint("GET", all_, read, "Get all connections", self._list),
            Endpoint("POST", all_, ("create:connections",),
                     "Create a connection", self._add),
            Endpoint("GET", one, read, "Get a connection", self._get),
            Endpoint("PATCH", one, ("update:connections",),
                     "Update a connection", self._change),
            Endpoint("DELETE", one, ("delete:connections",),
                     "Delete a connection", self._delete),
            Endpoint("GET", clients, read, "Get enabled clients", self._clients_of),
            Endpoint("GET", "/clients/{id}/connections", read,
                     "Get enabled connections for a client", self._of_client),
            Endpoint("PATCH", clients, ("update:connections",),
                     "Update enabled clients", self._enable),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = self._connections.objects.all()
        for name in ("name", "strategy"):
            if (wanted := call.query.get(name)) is not None:
                found = [doc for doc in found if doc[name] == wanted]
        page = paging.either(call.query, "connections", found)
        return Answer(200, paging.chosen(call.query, page, "connections"))

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._found(call))

    def _add(self, call: Call) -> Answer:
        body = merged({}, checked(call.body, _MEMBERS, "name", "strategy"))
        if not _NAME.fullmatch(body["name"]):
            raise bad_body("name", "Letters, digits and hyphens")
        if self._connections.objects.named(body["name"]) is not None:
            raise ApiError(
                409, "A connection with the same name already exists.",
                "connection_conflict",
            )  # fmt: skip
        return Answer(201, self._connections.add(body))

    def _change(self, call: Call) -> Answer:
        doc = merged(self._found(call), checked(call.body, _CHANGES))
        doc.setdefault("options", {})
        doc.setdefault("enabled_clients", [])
        doc.setdefault("connected_accounts", {"active": False})
        self._connections.objects.replace(doc["id"], doc)
        return Answer(200, doc)

    def _delete(self, call: Call) -> Answer:
        self._connections.objects.delete(call.path["id"])
        return Answer(204)

    def _clients_of(self, call: Call) -> Answer:
        listed = [{"client_id": key} for key in self._found(call)["enabled_clients"]]
        page = paging.by_checkpoint(call.query, "clients", listed, name="client_id")
        return Answer(200, page)

    def _of_client(self, call: Call) -> Answer:
        client_id = call.path["id"]
        if self._clients.find(client_id) is None:
            raise no_client()
        found = [
            {name: value for name, value in doc.items() if name != "enabled_clients"}
            for doc in self._connections.objects.all()
            if client_id in doc["enabled_clients"]
        ]
        return Answer(200, paging.by_checkpoint(call.query, "connections", found))

    def _enable(self, call: Call) -> Answer:
        doc = self._found(call)
        enabled = list(doc["enabled_clients"])
        for client_id, status in self._wanted(call.body):
            if status and client_id not in enabled:
                enabled.append(client_id)
            if not status and client_id in enabled:
                enabled.remove(client_id)
        doc["enabled_clients"] = enabled
        self._connections.objects.replace(doc["id"], doc)
        return Answer(204)

    def _wanted(self, body: Any) -> list[tuple[str, bool]]:
        if not isinstance(body, list) or not 0 < len(body) <= _MOST:
            raise ApiError(
                400, f"Payload validation error: 'Expected 1 to {_MOST} items'",
                "invalid_body",
            )  # fmt: skip
        members = {"client_id": text(64), "status": flag}
        wanted = []
        for item in body:
            pair = checked(item, members, "client_id", "status")
            # Taking away must work for a client that is gone; giving must not.
            if pair["status"] and self._clients.find(pair["client_id"]) is None:
                raise no_client()
            wanted.append((pair["client_id"], pair["status"]))
        return wanted

    def _found(self, call: Call) -> Document:
        doc = self._connections.objects.get(call.path["id"])
        if doc is None:
            raise not_found("The connection does not exist", "inexistent_connection")
        return doc
