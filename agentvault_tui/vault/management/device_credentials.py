"""Refresh tokens as every plan lists them (``/device-credentials``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.refresh_tokens import StoredToken
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.management.rows import text

_TYPES: Final = ("refresh_token", "rotating_refresh_token")


async def every(api: Api, user_id: str, client_id: str) -> AsyncIterator[StoredToken]:
    """Yield a person's refresh tokens for a client. ``read:device_credentials``."""
    for kind in _TYPES:
        rows = api.by_page(
            "device-credentials",
            "device_credentials",
            query={"user_id": user_id, "client_id": client_id, "type": kind},
            what="list device credentials",
            scope="read:device_credentials",
        )
        async for row in rows:
            # Not everything listed says whose it is; what was asked for does.
            found = StoredToken(
                text(row, "id"),
                text({"user_id": user_id} | row, "user_id"),
                text({"client_id": client_id} | row, "client_id"),
            )
            if (found.user_id, found.client_id) == (user_id, client_id):
                yield found


async def delete(api: Api, credential_id: str) -> bool:
    """End a refresh token (204). Scope ``delete:device_credentials``."""
    return await delete_at(
        api,
        path("device-credentials", credential_id),
        what="delete the device credential",
        scope="delete:device_credentials",
    )
