"""``/roles``: kept with their permissions; people's own reach does not follow them."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.model import new_id
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.wire import ApiError
from agentvault_tui.tenant.store import Document, Objects, Store, merged
from agentvault_tui.tenant.users import ROLES, People
from auth0_double.bodies import checked, table, tables, text
from auth0_double.calls import Answer, Call, Endpoint

_MEMBERS: Final = {"name": text(128), "description": text(255, 0)}
_PERMISSION: Final = table(
    {"resource_server_identifier": text(600), "permission_name": text(280)},
    "resource_server_identifier",
    "permission_name",
)


class RoleCalls:
    """The calls about roles.

    What a role reaches on Auth0 is its list of permissions. Here the three roles
    people can have reach what they reach, and these are kept to be read again.
    """

    def __init__(self, store: Store, people: People) -> None:
        """Keep roles in *store*, and tell who of *people* has one."""
        self._store, self._roles = store, Objects(store, "role")
        self._people = people

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_, one, read = "/roles", "/roles/{id}", ("read:roles",)
        permissions = f"{one}/permissions"
        return [
            Endpoint("GET", all_, read, "Get roles", self._list),
            Endpoint("POST", all_, ("create:roles",), "Create a role", self._add),
            Endpoint("GET", one, read, "Get a role", self._get),
            Endpoint("PATCH", one, ("update:roles",), "Update a role", self._change),
            Endpoint("DELETE", one, ("delete:roles",), "Delete a role", self._delete),
            Endpoint("GET", f"{one}/users", ("read:users",), "Get a role's users",
                     self._users),
            Endpoint("GET", permissions, read, "Get permissions granted by role",
                     self._permissions),
            Endpoint("POST", permissions, ("update:roles",),
                     "Associate permissions with a role", self._permit),
            Endpoint("DELETE", permissions, ("update:roles",),
                     "Remove permissions from a role", self._forbid),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        named = call.query.get("name_filter", "").lower()
        found = [
            _shape(doc) for doc in self._roles.all() if named in doc["name"].lower()
        ]
        return Answer(200, wire.by_offset(call.query, "roles", found))

    def _get(self, call: Call) -> Answer:
        return Answer(200, _shape(self._found(call)))

    def _add(self, call: Call) -> Answer:
        body = merged({}, checked(call.body, _MEMBERS, "name"))
        self._check_free(body["name"])
        doc = {"id": new_id("rol"), "description": "", **body, "permissions": []}
        self._roles.add(doc["id"], doc["name"], doc)
        # Recorded: Auth0 answers 200 here, where others of its kind are 201.
        return Answer(200, _shape(doc))

    def _change(self, call: Call) -> Answer:
        before = self._found(call)
        # A role without a name is none: a null leaves it.
        doc = {"description": "", "name": before["name"],
               **merged(before, checked(call.body, _MEMBERS))}  # fmt: skip
        if doc["name"] != before["name"]:
            self._check_free(doc["name"])
            self._store.update("objects", {"name": doc["name"]}, id=doc["id"])
        self._roles.replace(doc["id"], doc)
        return Answer(200, _shape(doc))

    def _delete(self, call: Call) -> Answer:
        self._roles.delete(call.path["id"])
        return Answer(204)

    def _permissions(self, call: Call) -> Answer:
        held = self._found(call)["permissions"]
        return Answer(200, wire.by_offset(call.query, "permissions", held))

    def _permit(self, call: Call) -> Answer:
        doc = self._found(call)
        for one in _named(call):
            if one not in doc["permissions"]:
                doc["permissions"].append(one)
        self._roles.replace(doc["id"], doc)
        return Answer(201, {})

    def _forbid(self, call: Call) -> Answer:
        doc = self._found(call)
        gone = _named(call)
        doc["permissions"] = [one for one in doc["permissions"] if one not in gone]
        self._roles.replace(doc["id"], doc)
        return Answer(204)

    def _users(self, call: Call) -> Answer:
        """Return who has a role; the id of one that people can have is its name."""
        doc = self._roles.get(call.path["id"])
        name = call.path["id"] if doc is None else doc["name"]
        if doc is None and name not in ROLES:
            raise ApiError(404, "The role does not exist.", "inexistent_role")
        found = [
            {"user_id": user.sub, "name": user.name, "email": user.email}
            for user in self._people.all()
            if name in user.roles and not user.blocked
        ]
        return Answer(200, wire.by_offset(call.query, "users", found))

    def _check_free(self, name: str) -> None:
        if self._roles.named(name) is not None:
            raise ApiError(409, "A role with the same name exists.", "role_conflict")

    def _found(self, call: Call) -> Document:
        doc = self._roles.get(call.path["id"])
        if doc is None:
            raise ApiError(404, "The role does not exist.", "inexistent_role")
        return doc


def _named(call: Call) -> list[Document]:
    """Return the permissions that a request is about."""
    members = {"permissions": tables(_PERMISSION, 100)}
    named: list[Document] = checked(call.body, members, "permissions")["permissions"]
    return named


def _shape(doc: Document) -> dict[str, Any]:
    return {name: doc[name] for name in ("id", "name", "description")}
