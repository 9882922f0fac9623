"""One reading of a whole tenant, in as few requests as it takes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Mapping
from typing import Final

from agentvault_tui.errors import TenantNotFoundError
from agentvault_tui.vault.management import objects
from agentvault_tui.vault.management.objects import (
    actions,
    clients,
    resource_servers,
    roles,
)
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import LOGIN
from agentvault_tui.vault.provision.desired import (
    DesiredKind,
    DesiredObject,
    connection,
    desired,
)
from agentvault_tui.vault.provision.needs import Needs, Systems, TenantSurvey
from agentvault_tui.vault.provision.reading import (
    DEFAULT_REMEDY,
    REMEDY,
    OfflineAccess,
    TenantReader,
    key_of,
)
from agentvault_tui.vault.reply import Json

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


async def survey(
    reader: TenantReader,
    needs: Needs,
    kinds: Container[DesiredKind] = frozenset(DesiredKind),
) -> tuple[tuple[DesiredObject, ...], TenantSurvey]:
    """Read the tenant; return what should stand there, and what does.

    Objects of other kinds than *kinds* are not read.

    Raises:
        TenantError: it cannot be read; a scope that is missing is named.
    """
    api = reader.management
    systems = _systems(await resource_servers.every(api), api.tenant.issuer)
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
        so_far.add(one.address, await reader.fetch(one.kind, one.key, ""))
    if by_kind[DesiredKind.ROLE]:
        listed = await roles.every(api, name_filter=names.ROLE_PREFIX)
        _match(so_far, by_kind[DesiredKind.ROLE], listed)
    marked = await reader.clients()
    await _clients(so_far, by_kind[DesiredKind.CLIENT], marked, reader, needs)
    _grants(so_far, by_kind[DesiredKind.GRANT], await reader.grants())
    named = by_kind[DesiredKind.CONNECTION]
    beside = [
        connection(name, needs)
        for name in await _other_connections(so_far, reader)
        if all(one.key != name for one in named)
    ]
    await _connections(so_far, [*named, *beside], reader, needs)
    if by_kind[DesiredKind.ACTION]:
        await _actions(so_far, by_kind, reader)
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
        found = next((row for row in rows if row.get("name") == name), None)
        so_far.add(one.address, found)


async def _clients(
    so_far: TenantSurvey,
    wanted: list[DesiredObject],
    marked: list[Json],
    reader: TenantReader,
    needs: Needs,
) -> None:
    """Match by our mark; of several, the one whose credentials are here."""
    for one in wanted:
        ours = [client for client in marked if key_of(client) == one.key]
        if not ours and one.key == names.CONSOLE and needs.client_id:
            # Made by hand, it has no mark yet.
            with contextlib.suppress(TenantNotFoundError):
                ours = [await reader.fetch(one.kind, "", needs.client_id)]
        kept = reader.keeper.client_id(one.key)
        ours.sort(
            key=lambda client: client.get("client_id") not in (kept, needs.client_id)
        )
        so_far.add(one.address, ours[0] if ours else None, "client_id")
        identity = so_far.ids.get(one.address, "")
        if identity and identity not in {kept, needs.client_id}:
            so_far.adopted[one.address] = identity
    chosen = set(so_far.ids.values())
    for client in marked:
        address = f"{DesiredKind.CLIENT}.{key_of(client)}"
        client_id = str(client.get("client_id"))
        if client_id not in chosen:
            if address in so_far.ids:
                address += f" ({client_id})"
            so_far.marked[address] = str(client.get("name"))


async def _other_connections(so_far: TenantSurvey, reader: TenantReader) -> list[str]:
    """Return the names of all connections that our standing applications have."""
    found: dict[str, None] = {}
    for address, identity in so_far.ids.items():
        if address.startswith(f"{DesiredKind.CLIENT}."):
            found |= dict.fromkeys(
                await clients.connections(reader.management, identity)
            )
    return list(found)


def _grants(
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


async def _connections(
    so_far: TenantSurvey,
    wanted: list[DesiredObject],
    reader: TenantReader,
    needs: Needs,
) -> None:
    for one in wanted:
        found = await reader.connection(one.key)
        so_far.add(one.address, found)
        used = one.key in needs.connections
        if found and used and found["lasting"] is OfflineAccess.NO:
            remedy = REMEDY.get(str(found["strategy"]), DEFAULT_REMEDY)
            so_far.by_hand[f"{one.address}.refresh-tokens"] = (
                f"its provider gives no refresh token: {remedy}, in the Dashboard"
            )


async def _actions(
    so_far: TenantSurvey,
    by_kind: Mapping[DesiredKind, list[DesiredObject]],
    reader: TenantReader,
) -> None:
    every = await actions.every(reader.management)
    _match(so_far, by_kind[DesiredKind.ACTION], every)
    for one in by_kind[DesiredKind.ACTION]:
        if one.address in so_far.ids:
            identity = so_far.ids[one.address]
            so_far.add(one.address, await reader.fetch(one.kind, one.key, identity))
    for one in by_kind[DesiredKind.FLOW]:
        flow = await reader.fetch(one.kind, one.key, "")
        so_far.add(one.address, flow)
        if one.key == LOGIN:
            so_far.remembering = tuple(
                str(action.get("name"))
                for action in every
                if action.get("id") in flow["bindings"]
                and _REMEMBERS.search(str(action.get("code")))
            )
