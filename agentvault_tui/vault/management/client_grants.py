"""Which client may use which API (``/client-grants``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from agentvault_tui.errors import TenantRefusedError, TenantUnreachableError
from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.management.rows import strings, text
from agentvault_tui.vault.reply import Json


async def every(
    api: Api, *, client_id: str | None = None, audience: str | None = None
) -> AsyncIterator[Json]:
    """Yield client grants. Scope ``read:client_grants``."""
    rows = api.by_checkpoint(
        "client-grants",
        "client_grants",
        query={"client_id": client_id, "audience": audience},
        what="list its client grants",
        scope="read:client_grants",
    )
    async for row in rows:
        yield row


async def create(api: Api, grant: Mapping[str, Any]) -> Json:
    """Let a client use an API (201), and see that it stands so.

    Scopes ``create:client_grants`` and ``read:client_grants``.

    Raises:
        TenantRefusedError: ``stored_otherwise``: as another ``subject_type``, or with
            other scopes, than was asked for.
    """
    reply = await api.request(
        "POST",
        "client-grants",
        body=dict(grant),
        expect=(201,),
        what="make a client grant",
        scope="create:client_grants",
    )
    return await _stored(api, text(reply.json(), "id"), grant)


async def patch(api: Api, grant_id: str, changes: Mapping[str, Any]) -> Json:
    """Change a client grant (200), and see that it stands so; as creating one."""
    reply = await api.request(
        "PATCH",
        path("client-grants", grant_id),
        body=dict(changes),
        what="change the client grant",
        scope="update:client_grants",
    )
    changed = reply.json()
    known = {name: changed.get(name) for name in ("client_id", "audience")}
    return await _stored(api, grant_id, {**known, **changes})


async def delete(api: Api, grant_id: str) -> bool:
    """Take an API from a client (204); its tokens live on. ``delete:client_grants``."""
    return await delete_at(
        api,
        path("client-grants", grant_id),
        what="delete the client grant",
        scope="delete:client_grants",
    )


async def _stored(api: Api, grant_id: str, wanted: Mapping[str, Any]) -> Json:
    """Read a client grant again: some were stored as another kind than was sent."""
    async for row in every(
        api, client_id=wanted.get("client_id"), audience=wanted.get("audience")
    ):
        if row.get("id") == grant_id:
            for name in ("subject_type", "scope"):
                _compare(name, wanted, row)
            return row
    raise TenantUnreachableError(
        "the tenant does not list the client grant it just stored", "try again"
    )


def _compare(name: str, wanted: Mapping[str, Any], row: Json) -> None:
    asked, found = wanted.get(name), row.get(name)
    if asked is None or asked == found:
        return
    if isinstance(asked, list) and sorted(asked) == sorted(strings(found)):
        return
    raise TenantRefusedError(
        "stored_otherwise",
        f"the tenant stored the client grant with another {name} than was sent",
        "delete the client grant in the dashboard and make it there",
    )
