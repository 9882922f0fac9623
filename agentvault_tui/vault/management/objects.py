"""The objects of the Management API, and the calls each kind takes.

A refusal names the needed scope; answers have no secrets in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError, TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.api import Purpose, Query, TenantApi, Value
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import (
    delete_at,
    settled,
    strings,
    text,
    without_secrets,
)
from agentvault_tui.vault.reply import Json

_BINDINGS: Final = "actions/triggers/{}/bindings"
_BUILD: Final = 120.0
"""Seconds. Auth0's builds were seen to take 45, and its deploy CLI waits as long."""


@dataclass(frozen=True)
class ObjectKind:
    """One kind of object: its path, its name, and the calls every kind has."""

    where: str
    """Its path, also the name its rows are listed under and its scopes have."""
    noun: str
    identity: str = "id"
    """The member that names an object."""
    by_checkpoint: bool = False
    """How its list is paged: by a mark, or by number."""
    query: Query = field(default_factory=dict)
    """Sent with each reading."""

    @property
    def scope(self) -> str:
        """Its name in scopes and lists, as in ``read:client_grants``."""
        return self.where.rpartition("/")[2].replace("-", "_")

    async def every(self, api: TenantApi, **query: Value) -> list[Json]:
        """Return every object that *query* lets through, of the tenant's own too."""
        params = {**self.query, **query}
        purpose = Purpose(f"list its {self.noun}s", f"read:{self.scope}")
        if self.by_checkpoint:
            rows = api.by_checkpoint(
                self.where, self.scope, query=params, purpose=purpose
            )
        else:
            # Auth0 refuses the parameter where a list has no totals.
            rows = api.by_page(
                self.where,
                self.scope,
                query=params,
                totals=self is not actions,
                purpose=purpose,
            )
        return [without_secrets(row) async for row in rows]

    async def get(self, api: TenantApi, identity: str) -> Json:
        """Return one object.

        Raises:
            TenantNotFoundError: there is none.
        """
        reply = await api.request(
            "GET",
            f"{self.where}/{path(identity)}",
            query=self.query,
            purpose=self._purpose("show", "read"),
        )
        return without_secrets(reply.json())

    async def create(self, api: TenantApi, wanted: Mapping[str, object]) -> Json:
        """Make an object (201; 200 where Auth0 does not say so)."""
        return without_secrets(await self._created(api, wanted))

    async def patch(
        self, api: TenantApi, identity: str, changes: Mapping[str, object]
    ) -> Json:
        """Change an object (200); a member that is an object is replaced whole."""
        reply = await api.request(
            "PATCH",
            f"{self.where}/{path(identity)}",
            body=dict(changes),
            purpose=self._purpose("change", "update"),
        )
        return without_secrets(reply.json())

    async def delete(self, api: TenantApi, identity: str) -> bool:
        """Delete an object for good (204); return whether it existed."""
        where = f"{self.where}/{path(identity)}"
        return await delete_at(api, where, self._purpose("delete", "delete"))

    def _purpose(self, verb: str, right: str) -> Purpose:
        return Purpose(f"{verb} the {self.noun}", f"{right}:{self.scope}")

    async def _created(self, api: TenantApi, wanted: Mapping[str, object]) -> Json:
        reply = await api.request(
            "POST",
            self.where,
            body=dict(wanted),
            expect=(200, 201),
            purpose=self._purpose("make", "create"),
        )
        made = reply.json()
        text(made, self.identity)
        return made


class ClientKind(ObjectKind):
    """Applications, their secrets and connections (``/clients``)."""

    async def register(
        self, api: TenantApi, settings: Mapping[str, object]
    ) -> tuple[Json, Secret | None]:
        """Make a client (201); return it and its secret, which is shown this once.

        Set ``oidc_conformant`` yourself: Auth0's default here is false.
        """
        made = await self._created(api, settings)
        secret = made.get("client_secret")
        secret_kept = Secret(secret) if isinstance(secret, str) else None
        return without_secrets(made), secret_kept

    async def rotate_secret(self, api: TenantApi, client_id: str) -> Secret:
        """Give a client a new secret (200); the old one ends at once.

        Sent again when its answer was lost: only so is the new secret known.
        """
        reply = await api.request(
            "POST",
            path("clients", client_id, "rotate-secret"),
            purpose=Purpose("rotate the client's secret", "update:client_keys"),
            repeatable=True,
        )
        return Secret(text(reply.json(), "client_secret"))

    async def add_key(self, api: TenantApi, client_id: str, pem: str) -> str:
        """Give a client a public key for RS256 (201); return its id."""
        key = {"credential_type": "public_key", "name": "AgentVault", "pem": pem}
        reply = await api.request(
            "POST",
            path("clients", client_id, "credentials"),
            body={**key, "alg": "RS256"},
            expect=(201,),
            purpose=Purpose("add a key to the client", "create:client_credentials"),
        )
        return text(reply.json(), "id")

    async def connections(self, api: TenantApi, client_id: str) -> list[str]:
        """Return the names of a client's connections, and nothing else of them."""
        rows = api.by_checkpoint(
            path("clients", client_id, "connections"),
            "connections",
            query={"fields": "id,name", "include_fields": True},
            take=50,
            purpose=Purpose("list the client's connections", "read:connections"),
        )
        return [str(row.get("name")) async for row in rows]


