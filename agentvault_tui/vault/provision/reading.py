"""Reads what stands on a tenant, kind by kind, without any secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agentvault_tui.errors import TenantNotFoundError
from agentvault_tui.text import visible
from agentvault_tui.vault.management import Management, objects
from agentvault_tui.vault.management.objects import (
    actions,
    client_grants,
    clients,
    connections,
    roles,
)
from agentvault_tui.vault.management.rows import object_rows, strings
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.desired import DesiredKind
from agentvault_tui.vault.provision.needs import SecretStore
from agentvault_tui.vault.reply import Json


class OfflineAccess(StrEnum):
    """What is known about refresh tokens from a provider."""

    YES = "yes"
    NO = "no"
    UNSEEN = "unseen"
    """Set at the provider, where the tenant does not see it."""


REMEDY: Final = {
    "google-oauth2": "tick Offline Access in the connection's Permissions",
    "windowslive": "tick Offline Access in the connection's Permissions",
    "github": "use a GitHub App with expiring user tokens: an OAuth App gives none",
    "slack": "turn token rotation on for the Slack app",
    "sign-in-with-slack": "turn token rotation on for the Slack app",
}
"""What to do about a connection without refresh tokens, by strategy."""
DEFAULT_REMEDY: Final = "add offline_access to the connection's scopes"
_BY_SWITCH: Final = frozenset({"google-oauth2", "windowslive", "twitter"})
_BY_SCOPE: Final = frozenset({"oidc", "waad", "okta"})
_ASKING: Final = frozenset({"offline_access", "refresh_token"})
_AT_PROVIDER: Final = frozenset({"github", "slack", "sign-in-with-slack", "box"})


def lasting(connection: Mapping[str, Any]) -> OfflineAccess:
    """Tell whether a connection's provider gives refresh tokens."""
    options = connection.get("options")
    strategy = str(connection.get("strategy"))
    if strategy in _AT_PROVIDER or not isinstance(options, Mapping):
        return OfflineAccess.UNSEEN
    if strategy in _BY_SWITCH:
        on = options.get("offline_access") is True
        return OfflineAccess.YES if on else OfflineAccess.NO
    scope = options.get("scope")
    words = scope.split() if isinstance(scope, str) else scope
    if isinstance(words, list) and _ASKING & set(map(str, words)):
        return OfflineAccess.YES
    # Another provider may give a refresh token without being asked for one.
    return OfflineAccess.NO if strategy in _BY_SCOPE else OfflineAccess.UNSEEN


@dataclass(frozen=True, slots=True)
class TenantReader:
    """One object or one list at a time, brought to the members that rules name."""

    management: Management
    keeper: SecretStore

    async def clients(self) -> list[Json]:
        """Return every application with our mark."""
        found = await clients.every(self.management)
        return [self._client(one) for one in found if key_of(one)]

    async def grants(self) -> list[Json]:
        """Return every client grant; old ones do not say their subject's type."""
        rows = await client_grants.every(self.management)
        return [{"subject_type": "client", **row} for row in rows]

    async def connection(self, name: str) -> Json | None:
        """Return one connection by name, without its options, or nothing."""
        rows = await connections.every(self.management, name=name)
        raw = next((one for one in rows if one.get("name") == name), None)
        if raw is None:
            return None
        identity = str(raw.get("id", ""))
        return {
            "id": identity,
            "name": raw.get("name"),
            "strategy": raw.get("strategy"),
            "connected_accounts": raw.get("connected_accounts") or {"active": False},
            "clients": await connections.clients(self.management, identity),
            "lasting": lasting(raw),
        }

    async def fetch(self, kind: DesiredKind, key: str, identity: str) -> Json:
        """Read one object anew, by its id or the key of its address.

        Raises:
            TenantNotFoundError: there is none.
        """
        api = self.management
        match kind:
            case DesiredKind.CLIENT:
                return self._client(await clients.get(api, identity))
            case DesiredKind.GRANT:
                return await self._grant(identity)
            case DesiredKind.ACTION:
                return await self._action(identity)
            case DesiredKind.ROLE:
                return await roles.get(api, identity)
            case DesiredKind.CONNECTION:
                return await self.connection(key) or {}
            case DesiredKind.FACTOR:
                return (await objects.factors(api)).get(key, {})
            case DesiredKind.SETTINGS:
                return await objects.settings(api)
            case DesiredKind.POLICY:
                return {"policies": list(await objects.mfa_policies(api))}
            case DesiredKind.FLOW:
                return await self._flow(key)

    async def _grant(self, identity: str) -> Json:
        for one in await self.grants():
            if one.get("id") == identity:
                return one
        what = f"the tenant has no client grant {visible(identity, 60)}"
        raise TenantNotFoundError("inexistent_grant", what, status=404)

    async def _action(self, identity: str) -> Json:
        """Return an Action with the code that is deployed."""
        found = await actions.get(self.management, identity)
        deployed = found.get("deployed_version")
        if isinstance(deployed, dict) and "code" in deployed:
            found["deployed_code"] = deployed["code"]
        elif found.get("all_changes_deployed") is True:
            found["deployed_code"] = found.get("code")
        return found

    async def _flow(self, trigger: str) -> Json:
        """Return what is bound to a trigger, in order, and how it is shown."""
        shown: dict[str, str] = {}
        for row in await actions.bindings(self.management, trigger):
            action = row.get("action")
            if isinstance(action, dict) and isinstance(action.get("id"), str):
                name = row.get("display_name") or action.get("name") or ""
                shown[action["id"]] = str(name)
        return {"bindings": list(shown), "shown": shown}

    def _client(self, client: Json) -> Json:
        """Add what we know of a client ourselves: whether its credentials are here."""
        key, identity = key_of(client), str(client.get("client_id", ""))
        client["known"] = bool(identity) and self.keeper.client_id(key) == identity
        client["kept"] = self.keeper.has_secret(key, identity)
        worker = client.get(names.WORKER)
        if not isinstance(worker, dict):
            client.pop(names.WORKER, None)
        else:
            for pin in object_rows(worker.get("grants")):
                pin["scopes"] = sorted(strings(pin.get("scopes")))
            ids = [one.get("id") for one in object_rows(worker.get("credentials"))]
            kept = self.keeper.worker_key(key)
            client["worker_key"] = bool(kept) and ids == [kept]
        return client


def key_of(client: Json) -> str:
    """Return the key of a client of ours by its mark, or ``""``."""
    marks = client.get("client_metadata")
    if not isinstance(marks, dict):
        return ""
    mark = marks.get(names.MARK)
    if mark == names.AGENT:
        agent = marks.get(names.MARK_AGENT)
        return f"agents/{agent}" if isinstance(agent, str) and agent else ""
    return mark if mark in (names.CONSOLE, names.MANAGEMENT) else ""
