"""``/actions``: code kept, built, deployed and bound; nothing here runs it."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.model import new_id
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.wire import ApiError, bad_body
from agentvault_tui.tenant.store import Document, Objects, Store
from auth0_double.bodies import checked, flag, one_of, table, tables, text
from auth0_double.calls import Answer, Call, Endpoint

TRIGGERS: Final = {
    "post-login": "v3",
    "credentials-exchange": "v2",
    "custom-token-exchange": "v1",
}
_RUNTIMES: Final = ("node22", "node18")
_CODE: Final = 100_000
_PENDING, _BUILDING = 0.5, 1.0
"""Seconds after which a change is being built, and is built."""
_MEMBERS: Final = {
    "name": text(255),
    "supported_triggers": tables(table({"id": text(64), "version": text(8)}, "id"), 1),
    "code": text(_CODE),
    "dependencies": tables(table({"name": text(214), "version": text(64)}, "name"), 10),
    "runtime": one_of(*_RUNTIMES),
    "secrets": tables(table({"name": text(128), "value": text(4096)}, "name"), 30),
    "deploy": flag,
}
_BINDING: Final = {
    "ref": table(
        {"type": one_of("action_id", "action_name", "binding_id"), "value": text(255)},
        "type",
        "value",
    ),
    "display_name": text(255),
}
_MOST, _BOUND = 100, 20


class ActionCalls:
    """The calls about Actions.

    What they do on Auth0 this tenant does by itself: a device login always takes a
    second factor, and its time and the user's roles stand in the ID token.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        """Keep Actions in *store*."""
        self._actions = Objects(store, "action")
        self._bindings = Objects(store, "binding")
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_, one = "/actions/actions", "/actions/actions/{id}"
        triggers = "/actions/triggers"
        bindings, read = f"{triggers}/{{trigger}}/bindings", ("read:actions",)
        return [
            Endpoint("GET", all_, read, "Get actions", self._list),
            Endpoint("POST", all_, ("create:actions",), "Create an action", self._add),
            Endpoint("GET", one, read, "Get an action", self._get),
            Endpoint("PATCH", one, ("update:actions",), "Update an action",
                     self._change),
            Endpoint("DELETE", one, ("delete:actions",), "Delete an action",
                     self._delete),
            Endpoint("POST", f"{one}/deploy", ("create:actions",),
                     "Deploy an action", self._deploy),
            Endpoint("GET", triggers, read, "Get triggers", self._triggers),
            Endpoint("GET", bindings, read, "Get trigger bindings", self._bound),
            Endpoint("PATCH", bindings, ("update:actions",),
                     "Update trigger bindings", self._bind),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = [self._shape(doc) for doc in self._actions.all()]
        if (trigger := call.query.get("triggerId")) is not None:
            found = [d for d in found if d["supported_triggers"][0]["id"] == trigger]
        if (name := call.query.get("actionName")) is not None:
            found = [doc for doc in found if doc["name"] == name]
        return Answer(200, _paged(call, "actions", found))

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._shape(self._found(call)))

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "name", "supported_triggers")
        trigger = (body["supported_triggers"] or [{"id": ""}])[0]["id"]
        if trigger not in TRIGGERS:
            raise bad_body("supported_triggers", "Unknown trigger")
        if len(self._actions.all()) >= _MOST:
            raise ApiError(409, "There are too many actions.", "too_many_entities")
        if self._actions.named(body["name"]) is not None:
            raise ApiError(409, "An action with that name exists.", "action_conflict")
        now = iso(self._clock.now())
        doc: Document = {
            "id": new_id("act"),
            "name": body["name"],
            "supported_triggers": [{"version": TRIGGERS[trigger],
                                    **body["supported_triggers"][0]}],
            "created_at": now,
            "updated_at": now,
            "code": body.get("code") or "",
            "dependencies": body.get("dependencies") or [],
            "runtime": body.get("runtime") or _RUNTIMES[0],
            "secrets": _names(body.get("secrets"), now),
            "deploy_when_built": bool(body.get("deploy")),
            "deployed_version": None,
        }  # fmt: skip
        self._actions.add(doc["id"], doc["name"], doc)
        return Answer(201, self._shape(doc))

    def _change(self, call: Call) -> Answer:
        doc = self._found(call)
        body = checked(call.body, _MEMBERS)
        for fixed in ("name", "supported_triggers", "deploy"):
            body.pop(fixed, None)
        now = iso(self._clock.now())
        if body.get("secrets") is not None:
            body["secrets"] = _names(body["secrets"], now)
        doc |= {name: value for name, value in body.items() if value is not None}
        doc["updated_at"] = now
        self._actions.replace(doc["id"], doc)
        return Answer(200, self._shape(doc))

    def _delete(self, call: Call) -> Answer:
        key = call.path["id"]
        bound = [
            t for t in TRIGGERS if key in {b["action_id"] for b in self._list_of(t)}
        ]
        if bound and not wire.flagged(call.query, "force"):
            raise ApiError(
                409, "The action is bound to a trigger; use force.", "action_bound"
            )
        for trigger in bound:
            left = [b for b in self._list_of(trigger) if b["action_id"] != key]
            self._bindings.replace(trigger, {"bindings": left})
        self._actions.delete(key)
        return Answer(204)

    def _deploy(self, call: Call) -> Answer:
        doc = self._found(call)
        if self._status(doc) != "built":
            # Auth0's own words: its deploy CLI waits for the build when it reads them.
            message = "A draft must be in the 'built' state before it can be deployed."
            raise ApiError(400, message, None)
        return Answer(200, self._version(self._deployed(doc)))

    def _triggers(self, _: Call) -> Answer:
        listed = [
            {"id": key, "version": version, "status": "CURRENT",
             "runtimes": list(_RUNTIMES), "default_runtime": _RUNTIMES[0]}
            for key, version in TRIGGERS.items()
        ]  # fmt: skip
        return Answer(200, {"triggers": listed})

    def _bound(self, call: Call) -> Answer:
        trigger = self._trigger(call)
        shapes = [self._binding(trigger, bound) for bound in self._list_of(trigger)]
        return Answer(200, _paged(call, "bindings", shapes))

    def _bind(self, call: Call) -> Answer:
        """Replace the whole ordered list, each binding with a new id."""
        trigger = self._trigger(call)
        check = tables(table(_BINDING, "ref"), _BOUND)
        body = checked(call.body, {"bindings": check}, "bindings")
        made = []
        for item in body["bindings"]:
            action = self._named(trigger, item["ref"])
            if action["deployed_version"] is None:
                raise ApiError(
                    400, f"Action {action['id']} is not deployed.", "invalid_body"
                )
            made.append(
                {"id": new_id("bnd"), "action_id": action["id"],
                 "display_name": item.get("display_name") or action["name"],
                 "created_at": iso(self._clock.now())}
            )  # fmt: skip
        if self._bindings.get(trigger) is None:
            self._bindings.add(trigger, trigger, {"bindings": made})
        else:
            self._bindings.replace(trigger, {"bindings": made})
        return Answer(200, {"bindings": [self._binding(trigger, b) for b in made]})

    def _named(self, trigger: str, ref: dict[str, str]) -> Document:
        found = None
        if ref["type"] == "action_id":
            found = self._get_ready(ref["value"])
        elif ref["type"] == "action_name":
            doc = self._actions.named(ref["value"])
            found = None if doc is None else self._get_ready(doc["id"])
        else:
            for bound in self._list_of(trigger):
                if bound["id"] == ref["value"]:
                    found = self._get_ready(bound["action_id"])
        if found is None or found["supported_triggers"][0]["id"] != trigger:
            raise bad_body("bindings", "Unknown action for this trigger")
        return found

    def _found(self, call: Call) -> Document:
        doc = self._get_ready(call.path["id"])
        if doc is None:
            # Recorded without an errorCode.
            raise ApiError(404, "That action was not found.", None)
        return doc

    def _get_ready(self, key: str) -> Document | None:
        """Return an Action, deployed by now if it was to be when built."""
        doc = self._actions.get(key)
        if (
            doc is not None
            and doc["deploy_when_built"]
            and self._status(doc) == "built"
        ):
            doc["deploy_when_built"] = False
            return self._deployed(doc)
        return doc

    def _trigger(self, call: Call) -> str:
        trigger = call.path["trigger"]
        if trigger not in TRIGGERS:
            raise ApiError(404, "That trigger was not found.", None)
        return trigger

    def _list_of(self, trigger: str) -> list[Document]:
        held = self._bindings.get(trigger)
        return [] if held is None else list(held["bindings"])

    def _status(self, doc: Document) -> str:
        age = (self._clock.now() - parse_iso(doc["updated_at"])).total_seconds()
        if 0 <= age < _PENDING:
            return "pending"
        return "building" if 0 <= age < _BUILDING else "built"

    def _deployed(self, doc: Document) -> Document:
        before = doc["deployed_version"]
        now = iso(self._clock.now())
        doc["deployed_version"] = {
            "id": new_id("ver"),
            "number": 1 if before is None else before["number"] + 1,
            "built_at": doc["updated_at"],
            "created_at": now,
        }
        self._actions.replace(doc["id"], doc)
        return doc

    def _version(self, doc: Document) -> Document:
        return {
            **doc["deployed_version"],
            "action_id": doc["id"],
            "code": doc["code"],
            "runtime": doc["runtime"],
            "dependencies": doc["dependencies"],
            "secrets": doc["secrets"],
            "status": "built",
            # As recorded: the answer is older than what it does.
            "deployed": False,
            "action": {"id": doc["id"], "name": doc["name"],
                       "supported_triggers": doc["supported_triggers"],
                       "all_changes_deployed": True},
        }  # fmt: skip

    def _shape(self, doc: Document) -> Document:
        version = doc["deployed_version"]
        shown = {
            name: value for name, value in doc.items() if name != "deploy_when_built"
        }
        return {
            **shown,
            "status": self._status(doc),
            "all_changes_deployed": version is not None
            and version["built_at"] == doc["updated_at"],
        }

    def _binding(self, trigger: str, bound: Document) -> Document:
        action = self._actions.get(bound["action_id"])
        return {
            "id": bound["id"],
            "trigger_id": trigger,
            "action": None if action is None else self._shape(action),
            "created_at": bound["created_at"],
            "updated_at": bound["created_at"],
            "display_name": bound["display_name"],
        }


def _names(secrets: list[Document] | None, now: str) -> list[Document]:
    """Keep the names alone: nothing here runs the code that would use the values."""
    return [{"name": item["name"], "updated_at": now} for item in secrets or ()]


def _paged(call: Call, key: str, items: list[Document]) -> Any:
    """Return a page; this surface always says the totals."""
    page = wire.number(call.query, "page", 0, 1000)
    size = wire.number(call.query, "per_page", 50, 100)
    shown = items[page * size : (page + 1) * size]
    return {"total": len(items), "page": page, "per_page": size, key: shown}
