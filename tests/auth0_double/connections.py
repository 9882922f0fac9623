"""``/connections``: made, shown, changed in every member, and deleted."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from starlette.routing import BaseRoute, Route

from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.calls import change_connection, found_connection
from agentvault_tui.tenant.management.wire import ApiError, bad_body
from agentvault_tui.tenant.my_account import MyAccount
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.store import merged
from auth0_double.bodies import checked, flag, table, text, texts
from auth0_double.calls import Answer, Call, Endpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_CHANGES = {
    "display_name": text(128),
    "options": table({}),
    "enabled_clients": texts(100, 64),
    "is_domain_connection": flag,
    "metadata": table({}),
    "authentication": table({"active": flag}),
    "connected_accounts": table({"active": flag, "cross_app_access": flag}),
}
_MEMBERS = {"name": text(128), "strategy": text(64), **_CHANGES}


class ConnectionCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._connections = parts.connections

    def endpoints(self) -> list[ManagementCall]:
        all_, one = "/connections", "/connections/{id}"
        return [
            Endpoint("POST", all_, ("create:connections",),
                     "Create a connection", self._add),
            Endpoint("GET", one, ("read:connections",), "Get a connection", self._get),
            Endpoint("PATCH", one, ("update:connections",),
                     "Update a connection", self._change),
            Endpoint("DELETE", one, ("delete:connections",),
                     "Delete a connection", self._delete),
        ]  # fmt: skip

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

    def _get(self, call: Call) -> Answer:
        return Answer(200, found_connection(self._parts, call))

    def _change(self, call: Call) -> Answer:
        doc = found_connection(self._parts, call)
        changes = checked(call.body, _CHANGES)
        return Answer(200, change_connection(self._parts, doc, changes))

    def _delete(self, call: Call) -> Answer:
        self._connections.objects.delete(call.path["id"])
        return Answer(204)


def offered(parts: Parts) -> BaseRoute:
    """List connections in the My Account API, as Auth0 does and the tenant does not."""

    def listed(call: Any) -> tuple[int, object]:
        found = [
            {"name": doc["name"], "strategy": doc["strategy"]}
            for doc in parts.connections.objects.all()
            if parts.connections.for_vault(doc["name"], call.client) is not None
        ]
        query = dict(call.request.query_params)
        page = wire.by_checkpoint(
            query, "connections", found, name="name", most=20, usual=10
        )
        return 200, page

    scope, path = "read:me:connected_accounts", "connected-accounts/connections"
    answer = partial(MyAccount(parts)._answer, scope, path, listed)
    return Route(f"/me/v1/{path}", answer)
