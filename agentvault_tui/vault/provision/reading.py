"""Reads the objects on a tenant, without any secret in them: one object, or all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agentvault_tui.errors import TenantNotFoundError
from agentvault_tui.text import visible
from agentvault_tui.vault.management import Management, objects
from agentvault_tui.vault.management.rows import object_rows, strings
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import LOGIN
from agentvault_tui.vault.provision.desired import (
    DesiredKind,
    DesiredObject,
    connection,
    desired,
)
from agentvault_tui.vault.provision.needs import (
    Needs,
    SecretStore,
    Systems,
    TenantSurvey,
)
from agentvault_tui.vault.reply import Json


class OfflineAccess(StrEnum):
    """The known facts of refresh tokens from a provider."""

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
"""The remedy for a connection without refresh tokens, by strategy."""
DEFAULT_REMEDY: Final = "add offline_access to the connection's scopes"
_BY_SWITCH: Final = frozenset({"google-oauth2", "windowslive", "twitter"})
_BY_SCOPE: Final = frozenset({"oidc", "waad", "okta"})
_ASKING: Final = frozenset({"offline_access", "refresh_token"})
_AT_PROVIDER: Final = frozenset({"github", "slack", "sign-in-with-slack", "box"})


def lasting(connection: Mapping[str, Any]) -> OfflineAccess:
    """Check whether a connection's provider gives refresh tokens."""
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


_MY_ACCOUNT: Final = (
    "activate the My Account API in the Dashboard, under Applications, APIs: without "
    "it no account can be connected"
)
_CLASSIC: Final = (
    "people sign in on Classic Login, which knows no challenge by an Action: choose "
    "the Universal Login experience in the Dashboard, under Branding, Universal Login"
)
_REMEMBERS: Final = re.compile(r"allowRememberBrowser\W+true")
"""In an Action's code: a browser may be remembered for 30 days."""


