"""Resource servers: whom access tokens are for, how they look, and who may ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.objects import Document, Objects
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.store import Store
from agentvault_tui.text import visible

Subject = Literal["user", "client"]

OIDC_SCOPES: Final = ("openid", "profile", "email")
OFFLINE: Final = "offline_access"
TRANSACTIONAL: Final = "transactional-authorization-with-mfa"
ME_SCOPES: Final = tuple(
    f"{verb}:me:connected_accounts" for verb in ("create", "read", "delete")
)
_DEFAULTS: Final[Document] = {
    "allow_offline_access": False,
    "skip_consent_for_verifiable_first_party_clients": False,
    "token_lifetime": 86_400,
    "token_lifetime_for_web": 7_200,
    "signing_alg": "RS256",
    "subject_type_authorization": {
        "user": {"policy": "allow_all"},
        "client": {"policy": "require_client_grant"},
    },
}


def new_api(doc: Mapping[str, Any]) -> Document:
    """Return *doc* with Auth0's defaults for what it leaves out."""
    policies = {
        **_DEFAULTS["subject_type_authorization"],
        **(doc.get("subject_type_authorization") or {}),
    }
    return {**_DEFAULTS, **doc, "subject_type_authorization": policies}


@dataclass(frozen=True, slots=True)
class Api:
    """One resource server."""

    doc: Document

    @property
    def identifier(self) -> str:
        """What its tokens have as their audience."""
        return str(self.doc["identifier"])

    @property
    def lifetime(self) -> int:
        """Seconds its access tokens live."""
        return int(self.doc["token_lifetime"])

    @property
    def offline(self) -> bool:
        """Whether refresh tokens are given for it."""
        return bool(self.doc["allow_offline_access"])

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope it knows."""
        return tuple(scope["value"] for scope in self.doc.get("scopes") or ())

    @property
    def rbac(self) -> bool:
        """Whether a user's roles bound what is granted."""
        return bool(self.doc.get("enforce_policies"))

    @property
    def dialect(self) -> str:
        """How its access tokens look."""
        return str(self.doc.get("token_dialect") or "access_token")

    @property
    def transactional(self) -> bool:
        """Whether each authorization takes a second factor on the spot."""
        return bool(self.doc.get("consent_policy") == TRANSACTIONAL)

    @property
    def details_types(self) -> frozenset[str]:
        """The types of ``authorization_details`` it registered (RFC 9396)."""
        listed = self.doc.get("authorization_details") or ()
        return frozenset(item["type"] for item in listed)

    def policy(self, subject: Subject) -> str:
        """Return ``allow_all``, ``deny_all`` or ``require_client_grant``."""
        return str(self.doc["subject_type_authorization"][subject]["policy"])

    def permissions(self, user: User) -> tuple[str, ...]:
        """Return the scopes that *user*'s roles reach.

        Auth0 keeps a list of permissions a role. Here the three roles have a fixed
        meaning: approvers reach everything, operators all but a step-up, viewers what
        reads.
        """
        if "approver" in user.roles:
            return self.scopes
        if "operator" in user.roles:
            return tuple(s for s in self.scopes if not s.startswith("stepup:"))
        if "viewer" in user.roles:
            return tuple(s for s in self.scopes if s.startswith("read:"))
        return ()