class ConnectionKind(ObjectKind):
    """Sign-ins and connectable accounts (``/connections``).

    ``options`` are replaced whole by a change, and hold the provider's secret.
    """

    async def clients(self, api: TenantApi, connection_id: str) -> list[str]:
        """Return the ids of the clients it is enabled for."""
        rows = api.by_checkpoint(
            path("connections", connection_id, "clients"),
            "clients",
            purpose=Purpose("list the connection's clients", "read:connections"),
        )
        return [
            row["client_id"]
            async for row in rows
            if isinstance(row.get("client_id"), str)
        ]

    async def set_clients(
        self, api: TenantApi, connection_id: str, enabled: Mapping[str, bool]
    ) -> None:
        """Enable or cut clients of a connection (204)."""
        await api.request(
            "PATCH",
            path("connections", connection_id, "clients"),
            body=[{"client_id": one, "status": on} for one, on in enabled.items()],
            expect=(200, 204),
            purpose=Purpose("change the connection's clients", "update:connections"),
        )


class ClientGrantKind(ObjectKind):
    """Which client may use which API (``/client-grants``).

    Tenants were seen to store another kind than was sent, so writes are read again.
    """

    async def create(self, api: TenantApi, wanted: Mapping[str, object]) -> Json:
        """Let a client use an API (201), and read it again.

        Raises:
            TenantRefusedError: ``stored_otherwise``: with another ``subject_type`` or
                other scopes than were sent.
        """
        made = await self._created(api, wanted)
        return await self._stored(api, made["id"], wanted)

    async def patch(
        self, api: TenantApi, identity: str, changes: Mapping[str, object]
    ) -> Json:
        """Change a client grant (200), and read it again as `create` does."""
        changed = await super().patch(api, identity, changes)
        unchanged = {name: changed.get(name) for name in ("client_id", "audience")}
        return await self._stored(api, identity, {**unchanged, **changes})

    async def _stored(
        self, api: TenantApi, identity: str, wanted: Mapping[str, Any]
    ) -> Json:
        rows = await self.every(
            api, client_id=wanted.get("client_id"), audience=wanted.get("audience")
        )
        for row in rows:
            if row.get("id") == identity:
                for name in ("subject_type", "scope"):
                    _compare(name, wanted, row)
                return row
        raise TenantUnreachableError(
            "the tenant does not list the client grant it just stored", "try again"
        )


def _compare(name: str, wanted: Mapping[str, object], row: Json) -> None:
    expected, actual = wanted.get(name), row.get(name)
    if expected is None or expected == actual:
        return
    if isinstance(expected, list) and sorted(expected) == sorted(strings(actual)):
        return
    raise TenantRefusedError(
        "stored_otherwise",
        f"the tenant stored the client grant with another {name} than was sent",
        "delete the client grant in the dashboard and make it there",
    )


class RoleKind(ObjectKind):
    """The rights of people, by name (``/roles``)."""

    async def held(self, api: TenantApi, role_id: str, sub: str = "") -> bool:
        """Check whether anybody has the role, or the person with that subject."""
        rows = api.by_page(
            path("roles", role_id, "users"),
            "users",
            purpose=Purpose("list a role's users", "read:users"),
        )
        async for row in rows:
            if not sub or row.get("user_id") == sub:
                return True
        return False


