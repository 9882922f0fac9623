"""Reads what stands on a tenant, kind by kind, without any secret in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.found import Json
from agentvault_tui.vault.provision.kept import Keeper
from agentvault_tui.vault.provision.lasting import lasting

_SECRETS: Final = {
    "fields": "client_secret,signing_keys,encryption_key",
    "include_fields": False,
}
"""Asked not to be sent at all: what does not come cannot leak."""
BINDINGS: Final = f"actions/triggers/{names.TRIGGER}/bindings"


@dataclass(frozen=True, slots=True)
class Reader:
    """One object or one list at a time, brought to the members that rules name."""

    management: Management
    keeper: Keeper

    async def apis(self) -> list[Json]:
        """Return every API of the tenant, Auth0's own among them."""
        return await self._every("resource-servers", "resource_servers")

    async def api(self, identity: str) -> Json:
        """Return one API by its id."""
        return await self._get(path("resource-servers", identity), "resource_servers")

    async def clients(self) -> list[Json]:
        """Return every application with our mark."""
        found = await self._every(
            "clients", "clients", {**_SECRETS, "is_global": False}
        )
        return [await self._client(one) for one in found if key_of(one)]

    async def client(self, identity: str) -> Json:
        """Return one application by its client id."""
        found = await self._get(path("clients", identity), "clients", _SECRETS)
        return await self._client(found)

    async def grants(self) -> list[Json]:
        """Return every client grant of the tenant."""
        return [
            grant(one) for one in await self._every("client-grants", "client_grants")
        ]

    async def grant(self, identity: str) -> Json:
        """Return one client grant by its id."""
        return grant(await self._get(path("client-grants", identity), "client_grants"))

    async def roles(self) -> list[Json]:
        """Return the roles with our prefix, without their permissions."""
        query = {"name_filter": names.ROLE_PREFIX}
        return await self._every("roles", "roles", query)

    async def role(self, identity: str) -> Json:
        """Return one role by its id, with its permissions."""
        found = await self._get(path("roles", identity), "roles")
        permissions = await self._every(
            path("roles", identity, "permissions"), "permissions", scope="read:roles"
        )
        return {
            **found,
            "permissions": [
                {
                    "resource_server_identifier": one.get("resource_server_identifier"),
                    "permission_name": one.get("permission_name"),
                }
                for one in permissions
            ],
        }

    async def factors(self) -> dict[str, Json]:
        """Return each second factor by name."""
        reply = await self.management.request(
            "GET",
            "guardian/factors",
            what="list second factors",
            scope="read:guardian_factors",
        )
        return {str(one.get("name")): one for one in reply.rows()}

    async def policies(self) -> Json:
        """Return the tenant's own MFA policies: none means never."""
        reply = await self.management.request(
            "GET",
            "guardian/policies",
            what="read the MFA policy",
            scope="read:mfa_policies",
        )
        listed = reply.value if isinstance(reply.value, list) else []
        return {"policies": [str(one) for one in listed]}

    async def settings(self) -> Json:
        """Return the tenant's settings."""
        return await self._get("tenants/settings", "tenant_settings")

    async def connection(self, name: str) -> Json | None:
        """Return one connection by name, without its options, or nothing."""
        query = {"name": name}
        for one in await self._every("connections", "connections", query):
            if one.get("name") == name:
                return await self._connection(one)
        return None

    async def connection_by_id(self, identity: str) -> Json:
        """Return one connection by its id, without its options."""
        return await self._connection(
            await self._get(path("connections", identity), "connections")
        )

    async def actions(self) -> list[Json]:
        """Return the tenant's Actions of the login flow."""
        query = {"triggerId": names.TRIGGER}
        return await self._every("actions/actions", "actions", query)

    async def action(self, identity: str) -> Json:
        """Return one Action by its id, with the code that is deployed."""
        found = await self._get(path("actions", "actions", identity), "actions")
        deployed = found.get("deployed_version")
        if isinstance(deployed, dict):
            found["deployed_code"] = deployed.get("code")
        return found

    async def bindings(self) -> list[Json]:
        """Return what is bound to the login flow, in order."""
        return await self._every(BINDINGS, "bindings", scope="read:actions")

    async def _client(self, raw: Json) -> Json:
        """Add what we know of a client ourselves: whether its credentials are here."""
        client = {name: raw[name] for name in raw if name not in _SECRET_MEMBERS}
        key, identity = key_of(client), str(client.get("client_id", ""))
        client["kept"] = self.keeper.has_secret(key, identity)
        worker = client.get("token_vault_privileged_access")
        if isinstance(worker, dict):
            for pin in worker.get("grants") or []:
                pin["scopes"] = sorted(pin.get("scopes") or [])
            ids = [one.get("id") for one in worker.get("credentials") or []]
            client["worker_key"] = await self._has_key(identity, key, ids)
        return client

    async def _has_key(self, identity: str, key: str, ids: Sequence[Any]) -> bool:
        """Tell whether the worker's key of this home is one the tenant takes."""
        name = self.keeper.worker_key(key)
        if not name:
            return False
        reply = await self.management.request(
            "GET",
            path("clients", identity, "credentials"),
            what="list a client's keys",
            scope="read:client_credentials",
        )
        return any(
            one.get("name") == name and one.get("id") in ids for one in reply.rows()
        )

    async def _connection(self, raw: Json) -> Json:
        identity = str(raw.get("id", ""))
        clients = [
            one.get("client_id")
            async for one in self.management.by_checkpoint(
                path("connections", identity, "clients"),
                "clients",
                what="list a connection's clients",
                scope="read:connections",
            )
        ]
        # The options hold the provider's secret: what we need of them, and no more.
        return {
            "id": identity,
            "name": raw.get("name"),
            "strategy": raw.get("strategy"),
            "connected_accounts": raw.get("connected_accounts") or {"active": False},
            "clients": clients,
            "lasting": lasting(raw),
        }

    async def _get(
        self, where: str, scope: str, query: dict[str, Any] | None = None
    ) -> Json:
        reply = await self.management.request(
            "GET", where, query=query, what=f"read {where}", scope=f"read:{scope}"
        )
        return reply.json()

    async def _every(
        self,
        where: str,
        key: str,
        query: dict[str, Any] | None = None,
        *,
        scope: str = "",
    ) -> list[Json]:
        rows: AsyncIterator[Json] = self.management.by_page(
            where,
            key,
            query=query,
            what=f"list {where}",
            scope=scope or f"read:{key}",
        )
        return [row async for row in rows]


_SECRET_MEMBERS: Final = frozenset({"client_secret", "signing_keys", "encryption_key"})


def key_of(client: Json) -> str:
    """Return the key of a client of ours by its mark, or ``""``."""
    marks = client.get("client_metadata")
    if not isinstance(marks, dict):
        return ""
    mark = marks.get(names.MARK)
    if mark == names.AGENT:
        agent = marks.get(names.MARK_AGENT)
        return f"agents/{agent}" if isinstance(agent, str) and agent else ""
    return mark if mark in {names.CONSOLE, names.BROKER, names.MANAGEMENT} else ""


def grant(raw: Json) -> Json:
    """Return a grant with its subject type, which old ones do not say."""
    return {**raw, "subject_type": raw.get("subject_type", "client")}
