"""Makes and changes one object on a tenant, by the call its kind takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.errors import TenantError
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.desired import Kind, Wanted
from agentvault_tui.vault.provision.found import Json
from agentvault_tui.vault.provision.kept import Keeper
from agentvault_tui.vault.provision.reading import BINDINGS
from agentvault_tui.vault.secret import Secret

_BATCH: Final = 50
"""Clients in one change of a connection; permissions go in the same measure."""
_BUILD_TRIES: Final = 30
_BUILD_PAUSE: Final = 1.0
_DONE: Final = (200, 201, 202, 204)
_PLACES: Final = {
    Kind.API: ("resource-servers", "resource_servers"),
    Kind.ROLE: ("roles", "roles"),
    Kind.CLIENT: ("clients", "clients"),
    Kind.GRANT: ("client-grants", "client_grants"),
}
_OURS: Final = ("kept", "worker_key")
_WORKER: Final = "token_vault_privileged_access"


@dataclass(frozen=True, slots=True)
class Writer:
    """Sends what makes an object as it should be; secrets go to the keeper alone."""

    management: Management
    keeper: Keeper

    async def write(
        self, wanted: Wanted, body: Json, standing: Json | None, identity: str
    ) -> str:
        """Make *wanted*, or change it where it is *standing*; return its id.

        Args:
            wanted: the object.
            body: the members to send, references resolved.
            standing: the object as it was read just now, or None.
            identity: its id where it stands, else ``""``.

        Raises:
            TenantError: the tenant would not; a scope that is missing is named.
        """
        match wanted.kind:
            case Kind.FACTOR:
                place = path("guardian", "factors", wanted.key)
                await self._send("PUT", place, body, "update:guardian_factors")
            case Kind.SETTINGS:
                place = "tenants/settings"
                await self._send("PATCH", place, body, "update:tenant_settings")
            case Kind.POLICY:
                place = "guardian/policies"
                await self._send("PUT", place, body["policies"], "update:mfa_policies")
            case Kind.FLOW:
                await self._bind(body["bindings"])
            case Kind.CONNECTION:
                await self._connection(identity, body, standing or {})
            case Kind.ACTION:
                return await self._action(identity, body)
            case Kind.ROLE:
                return await self._role(identity, body, standing or {})
            case Kind.CLIENT:
                return await self._client(wanted.key, identity, body, standing or {})
            case Kind.API | Kind.GRANT:
                return await self._plain(wanted.kind, identity, body)
        return identity or wanted.key

    async def delete_grant(self, identity: str) -> None:
        """Take back a client grant that the tenant stored as another than we asked."""
        place = path("client-grants", identity)
        await self._send("DELETE", place, None, "delete:client_grants")

    async def _plain(self, kind: Kind, identity: str, body: Json) -> str:
        place, scope = _PLACES[kind]
        if identity:
            await self._send("PATCH", path(place, identity), body, f"update:{scope}")
            return identity
        made = await self._send("POST", place, body, f"create:{scope}")
        return _id(made, "id")

    async def _role(self, identity: str, body: Json, standing: Json) -> str:
        """Make a role, then give it the permissions it lacks."""
        permissions = body.pop("permissions", [])
        if body:
            identity = await self._plain(Kind.ROLE, identity, body)
        has = standing.get("permissions", [])
        missing = [one for one in permissions if one not in has]
        place = path("roles", identity, "permissions")
        for batch in _batches(missing):
            await self._send("POST", place, {"permissions": batch}, "update:roles")
        return identity

    async def _client(self, key: str, identity: str, body: Json, standing: Json) -> str:
        """Make or change an application; its secret goes straight to the keeper."""
        wants = {name: body.pop(name) for name in _OURS if name in body}
        worker = body.pop(_WORKER, None)
        if not identity:
            # Not sent a second time when the answer is lost: the next run finds the
            # application by its mark, and makes a new secret.
            made = await self._send("POST", "clients", body, "create:clients")
            identity = _id(made, "client_id")
            self.keeper.keep(key, identity, _secret(made) if wants else None)
        elif body:
            place = path("clients", identity)
            await self._send("PATCH", place, body, "update:clients")
        if "kept" in wants and not self.keeper.has_secret(key, identity):
            place = path("clients", identity, "rotate-secret")
            made = await self._send("POST", place, None, "update:client_keys")
            self.keeper.keep(key, identity, _secret(made))
        if "kept" not in wants and not self.keeper.client_id(key):
            self.keeper.keep(key, identity, None)
        if worker is not None or "worker_key" in wants:
            access = {**standing.get(_WORKER, {}), **(worker or {})}
            await self._worker(key, identity, access, new="worker_key" in wants)
        return identity

    async def _worker(
        self, key: str, identity: str, access: Json, *, new: bool
    ) -> None:
        """Let a client exchange as a privileged worker, with a key made here."""
        if new:
            name, pem = self.keeper.new_worker_key(key)
            credential = {
                "name": name,
                "credential_type": "public_key",
                "pem": pem,
                "alg": "RS256",
            }
            made = await self._send(
                "POST",
                path("clients", identity, "credentials"),
                credential,
                "create:client_credentials",
            )
            access["credentials"] = [{"id": _id(made, "id")}]
        place = path("clients", identity)
        await self._send("PATCH", place, {_WORKER: access}, f"update:client_{_WORKER}")

    async def _connection(self, identity: str, body: Json, standing: Json) -> None:
        """Switch a connection's purpose, and let clients use it; nothing else."""
        clients = body.pop("clients", [])
        place = path("connections", identity)
        if body:
            await self._send("PATCH", place, body, "update:connections")
        missing = [one for one in clients if one not in standing.get("clients", [])]
        for batch in _batches(missing):
            enabled = [{"client_id": one, "status": True} for one in batch]
            place = path("connections", identity, "clients")
            await self._send("PATCH", place, enabled, "update:connections")

    async def _action(self, identity: str, body: Json) -> str:
        """Store an Action, wait until it is built, and deploy it."""
        body.pop("deployed_code", None)
        place = "actions/actions"
        if identity and body:
            where = path("actions", "actions", identity)
            await self._send("PATCH", where, body, "update:actions")
        elif not identity:
            trigger = {"id": names.TRIGGER, "version": "v3"}
            whole = {**body, "supported_triggers": [trigger], "secrets": []}
            made = await self._send("POST", place, whole, "create:actions")
            identity = _id(made, "id")
        await self._built(identity)
        where = path("actions", "actions", identity, "deploy")
        await self._send("POST", where, None, "create:actions")
        return identity

    async def _built(self, identity: str) -> None:
        for _ in range(_BUILD_TRIES):
            reply = await self.management.request(
                "GET",
                path("actions", "actions", identity),
                what="read an Action",
                scope="read:actions",
            )
            status = reply.json().get("status")
            if status == "built":
                return
            if status == "failed":
                raise TenantError(
                    "the tenant could not build an Action of ours",
                    "see its build log in the Dashboard, under Actions, Library",
                )
            await self.management.tenant.sleep(_BUILD_PAUSE)
        raise TenantError(
            f"the tenant did not build an Action within {_BUILD_TRIES} s",
            "run apply again: it goes on from here",
        )

    async def _bind(self, actions: Sequence[str]) -> None:
        """Replace the login flow's bindings: the list is sent whole.

        Those of others stand in *actions*, which was settled on a reading from just
        before, and keep the names they are shown by.
        """
        reply = await self.management.request(
            "GET", BINDINGS, what="read the login flow", scope="read:actions"
        )
        shown: dict[str, str] = {}
        for row in reply.rows("bindings"):
            action = row.get("action")
            if isinstance(action, dict):
                shown[str(action.get("id"))] = str(row.get("display_name") or "")
        bindings = [
            {
                "ref": {"type": "action_id", "value": one},
                **({"display_name": shown[one]} if shown.get(one) else {}),
            }
            for one in actions
        ]
        await self._send("PATCH", BINDINGS, {"bindings": bindings}, "update:actions")

    async def _send(self, method: str, place: str, body: Any, scope: str) -> Json:
        verb = {"POST": "make", "DELETE": "delete"}.get(method, "change")
        reply = await self.management.request(
            method,
            place,
            body=body,
            expect=_DONE,
            what=f"{verb} {place}",
            scope=scope,
        )
        return reply.body or {}


def _secret(made: Mapping[str, Any]) -> Secret | None:
    value = made.get("client_secret")
    return Secret(value) if isinstance(value, str) and value else None


def _id(made: Mapping[str, Any], member: str) -> str:
    value = made.get(member)
    if not isinstance(value, str) or not value:
        raise TenantError("the tenant made an object and did not name it")
    return value


def _batches(items: Sequence[Any]) -> list[list[Any]]:
    return [
        list(items[start : start + _BATCH]) for start in range(0, len(items), _BATCH)
    ]