@dataclass(frozen=True, slots=True)
class TenantReader:
    """Reads objects brought to the members that rules name, one or all of a tenant."""

    management: Management
    keeper: SecretStore

    async def clients(self) -> list[Json]:
        """Return every application with our mark."""
        rows = await objects.clients.every(self.management)
        return [self._client(one) for one in rows if key_of(one)]

    async def grants(self) -> list[Json]:
        """Return every client grant; old ones do not say their subject's type."""
        rows = await objects.client_grants.every(self.management)
        return [{"subject_type": "client", **row} for row in rows]

    async def connection(self, name: str) -> Json | None:
        """Return one connection by name, without its options, or nothing."""
        rows = await objects.connections.every(self.management, name=name)
        raw = next((one for one in rows if one.get("name") == name), None)
        if raw is None:
            return None
        identity = str(raw.get("id", ""))
        return {
            "id": identity,
            "name": raw.get("name"),
            "strategy": raw.get("strategy"),
            "connected_accounts": raw.get("connected_accounts") or {"active": False},
            "clients": await objects.connections.clients(self.management, identity),
            "lasting": lasting(raw),
        }

    async def fetch(self, kind: DesiredKind, key: str, identity: str) -> Json:
        """Read one object again, by its id or the key of its address.

        Raises:
            TenantNotFoundError: there is none.
        """
        api = self.management
        match kind:
            case DesiredKind.CLIENT:
                return self._client(await objects.clients.get(api, identity))
            case DesiredKind.GRANT:
                return await self._grant(identity)
            case DesiredKind.ACTION:
                return await self._action(identity)
            case DesiredKind.ROLE:
                return await objects.roles.get(api, identity)
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
        action = await objects.actions.get(self.management, identity)
        deployed = action.get("deployed_version")
        if isinstance(deployed, dict) and "code" in deployed:
            action["deployed_code"] = deployed["code"]
        elif action.get("all_changes_deployed") is True:
            action["deployed_code"] = action.get("code")
        return action

    async def _flow(self, trigger: str) -> Json:
        """Return the bindings of a trigger, in order, and their form."""
        shown: dict[str, str] = {}
        for row in await objects.actions.bindings(self.management, trigger):
            action = row.get("action")
            if isinstance(action, dict) and isinstance(action.get("id"), str):
                name = row.get("display_name") or action.get("name") or ""
                shown[action["id"]] = str(name)
        return {"bindings": list(shown), "shown": shown}

    def _client(self, client: Json) -> Json:
        """Add our own knowledge of a client: whether its credentials are here."""
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
            worker_key = self.keeper.worker_key(key)
            client["worker_key"] = bool(worker_key) and ids == [worker_key]
        return client

    async def survey(
        self, needs: Needs, kinds: Container[DesiredKind] = frozenset(DesiredKind)
    ) -> tuple[tuple[DesiredObject, ...], TenantSurvey]:
        """Read the tenant; return the desired objects, and the present ones.

        Objects of other kinds than *kinds* are not read.

        Raises:
            TenantError: it cannot be read; a scope that is missing is named.
        """
        api = self.management
        systems = _systems(await objects.resource_servers.every(api), api.tenant.issuer)
        wanted = tuple(one for one in desired(needs, systems) if one.kind in kinds)
        by_kind = {
            kind: [one for one in wanted if one.kind is kind] for kind in DesiredKind
        }
        so_far = TenantSurvey(systems)
        if by_kind[DesiredKind.FACTOR]:
            factors = await objects.factors(api)
            for one in by_kind[DesiredKind.FACTOR]:
                factor = factors.get(one.key, {})
                so_far.add(one.address, factor)
                if factor.get("trial_expired"):
                    so_far.lacking[one.address] = "trial_expired"
        for one in (*by_kind[DesiredKind.SETTINGS], *by_kind[DesiredKind.POLICY]):
            so_far.add(one.address, await self.fetch(one.kind, one.key, ""))
        if by_kind[DesiredKind.ROLE]:
            listed = await objects.roles.every(api, name_filter=names.ROLE_PREFIX)
            _match(so_far, by_kind[DesiredKind.ROLE], listed)
        await self._match_clients(so_far, by_kind[DesiredKind.CLIENT], needs)
        _match_grants(so_far, by_kind[DesiredKind.GRANT], await self.grants())
        named = by_kind[DesiredKind.CONNECTION]
        beside = [
            connection(name, needs)
            for name in await self._other_connections(so_far)
            if all(one.key != name for one in named)
        ]
        await self._match_connections(so_far, [*named, *beside], needs)
        if by_kind[DesiredKind.ACTION]:
            await self._match_actions(so_far, by_kind)
        if needs.connections and not systems.my_account:
            so_far.by_hand["api.my-account"] = _MY_ACCOUNT
        if by_kind[DesiredKind.FLOW]:
            pages = await objects.login_pages(api)
            if pages.get("universal_login_experience") != "new":
                so_far.by_hand["prompts.login"] = _CLASSIC
        # After those that are wanted, and before the Actions, like these.
        place = next(
            (n for n, one in enumerate(wanted) if one.kind is DesiredKind.ACTION),
            len(wanted),
        )
        return (*wanted[:place], *beside, *wanted[place:]), so_far

    async def _match_clients(
        self, so_far: TenantSurvey, wanted: list[DesiredObject], needs: Needs
    ) -> None:
        """Match by our mark; of several, the one with credentials here."""
        marked = await self.clients()
        for one in wanted:
            ours = [client for client in marked if key_of(client) == one.key]
            if not ours and one.key == names.CONSOLE and needs.client_id:
                # Made by hand, it has no mark yet.
                with contextlib.suppress(TenantNotFoundError):
                    ours = [await self.fetch(one.kind, "", needs.client_id)]
            kept_id = self.keeper.client_id(one.key)
            ours.sort(
                key=lambda client: (
                    client.get("client_id") not in (kept_id, needs.client_id)
                )
            )
            so_far.add(one.address, ours[0] if ours else None, "client_id")
            identity = so_far.ids.get(one.address, "")
            if identity and identity not in {kept_id, needs.client_id}:
                so_far.adopted[one.address] = identity
        chosen = set(so_far.ids.values())
        for client in marked:
            address = f"{DesiredKind.CLIENT}.{key_of(client)}"
            client_id = str(client.get("client_id"))
            if client_id not in chosen:
                if address in so_far.ids:
                    address += f" ({client_id})"
                so_far.marked[address] = str(client.get("name"))

    async def _other_connections(self, so_far: TenantSurvey) -> list[str]:
        """Return the names of all connections that our standing applications have."""
        others: dict[str, None] = {}
        for address, identity in so_far.ids.items():
            if address.startswith(f"{DesiredKind.CLIENT}."):
                others |= dict.fromkeys(
                    await objects.clients.connections(self.management, identity)
                )
        return list(others)

    async def _match_connections(
        self, so_far: TenantSurvey, wanted: list[DesiredObject], needs: Needs
    ) -> None:
        for one in wanted:
            row = await self.connection(one.key)
            so_far.add(one.address, row)
            used = one.key in needs.connections
            if row and used and row["lasting"] is OfflineAccess.NO:
                remedy = REMEDY.get(str(row["strategy"]), DEFAULT_REMEDY)
                so_far.by_hand[f"{one.address}.refresh-tokens"] = (
                    f"its provider gives no refresh token: {remedy}, in the Dashboard"
                )

    async def _match_actions(
        self,
        so_far: TenantSurvey,
        by_kind: Mapping[DesiredKind, list[DesiredObject]],
    ) -> None:
        every = await objects.actions.every(self.management)
        _match(so_far, by_kind[DesiredKind.ACTION], every)
        for one in by_kind[DesiredKind.ACTION]:
            if one.address in so_far.ids:
                identity = so_far.ids[one.address]
                so_far.add(one.address, await self.fetch(one.kind, one.key, identity))
        for one in by_kind[DesiredKind.FLOW]:
            flow = await self.fetch(one.kind, one.key, "")
            so_far.add(one.address, flow)
            if one.key == LOGIN:
                so_far.remembering = tuple(
                    str(action.get("name"))
                    for action in every
                    if action.get("id") in flow["bindings"]
                    and _REMEMBERS.search(str(action.get("code")))
                )


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


