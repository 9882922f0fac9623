"""``/resource-servers``: the APIs that tokens are for."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.model import new_id
from agentvault_tui.tenant.apis import TRANSACTIONAL, Api, Apis, new_api
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
)
from agentvault_tui.tenant.management.problems import ApiError, no_api
from agentvault_tui.tenant.objects import merged

_CHANGES: Final = {
    "name": text(200),
    "scopes": tables(table({"value": text(280), "description": text(500, 0)}, "value"),
                     1000),
    "allow_offline_access": flag,
    "allow_online_access": flag,
    "skip_consent_for_verifiable_first_party_clients": flag,
    "token_lifetime": integer(1, 2_592_000),
    "token_lifetime_for_web": integer(1, 2_592_000),
    "signing_alg": one_of("RS256"),
    "token_dialect": one_of("access_token", "access_token_authz", "rfc9068_profile",
                            "rfc9068_profile_authz"),
    "enforce_policies": flag,
    "subject_type_authorization": table(
        {
            "user": table(
                {"policy": one_of("allow_all", "deny_all", "require_client_grant")},
                "policy",
            ),
            "client": table(
                {"policy": one_of("deny_all", "require_client_grant")}, "policy"
            ),
        }
    ),
    "authorization_details": tables(table({"type": text(255)}, "type")),
    "consent_policy": one_of("standard", TRANSACTIONAL),
    "agent_subject_claims": text(64),
}  # fmt: skip
_MEMBERS: Final = {"identifier": text(600), **_CHANGES}
_PATH: Final = "/resource-servers/{id:path}"


class ApiCalls:
    """The calls about resource servers."""

    def __init__(self, apis: Apis) -> None:
        """Act on *apis*."""
        self._apis = apis

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_ = "/resource-servers"
        return [
            Endpoint("GET", all_, ("read:resource_servers",),
                     "Get resource servers", self._list),
            Endpoint("POST", all_, ("create:resource_servers",),
                     "Create a resource server", self._add),
            Endpoint("GET", _PATH, ("read:resource_servers",),
                     "Get a resource server", self._get),
            Endpoint("PATCH", _PATH, ("update:resource_servers",),
                     "Update a resource server", self._change),
            Endpoint("DELETE", _PATH, ("delete:resource_servers",),
                     "Delete a resource server", self._delete),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = [api.doc for api in self._apis.all()]
        if (wanted := call.query.get("identifiers")) is not None:
            found = [doc for doc in found if doc["identifier"] in wanted.split(",")]
        page = paging.either(call.query, "resource_servers", found)
        return Answer(200, paging.chosen(call.query, page, "resource_servers"))

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._found(call).doc)

    def _add(self, call: Call) -> Answer:
        body = merged({}, checked(call.body, _MEMBERS, "identifier"))
        _distinct(body)
        if self._apis.find(body["identifier"]) is not None:
            raise ApiError(
                409, "A resource server with the same identifier already exists.",
                "resource_server_conflict",
            )  # fmt: skip
        doc = {"id": new_id("api"), "name": body["identifier"], **new_api(body)}
        self._apis.objects.add(doc["id"], doc["identifier"], doc)
        return Answer(201, doc)

    def _change(self, call: Call) -> Answer:
        api = self._own(call)
        body = checked(call.body, _CHANGES)
        _distinct(body)
        if "subject_type_authorization" in body:
            # One policy leaves the other, and a null both: neither opens the API.
            held, said = (d["subject_type_authorization"] for d in (api.doc, body))
            body["subject_type_authorization"] = {**held, **(said or {})}
        doc = new_api(merged(api.doc, body))
        self._apis.objects.replace(doc["id"], doc)
        return Answer(200, doc)

    def _delete(self, call: Call) -> Answer:
        try:
            api = self._own(call)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            self._apis.objects.delete(api.doc["id"])
            self._apis.drop_grants("audience", api.identifier)
        return Answer(204)

    def _found(self, call: Call) -> Api:
        """Find an API by its id, or by its identifier in the path."""
        key = call.path["id"]
        for api in self._apis.all():
            if key in {api.doc["id"], api.identifier}:
                return api
        raise no_api()

    def _own(self, call: Call) -> Api:
        api = self._found(call)
        if api.doc.get("is_system"):
            raise ApiError(403, "The tenant's own APIs do not change.", "forbidden")
        return api


def _distinct(body: dict[str, Any]) -> None:
    values = [scope["value"] for scope in body.get("scopes") or ()]
    if len(set(values)) != len(values) or any(" " in value for value in values):
        raise ApiError(400, "Payload validation error: 'Scopes must be unique words'"
                       " on property scopes.", "invalid_body")  # fmt: skip