class ActionKind(ObjectKind):
    """Actions: made, built, deployed, and bound in order (``/actions``)."""

    async def until_built(self, api: TenantApi, action_id: str) -> None:
        """Wait until an Action is built.

        Raises:
            TenantRefusedError: ``build_failed``, with the build's message.
            TenantUnreachableError: it is not built in time.
        """

        async def is_built() -> bool:
            action = await self.get(api, action_id)
            if action.get("status") == "failed":
                errors = visible(action.get("errors") or "it gives no reason", 300)
                what = f"the Action does not build: {errors}"
                raise TenantRefusedError("build_failed", what)
            return action.get("status") == "built"

        if not await settled(api.tenant, is_built, _BUILD):
            raise TenantUnreachableError(
                f"the Action is not built after {_BUILD:g} s", "try again in a minute"
            )

    async def deploy(self, api: TenantApi, action_id: str) -> None:
        """Put a built Action in effect (200 or 202)."""
        await api.request(
            "POST",
            path("actions", "actions", action_id, "deploy"),
            expect=(200, 202),
            purpose=Purpose("deploy the Action", "create:actions"),
            repeatable=True,
        )

    async def bindings(self, api: TenantApi, trigger: str) -> list[Json]:
        """Return the bindings of a trigger, in order."""
        rows = api.by_page(
            _BINDINGS.format(trigger),
            "bindings",
            per_page=50,
            totals=False,
            purpose=Purpose("list the trigger's bindings", "read:actions"),
        )
        return [row async for row in rows]

    async def bind(
        self, api: TenantApi, trigger: str, bound: Sequence[tuple[str, str]]
    ) -> None:
        """Replace the whole list (200): each Action's id and display name."""
        listed = [
            {"ref": {"type": "action_id", "value": one}, "display_name": name}
            for one, name in bound
        ]
        await api.request(
            "PATCH",
            _BINDINGS.format(trigger),
            body={"bindings": listed},
            purpose=Purpose("bind the Actions", "update:actions"),
        )


# Not even sent to us: nobody reads a secret by looking at a client.
_HIDDEN: Final[Query] = {
    "fields": "client_secret,signing_keys",
    "include_fields": False,
}
actions: Final = ActionKind("actions/actions", "Action")
client_grants: Final = ClientGrantKind(
    "client-grants", "client grant", by_checkpoint=True
)
clients: Final = ClientKind("clients", "client", identity="client_id", query=_HIDDEN)
connections: Final = ConnectionKind("connections", "connection", by_checkpoint=True)
resource_servers: Final = ObjectKind("resource-servers", "API")
roles: Final = RoleKind("roles", "role")


async def login_pages(api: TenantApi) -> Json:
    """Return the settings of Universal Login (``/prompts``)."""
    reply = await api.request(
        "GET",
        "prompts",
        purpose=Purpose("show its login pages", "read:prompts"),
    )
    return reply.json()


async def settings(api: TenantApi) -> Json:
    """Return the settings of the tenant as a whole (``/tenants/settings``)."""
    purpose = Purpose("show its settings", "read:tenant_settings")
    reply = await api.request("GET", "tenants/settings", purpose=purpose)
    return without_secrets(reply.json())


async def change_settings(api: TenantApi, changes: Mapping[str, object]) -> None:
    """Change the tenant's settings (200)."""
    await api.request(
        "PATCH",
        "tenants/settings",
        body=dict(changes),
        purpose=Purpose("change its settings", "update:tenant_settings"),
    )


async def factors(api: TenantApi) -> dict[str, Json]:
    """Return each second factor by name (``/guardian/factors``).

    ``trial_expired``: the plan does not have it any more, whatever ``enabled`` says.
    """
    purpose = Purpose("list its second factors", "read:guardian_factors")
    reply = await api.request("GET", "guardian/factors", purpose=purpose)
    return {
        row["name"]: {
            "enabled": row.get("enabled") is True,
            "trial_expired": row.get("trial_expired") is True,
        }
        for row in reply.rows()
        if isinstance(row.get("name"), str)
    }


async def set_factor(api: TenantApi, name: str, *, enabled: bool) -> None:
    """Enable or disable a second factor (200)."""
    await api.request(
        "PUT",
        path("guardian", "factors", name),
        body={"enabled": enabled},
        purpose=Purpose(f"change the factor {name}", "update:guardian_factors"),
    )


async def mfa_policies(api: TenantApi) -> tuple[str, ...]:
    """Return when the tenant itself asks for a factor: none means never."""
    purpose = Purpose("show its MFA policy", "read:mfa_policies")
    reply = await api.request("GET", "guardian/policies", purpose=purpose)
    if not isinstance(reply.value, list):
        raise TenantUnreachableError("the tenant sent no list of MFA policies")
    return strings(reply.value)


async def set_mfa_policies(api: TenantApi, wanted: Sequence[str]) -> None:
    """Say when the tenant asks for a factor (200)."""
    await api.request(
        "PUT",
        "guardian/policies",
        body=list(wanted),
        purpose=Purpose("change its MFA policy", "update:mfa_policies"),
    )
