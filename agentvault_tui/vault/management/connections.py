"""Where people sign in and what they connect (``/connections``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import without_secrets
from agentvault_tui.vault.reply import Json


async def every(api: Api, *, name: str | None = None) -> AsyncIterator[Json]:
    """Yield all connections, without their secrets. Scope ``read:connections``."""
    rows = api.by_checkpoint(
        "connections",
        "connections",
        query={"name": name},
        what="list its connections",
        scope="read:connections",
    )
    async for row in rows:
        yield without_secrets(row)


async def of_client(api: Api, client_id: str) -> AsyncIterator[Json]:
    """Yield the names of a client's connections. Scope ``read:connections``.

    Their options, which hold providers' secrets, are not even sent to us.
    """
    rows = api.by_checkpoint(
        path("clients", client_id, "connections"),
        "connections",
        query={"fields": "id,name", "include_fields": True},
        take=50,
        what="list the client's connections",
        scope="read:connections",
    )
    async for row in rows:
        yield without_secrets(row)


async def patch(api: Api, connection_id: str, changes: Mapping[str, Any]) -> Json:
    """Change a connection (200). Scope ``update:connections``.

    ``options`` are replaced whole, and they hold the provider's secret: change
    ``{"connected_accounts": {"active": …}}`` and the like only.
    """
    reply = await api.request(
        "PATCH",
        path("connections", connection_id),
        body=dict(changes),
        what="change the connection",
        scope="update:connections",
    )
    return without_secrets(reply.json())


async def clients(api: Api, connection_id: str) -> AsyncIterator[str]:
    """Yield the ids of the clients it is enabled for. Scope ``read:connections``."""
    rows = api.by_checkpoint(
        path("connections", connection_id, "clients"),
        "clients",
        what="list the connection's clients",
        scope="read:connections",
    )
    async for row in rows:
        client_id = row.get("client_id")
        if isinstance(client_id, str):
            yield client_id


async def set_clients(
    api: Api, connection_id: str, enabled: Mapping[str, bool]
) -> None:
    """Enable or cut clients of a connection (204). Scope ``update:connections``."""
    await api.request(
        "PATCH",
        path("connections", connection_id, "clients"),
        body=[
            {"client_id": client_id, "status": status}
            for client_id, status in enabled.items()
        ],
        expect=(200, 204),
        what="change the connection's clients",
        scope="update:connections",
    )
