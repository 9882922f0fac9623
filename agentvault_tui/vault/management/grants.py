"""What people allowed clients to do (``/grants``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import DONE, strings, text
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.reply import Json


@dataclass(frozen=True, slots=True)
class Grant:
    """A person's consent: this client, this API, these scopes."""

    id: str
    user_id: str
    client_id: str
    audience: str
    scopes: tuple[str, ...]


async def every(
    api: Api, *, user_id: str | None = None, client_id: str | None = None
) -> AsyncIterator[Grant]:
    """Yield all grants, of one person or client. Scope ``read:grants``."""
    rows = api.by_page(
        "grants",
        "grants",
        query={"user_id": user_id, "client_id": client_id},
        what="list its grants",
        scope="read:grants",
    )
    async for row in rows:
        yield _grant(row)


async def delete(api: Api, grant_id: str) -> bool:
    """Take a grant back, and the refresh tokens under it (204). ``delete:grants``."""
    return await delete_at(
        api,
        path("grants", grant_id),
        what="delete the grant",
        scope="delete:grants",
    )


async def delete_all_of_user(api: Api, user_id: str) -> None:
    """Take all grants of a person back, for every client. Scope ``delete:grants``."""
    await api.request(
        "DELETE",
        "grants",
        query={"user_id": user_id},
        expect=DONE,
        what="delete the person's grants",
        scope="delete:grants",
    )


def _grant(row: Json) -> Grant:
    # ``clientID`` is how this one endpoint spells it.
    audience = row.get("audience")
    return Grant(
        id=text(row, "id"),
        user_id=text(row, "user_id"),
        client_id=text(row, "clientID", "client_id"),
        audience=audience if isinstance(audience, str) else "",
        scopes=strings(row.get("scope")),
    )
