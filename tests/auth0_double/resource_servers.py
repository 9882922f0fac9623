"""``/resource-servers``: the APIs that tokens are for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.model import new_id
from agentvault_tui.tenant.apis import Apis, ResourceServer
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.wire import ApiError, no_api
from agentvault_tui.tenant.store import Document, Objects, Store, merged
from auth0_double.bodies import checked, flag, integer, one_of, table, tables, text
from auth0_double.calls import Answer, Call, Endpoint

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
    "consent_policy": one_of("standard", "transactional-authorization-with-mfa"),
    "agent_subject_claims": text(64),
}  # fmt: skip
_MEMBERS: Final = {"identifier": text(600), **_CHANGES}
_PATH: Final = "/resource-servers/{id:path}"
_ALL_VERBS: Final = (
    "client_grants", "clients", "connections", "resource_servers", "users",
    "actions", "roles",
)  # fmt: skip
SCOPES: Final = (
    *(f"{verb}:{what}" for what in _ALL_VERBS
      for verb in ("create", "read", "update", "delete")),
    "read:client_keys", "update:client_keys",
    "read:refresh_tokens", "delete:refresh_tokens",
    "read:device_credentials", "delete:device_credentials",
    "read:guardian_factors", "update:guardian_factors",
    "read:mfa_policies", "update:mfa_policies",
    "read:tenant_settings", "update:tenant_settings",
    "read:prompts",
    "read:logs", "read:logs_users",
)  # fmt: skip
"""The scopes of Auth0's Management API, as far as the double has its calls."""


_DEFAULTS: Final[Document] = {
    "allow_offline_access": False,
    "token_lifetime": 86_400,
    "signing_alg": "RS256",
    "subject_type_authorization": {
        "user": {"policy": "allow_all"},
        "client": {"policy": "require_client_grant"},
    },
}


def new_api(doc: Document) -> Document:
    """Return *doc* with Auth0's defaults for what it leaves out."""
    policies = {
        **_DEFAULTS["subject_type_authorization"],
        **(doc.get("subject_type_authorization") or {}),
    }
    return {**_DEFAULTS, **doc, "subject_type_authorization": policies}


@dataclass(frozen=True, slots=True)
class StoredApi(ResourceServer):
    """One that an administrator made."""

    doc: Document = field(default_factory=dict)

    def shape(self) -> Document:
        return self.doc


def stored(doc: Document) -> StoredApi:
    policies = doc["subject_type_authorization"]
    return StoredApi(
        doc["identifier"],
        doc["name"],
        tuple(scope["value"] for scope in doc.get("scopes") or ()),
        {subject: one["policy"] for subject, one in policies.items()},
        doc["token_lifetime"],
        doc["allow_offline_access"],
        doc,
    )


class DoubleApis(Apis):
    """The tenant's own APIs, and those that an administrator made."""

    def __init__(self, store: Store, issuer: str) -> None:
        super().__init__(store, issuer, SCOPES)
        self.objects = Objects(store, "resource-server")

    def all(self) -> list[ResourceServer]:
        return [*super().all(), *map(stored, self.objects.all())]


def drop_grants(apis: Apis, member: str, value: str) -> None:
    """Forget the client grants of a client or an API that is no more."""
    for grant in apis.grants.all():
        if grant[member] == value:
            apis.grants.delete(grant["id"])


class ApiCalls:
    """The calls about resource servers."""

    def __init__(self, apis: DoubleApis) -> None:
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
        found = [api.shape() for api in self._apis.all()]
        if (wanted := call.query.get("identifiers")) is not None:
            found = [doc for doc in found if doc["identifier"] in wanted.split(",")]
        return Answer(200, wire.listed(call.query, "resource_servers", found))

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._found(call).shape())

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
            held, said = (d["subject_type_authorization"] for d in (api, body))
            body["subject_type_authorization"] = {**held, **(said or {})}
        doc = new_api(merged(api, body))
        self._apis.objects.replace(doc["id"], doc)
        return Answer(200, doc)

    def _delete(self, call: Call) -> Answer:
        try:
            api = self._own(call)
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            self._apis.objects.delete(api["id"])
            drop_grants(self._apis, "audience", api["identifier"])
        return Answer(204)

    def _found(self, call: Call) -> ResourceServer:
        """Find an API by its id, or by its identifier in the path."""
        key = call.path["id"]
        for api in self._apis.all():
            if key in {api.shape()["id"], api.identifier}:
                return api
        raise no_api()

    def _own(self, call: Call) -> Document:
        doc = self._found(call).shape()
        if doc.get("is_system"):
            raise ApiError(403, "The tenant's own APIs do not change.", "forbidden")
        return doc


def _distinct(body: dict[str, Any]) -> None:
    values = [scope["value"] for scope in body.get("scopes") or ()]
    if len(set(values)) != len(values) or any(" " in value for value in values):
        raise ApiError(400, "Payload validation error: 'Scopes must be unique words'"
                       " on property scopes.", "invalid_body")  # fmt: skip
