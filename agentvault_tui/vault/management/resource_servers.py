"""APIs, with their scopes and tokens' lifetimes (``/resource-servers``)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.management.rows import text, without_secrets
from agentvault_tui.vault.reply import Json


async def every(api: Api) -> AsyncIterator[Json]:
    """Yield all APIs, the tenant's own too. Scope ``read:resource_servers``."""
    rows = api.by_page(
        "resource-servers",
        "resource_servers",
        what="list its APIs",
        scope="read:resource_servers",
    )
    async for row in rows:
        yield without_secrets(row)


async def get(api: Api, identifier: str) -> Json:
    """Return an API by id or identifier. Scope ``read:resource_servers``.

    Raises:
        TenantNotFoundError: there is none; the identifier's last slash counts.
    """
    reply = await api.request(
        "GET",
        path("resource-servers", identifier),
        what="show the API",
        scope="read:resource_servers",
    )
    return _clean(reply.json())


async def delete(api: Api, identifier: str) -> bool:
    """Delete an API (204). Scope ``delete:resource_servers``."""
    return await delete_at(
        api,
        path("resource-servers", identifier),
        what="delete the API",
        scope="delete:resource_servers",
    )


def _clean(row: Json) -> Json:
    text(row, "id")
    return without_secrets(row)