class Apis:
    """The resource servers of one store, and the two that every tenant has."""

    def __init__(
        self, store: Store, issuer: str, management_scopes: Iterable[str]
    ) -> None:
        """Know the APIs in *store*, and *issuer*'s own."""
        self.objects = Objects(store, "resource-server")
        self.grants = Objects(store, "client-grant")
        self.management = f"{issuer}api/v2/"
        self.me = f"{issuer}me/"
        self.userinfo = f"{issuer}userinfo"
        self._own = (
            _own("management", "Auth0 Management API", self.management,
                 management_scopes, user="deny_all", client="require_client_grant"),
            _own("me", "Auth0 My Account API", self.me,
                 ME_SCOPES, user="require_client_grant", client="deny_all"),
        )  # fmt: skip

    def find(self, audience: str) -> Api | None:
        """Return the API of that identifier; a trailing slash counts."""
        for api in self._own:
            if api.identifier == audience:
                return api
        doc = self.objects.named(audience)
        return None if doc is None else Api(doc)

    def all(self) -> list[Api]:
        """Return every API, the tenant's own first."""
        return [*self._own, *(Api(doc) for doc in self.objects.all())]

    def asked(self, audience: str | None) -> Api | None:
        """Return the API a request names; None for /userinfo, the default.

        Raises:
            TenantRefusedError: ``access_denied``: there is no such API.
        """
        if audience in {None, self.userinfo}:
            return None
        api = self.find(audience or "")
        if api is None:
            raise TenantRefusedError(
                "access_denied", f"Service not found: {visible(audience, 80)}"
            )
        return api

    def granted(
        self, client: Client, api: Api, subject: Subject
    ) -> frozenset[str] | None:
        """Return the scopes *client* may ask of *api* for *subject*; None: no access.

        Fails closed: a policy this does not know grants nothing.
        """
        policy = api.policy(subject)
        if subject == "user" and policy == "allow_all":
            return frozenset(api.scopes)
        if policy != "require_client_grant":
            return None
        if client.of_run:
            if subject == "client":
                return client.machine_scopes.get(api.identifier)
            # The broker made this client for its own APIs; the two of the tenant
            # itself are none of them.
            own = {self.management, self.me}
            return None if api.identifier in own else frozenset(api.scopes)
        grant = self.grants.named(grant_name(client.client_id, api.identifier, subject))
        if grant is None:
            return None
        if grant.get("allow_all_scopes"):
            return frozenset(api.scopes)
        return frozenset(grant["scope"])

    def drop_grants(self, member: str, value: str) -> None:
        """Forget the client grants of a client or an API that is no more.

        Else an API made again under the same name would be open to who had the old.
        """
        for grant in self.grants.all():
            if grant[member] == value:
                self.grants.delete(grant["id"])

    def details_types(self, client: Client, api: Api | None) -> frozenset[str]:
        """Return the types of details a user may grant *client* on *api*.

        Where the API wants a client grant, that must name them as well.
        """
        if api is None or api.policy("user") != "require_client_grant":
            return frozenset() if api is None else api.details_types
        name = grant_name(client.client_id, api.identifier, "user")
        grant = self.grants.named(name) or {}
        named = grant.get("authorization_details_types") or ()
        return api.details_types.intersection(named)

    def for_user(self, client: Client, api: Api | None, scope: str) -> str:
        """Return what of *scope* a user may grant *client* on *api*.

        Raises:
            TenantRefusedError: ``access_denied``: the client has no access to the API.
        """
        asked = scope.split()
        allowed: frozenset[str] = frozenset()
        if api is not None:
            found = self.granted(client, api, "user")
            if found is None:
                raise self.no_access(client, api)
            allowed = found
        offline = "refresh_token" in client.grants and (api is None or api.offline)
        kept = {*OIDC_SCOPES, *allowed, *([OFFLINE] if offline else [])}
        return " ".join(word for word in dict.fromkeys(asked) if word in kept)

    @staticmethod
    def no_access(client: Client, api: Api) -> TenantRefusedError:
        """Return Auth0's words for a client without a grant."""
        return TenantRefusedError(
            "access_denied",
            f'Client "{client.client_id}" is not authorized to access resource server'
            f' "{api.identifier}".',
        )


def grant_name(client_id: str, audience: str, subject: str) -> str:
    """Return what makes a client grant the only one of its kind."""
    return f"{client_id} {subject} {audience}"


def _own(
    key: str, name: str, identifier: str, scopes: Iterable[str], *, user: str,
    client: str,
) -> Api:  # fmt: skip
    return Api(
        new_api(
            {
                "id": key,
                "name": name,
                "identifier": identifier,
                "is_system": True,
                "scopes": [{"value": scope} for scope in scopes],
                "subject_type_authorization": {
                    "user": {"policy": user},
                    "client": {"policy": client},
                },
            }
        )
    )