def _systems(apis: list[Json], issuer: str) -> Systems:
    """Find Auth0's own APIs: on a custom domain their identifiers have another host."""
    listed: Mapping[str, Json] = {
        str(one.get("identifier")): one for one in apis if one.get("is_system")
    }
    manage = next((one for one in listed if one.endswith("/api/v2/")), "")
    offered = listed[manage].get("scopes") if manage else None
    return Systems(
        management=manage or f"{issuer}api/v2/",
        offered=frozenset(
            str(one.get("value"))
            for one in (offered if isinstance(offered, list) else [])
            if isinstance(one, dict)
        ),
        my_account=next((one for one in listed if one.endswith("/me/")), ""),
    )


def _match(so_far: TenantSurvey, wanted: list[DesiredObject], rows: list[Json]) -> None:
    """Match by name, which cannot change."""
    for one in wanted:
        name = one.fixed["name"].settle(None, {})
        matching = next((row for row in rows if row.get("name") == name), None)
        so_far.add(one.address, matching)


def _match_grants(
    so_far: TenantSurvey, wanted: list[DesiredObject], rows: list[Json]
) -> None:
    for one in wanted:
        client_id, audience, subject_type = (
            one.fixed[name].settle(None, so_far.ids)
            for name in ("client_id", "audience", "subject_type")
        )
        whose = (client_id, audience)
        same = [r for r in rows if (r.get("client_id"), r.get("audience")) == whose]
        right = [row for row in same if row["subject_type"] == subject_type]
        so_far.add(one.address, right[0] if right else None)
        if same and not right:
            so_far.misfiled[one.address] = str(same[0]["subject_type"])
