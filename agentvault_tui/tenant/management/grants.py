"""``/grants`` and ``/client-grants``: what users gave clients, and owners did."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.model import new_id
from agentvault_tui.tenant.apis import Apis, grant_name
from agentvault_tui.tenant.clients import Clients
from agentvault_tui.tenant.consents import Consent, Consents
from agentvault_tui.tenant.management import paging
from agentvault_tui.tenant.management.api import Answer, Call, Endpoint
from agentvault_tui.tenant.management.bodies import (
    checked,
    flag,
    one_of,
    text,
    texts,
)
from agentvault_tui.tenant.management.problems import (
    ApiError,
    bad_query,
    no_api,
    no_client,
    not_found,
)
from agentvault_tui.tenant.objects import Document, merged
from agentvault_tui.tenant.refresh import RefreshTokens

_CHANGES: Final = {
    "scope": texts(1000),
    "allow_all_scopes": flag,
    "authorization_details_types": texts(),
    "organization_usage": one_of("deny", "allow", "require"),
    "allow_any_organization": flag,
}
_MEMBERS: Final = {
    "client_id": text(64),
    "audience": text(600),
    "subject_type": one_of("client", "user"),
    **_CHANGES,
}


class UserGrantCalls:
    """The calls about users' grants."""

    def __init__(self, consents: Consents, refresh: RefreshTokens, apis: Apis) -> None:
        """Act on *consents*, and on the *refresh* tokens given under them."""
        self._consents = consents
        self._refresh = refresh
        self._apis = apis

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        gone = ("delete:grants",)
        return [
            Endpoint("GET", "/grants", ("read:grants",), "Get grants", self._list),
            Endpoint("DELETE", "/grants", gone, "Delete grants by user_id",
                     self._delete_of_user),
            Endpoint("DELETE", "/grants/{id}", gone, "Delete a grant", self._delete),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        names = ("user_id", "client_id", "audience")
        found = self._consents.list(**{n: call.query.get(n) for n in names})
        shapes = [
            {
                "id": grant.id,
                # Auth0's spelling.
                "clientID": grant.client_id,
                "user_id": grant.user_id,
                "audience": grant.audience,
                "scope": list(grant.scope),
            }
            for grant in found
        ]
        return Answer(200, paging.by_offset(call.query, "grants", shapes))

    def _delete(self, call: Call) -> Answer:
        self._end(self._consents.delete(call.path["id"]))
        return Answer(204)

    def _delete_of_user(self, call: Call) -> Answer:
        user_id = call.query.get("user_id")
        if not user_id:
            raise bad_query("user_id", "Missing required property: user_id")
        for grant in self._consents.list(user_id=user_id):
            self._end(self._consents.delete(grant.id))
        return Answer(204)

    def _end(self, grant: Consent | None) -> None:
        """End the refresh tokens that were given under a grant."""
        if grant is None:
            return
        audience = "" if grant.audience == self._apis.userinfo else grant.audience
        for held in self._refresh.list(
            user_id=grant.user_id, client_id=grant.client_id, audience=audience
        ):
            self._refresh.revoke(held.id)


class ClientGrantCalls:
    """The calls about what owners let clients ask of APIs."""

    def __init__(self, apis: Apis, clients: Clients) -> None:
        """Act on the client grants of *apis*."""
        self._apis = apis
        self._clients = clients

    def endpoints(self) -> list[Endpoint]:
        """Return the calls."""
        all_, one = "/client-grants", "/client-grants/{id}"
        return [
            Endpoint("GET", all_, ("read:client_grants",),
                     "Get client grants", self._list),
            Endpoint("POST", all_, ("create:client_grants",),
                     "Create a client grant", self._add),
            Endpoint("GET", one, ("read:client_grants",),
                     "Get a client grant", self._get),
            Endpoint("PATCH", one, ("update:client_grants",),
                     "Update a client grant", self._change),
            Endpoint("DELETE", one, ("delete:client_grants",),
                     "Delete a client grant", self._delete),
        ]  # fmt: skip

    def _list(self, call: Call) -> Answer:
        found = self._apis.grants.all()
        for name in ("client_id", "audience", "subject_type"):
            if (wanted := call.query.get(name)) is not None:
                found = [grant for grant in found if grant[name] == wanted]
        return Answer(200, paging.either(call.query, "client_grants", found))

    def _add(self, call: Call) -> Answer:
        body = checked(call.body, _MEMBERS, "client_id", "audience")
        client = self._clients.find(body["client_id"])
        if client is None:
            raise no_client()
        if client.of_run:
            raise ApiError(403, "The broker's own clients get no grants.", "forbidden")
        api = self._apis.find(body["audience"])
        if api is None:
            raise no_api()
        subject = body.get("subject_type") or "client"
        if subject == "client" and api.policy("client") == "deny_all":
            raise ApiError(400, "The API gives clients no access.", "invalid_body")
        grant: Document = {"scope": [], **merged({}, body), "subject_type": subject}
        self._check(grant)
        grant["id"] = new_id("cgr")
        name = grant_name(client.client_id, api.identifier, subject)
        if self._apis.grants.named(name) is not None:
            raise ApiError(
                409, "A resource with the same identifier already exists.",
                "resource_already_exists",
            )  # fmt: skip
        self._apis.grants.add(grant["id"], name, grant)
        return Answer(201, grant)

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._found(call))

    def _change(self, call: Call) -> Answer:
        grant = merged(self._found(call), checked(call.body, _CHANGES))
        grant.setdefault("scope", [])
        self._check(grant)
        self._apis.grants.replace(grant["id"], grant)
        return Answer(200, grant)

    def _delete(self, call: Call) -> Answer:
        self._apis.grants.delete(call.path["id"])
        return Answer(204)

    def _found(self, call: Call) -> Document:
        grant = self._apis.grants.get(call.path["id"])
        if grant is None:
            raise not_found(
                "The client grant does not exist", "inexistent_client_grant"
            )
        return grant

    def _check(self, grant: dict[str, Any]) -> None:
        """Refuse scopes the API does not have."""
        api = self._apis.find(grant["audience"])
        known = set() if api is None else set(api.scopes)
        if unknown := set(grant["scope"]) - known:
            raise ApiError(
                400,
                f"The following scopes are not supported: {','.join(sorted(unknown))}",
                "invalid_scope",
            )
