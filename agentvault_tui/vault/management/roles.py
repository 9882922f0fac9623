"""What people may do, by name (``/roles``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import text
from agentvault_tui.vault.reply import Json


async def every(api: Api, *, prefix: str) -> AsyncIterator[Json]:
    """Yield roles whose name holds *prefix*. Scope ``read:roles``."""
    rows = api.by_page(
        "roles",
        "roles",
        query={"name_filter": prefix},
        what="list its roles",
        scope="read:roles",
    )
    async for row in rows:
        yield row


async def held(api: Api, role_id: str) -> bool:
    """Tell whether anybody has the role. Scope ``read:users``.

    Raises:
        TenantNotFoundError: there is no such role.
    """
    rows = api.by_page(
        path("roles", role_id, "users"),
        "users",
        what="list a role's users",
        scope="read:users",
    )
    async for _ in rows:
        return True
    return False


async def create(api: Api, role: Mapping[str, Any]) -> Json:
    """Make a role (200, where others answer 201). Scope ``create:roles``."""
    reply = await api.request(
        "POST",
        "roles",
        body=dict(role),
        expect=(200, 201),
        what="make a role",
        scope="create:roles",
    )
    made = reply.json()
    text(made, "id")
    return made


async def patch(api: Api, role_id: str, changes: Mapping[str, Any]) -> Json:
    """Change a role (200). Scope ``update:roles``."""
    reply = await api.request(
        "PATCH",
        path("roles", role_id),
        body=dict(changes),
        what="change the role",
        scope="update:roles",
    )
    return reply.json()


async def get(api: Api, role_id: str) -> Json:
    """Return a role. Scope ``read:roles``.

    Raises:
        TenantNotFoundError: there is none.
    """
    reply = await api.request(
        "GET", path("roles", role_id), what="show the role", scope="read:roles"
    )
    return reply.json()
