"""Resource servers, client grants and connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.store import Document, Objects, Store
from agentvault_tui.tenant.users import CONNECTION
from agentvault_tui.text import visible

SubjectType = Literal["user", "client"]

OIDC_SCOPES: Final = ("openid", "profile", "email")
OFFLINE: Final = "offline_access"
ME_SCOPES: Final = tuple(
    f"{verb}:me:connected_accounts" for verb in ("create", "read", "delete")
)
MANAGEMENT_SCOPES: Final = (
    "create:client_grants", "read:client_grants", "update:client_grants",
    "create:clients", "read:clients", "update:clients",
    "read:client_keys", "update:client_keys",
    "read:connections", "update:connections",
    "read:resource_servers", "read:users",
    "read:refresh_tokens", "delete:refresh_tokens", "read:device_credentials",
    "read:logs", "read:logs_users",
)  # fmt: skip
"""The scopes of the Management API: those that its calls ask for."""


@dataclass(frozen=True, slots=True)
class ResourceServer:
    """One resource server (an API, in Auth0's words)."""

    identifier: str
    """The audience of its tokens; a trailing slash counts."""
    name: str
    scopes: tuple[str, ...]
    policies: Mapping[SubjectType, str]
    """``allow_all``, ``deny_all`` or ``require_client_grant``, by kind of subject."""
    lifetime: int = 86_400
    """Seconds its access tokens live."""
    offline: bool = False
    """Whether refresh tokens are issued for it."""

    def shape(self) -> Document:
        """Return it as the Management API shows it."""
        return {
            "id": self.name,
            "name": self.name,
            "identifier": self.identifier,
            "is_system": True,
            "scopes": [{"value": scope} for scope in self.scopes],
        }


class Apis:
    """The tenant's two resource servers, and the client grants for them."""

    def __init__(
        self, store: Store, issuer: str, scopes: Iterable[str] = MANAGEMENT_SCOPES
    ) -> None:
        self.grants = Objects(store, "client-grant")
        self.management = f"{issuer}api/v2/"
        self.me = f"{issuer}me/"
        self.userinfo = f"{issuer}userinfo"
        self._own = [
            ResourceServer(
                self.management,
                "Auth0 Management API",
                tuple(scopes),
                {"user": "deny_all", "client": "require_client_grant"},
            ),
            ResourceServer(
                self.me,
                "Auth0 My Account API",
                ME_SCOPES,
                {"user": "require_client_grant", "client": "deny_all"},
            ),
        ]

    def all(self) -> list[ResourceServer]:
        return self._own

    def find(self, audience: str) -> ResourceServer | None:
        """Return the API of that identifier; a trailing slash counts."""
        return next((api for api in self.all() if api.identifier == audience), None)

    def requested(self, audience: str | None) -> ResourceServer | None:
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
        self, client: Client, api: ResourceServer, subject: SubjectType
    ) -> frozenset[str] | None:
        """Return the scopes *client* may ask of *api* for *subject*; None: no access.

        Fails closed: an unknown policy grants nothing.
        """
        policy = api.policies[subject]
        if subject == "user" and policy == "allow_all":
            return frozenset(api.scopes)
        if policy != "require_client_grant":
            return None
        if client.of_run:
            scopes = client.machine_scopes if subject == "client" else {}
            return scopes.get(api.identifier)
        grant = self.grants.named(grant_name(client.client_id, api.identifier, subject))
        if grant is None:
            return None
        if grant.get("allow_all_scopes"):
            return frozenset(api.scopes)
        return frozenset(grant["scope"])

    def for_user(self, client: Client, api: ResourceServer | None, scope: str) -> str:
        """Return the part of *scope* that a user may grant *client* on *api*.

        Raises:
            TenantRefusedError: ``access_denied``: the client has no access to the API.
        """
        allowed: frozenset[str] = frozenset()
        if api is not None:
            grant = self.granted(client, api, "user")
            if grant is None:
                raise self.no_access(client, api)
            allowed = grant
        offline = "refresh_token" in client.grants and (api is None or api.offline)
        retained = {*OIDC_SCOPES, *allowed, *([OFFLINE] if offline else [])}
        return " ".join(
            word for word in dict.fromkeys(scope.split()) if word in retained
        )

    @staticmethod
    def no_access(client: Client, api: ResourceServer) -> TenantRefusedError:
        """Return Auth0's words for a client without a grant."""
        return TenantRefusedError(
            "access_denied",
            f'Client "{client.client_id}" is not authorized to access resource server'
            f' "{api.identifier}".',
        )


def grant_name(client_id: str, audience: str, subject: str) -> str:
    """Return the unique name of a client grant."""
    return f"{client_id} {subject} {audience}"


WORKSPACE: Final = "workspace"
_SEEDED: Final = "connections_seeded"
_LIFETIME: Final = 600
"""Seconds that the built-in provider's access tokens live, unless its options say."""
_LONGEST: Final = 86_400


class Connections:
    """The connections of one store; the tenant itself is each one's provider."""

    def __init__(self, store: Store) -> None:
        self.objects = Objects(store, "connection")
        with store.transaction():
            if store.fact(_SEEDED) is not None:
                return
            self.add({"name": CONNECTION, "strategy": "auth0"})
            self.add(
                {
                    "name": WORKSPACE,
                    "strategy": "oauth2",
                    "display_name": "Workspace",
                    "options": {"token_lifetime": _LIFETIME},
                    "connected_accounts": {"active": True},
                }
            )
            store.remember(_SEEDED, 1)

    def add(self, doc: Mapping[str, object]) -> Document:
        """Store a new connection.

        Raises:
            ConflictError: there is one of that name.
        """
        made: Document = {
            "id": new_id("con"),
            "options": {},
            "enabled_clients": [],
            "is_domain_connection": False,
            "realms": [doc["name"]],
            "connected_accounts": {"active": False},
            **doc,
        }
        self.objects.add(made["id"], made["name"], made)
        return made

    def for_vault(self, name: str, client: Client) -> Document | None:
        """Return the connection if the vault may be used through it by *client*."""
        doc = self.objects.named(name)
        if doc is None or not doc["connected_accounts"].get("active"):
            return None
        return doc if client.client_id in doc["enabled_clients"] else None

    @staticmethod
    def token_lifetime(doc: Document) -> float:
        """Return how long the provider's access tokens live, in seconds."""
        lifetime = doc["options"].get("token_lifetime")
        whole = isinstance(lifetime, int) and not isinstance(lifetime, bool)
        return (
            float(lifetime) if whole and 0 < lifetime <= _LONGEST else float(_LIFETIME)
        )
