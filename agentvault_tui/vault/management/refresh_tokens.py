"""Refresh tokens that the tenant keeps, by each of the ways to list and end them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import DONE, text
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.reply import Json


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A refresh token's entry; the token itself is never shown."""

    id: str
    user_id: str
    client_id: str


async def every(
    api: Api, user_id: str, *, client_id: str | None = None
) -> AsyncIterator[StoredToken]:
    """Yield a person's tokens (Enterprise, early access). ``read:refresh_tokens``."""
    rows = api.by_checkpoint(
        "refresh-tokens",
        "refresh_tokens",
        query={"user_id": user_id, "client_id": client_id},
        what="list refresh tokens",
        scope="read:refresh_tokens",
    )
    async for row in rows:
        yield _token(row)


async def every_of_user(api: Api, user_id: str) -> AsyncIterator[StoredToken]:
    """Yield a person's tokens for all clients (Enterprise). ``read:refresh_tokens``."""
    rows = api.by_checkpoint(
        path("users", user_id, "refresh-tokens"),
        "tokens",
        what="list the person's refresh tokens",
        scope="read:refresh_tokens",
    )
    async for row in rows:
        yield _token(row)


async def get(api: Api, token_id: str) -> Json:
    """Return a token's entry. Scope ``read:refresh_tokens``.

    Raises:
        TenantNotFoundError: there is none, or none any more.
    """
    reply = await api.request(
        "GET",
        path("refresh-tokens", token_id),
        what="show the refresh token",
        scope="read:refresh_tokens",
    )
    return reply.json()


async def delete(api: Api, token_id: str) -> bool:
    """End a token (204, true some time later). Scope ``delete:refresh_tokens``."""
    return await delete_at(
        api,
        path("refresh-tokens", token_id),
        what="delete the refresh token",
        scope="delete:refresh_tokens",
    )


async def delete_all_of_user(api: Api, user_id: str) -> bool:
    """End a person's tokens for *every* client (202). ``delete:refresh_tokens``."""
    return await delete_at(
        api,
        path("users", user_id, "refresh-tokens"),
        what="delete the person's refresh tokens",
        scope="delete:refresh_tokens",
    )


async def revoke(
    api: Api, user_id: str, *, client_id: str | None = None, audience: str | None = None
) -> None:
    """End a person's tokens at once (early access). ``delete:refresh_tokens``."""
    asked = {"user_id": user_id, "client_id": client_id, "audience": audience}
    await api.request(
        "POST",
        "refresh-tokens/revoke",
        body={name: value for name, value in asked.items() if value is not None},
        expect=DONE,
        what="revoke refresh tokens",
        scope="delete:refresh_tokens",
        repeatable=True,
    )


def _token(row: Json) -> StoredToken:
    return StoredToken(
        text(row, "id"), text(row, "user_id"), text(row, "client_id", "clientID")
    )
