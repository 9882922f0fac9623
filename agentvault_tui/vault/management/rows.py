"""What the calls have in common: objects without secrets, deletions, sure ids."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.errors import TenantNotFoundError, TenantUnreachableError
from agentvault_tui.vault.api import Api, Query
from agentvault_tui.vault.reply import Json

DONE: Final = (200, 202, 204)
"""A deletion's statuses: done, or accepted to be done soon."""
_LONGEST: Final = 2048
"""Characters of an id that is stored or sent back."""
_SECRET: Final = frozenset(
    {
        "app_secret",
        "client_secret",
        "encryption_key",
        "password",
        "private_key",
        "refresh_token",
        "signing_keys",
        "tls_client_auth_key",
    }
)


def without_secrets(row: Json) -> Json:
    """Return *row* without the members in which Auth0 gives secrets away."""
    return {
        name: _cleaned(inner)
        for name, inner in row.items()
        # A client's member of that name holds settings, and no token.
        if name not in _SECRET or (name == "refresh_token" and isinstance(inner, dict))
    }


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return without_secrets(value)
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


def text(row: Json, *names: str) -> str:
    """Return the first of *names* that *row* has, which it must.

    Raises:
        TenantUnreachableError: it has none that is a string, of a length one can store.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST:
            return value
    raise TenantUnreachableError(f"the tenant sent an object without its {names[0]}")


def strings(value: Any) -> tuple[str, ...]:
    """Return the strings of a list, or the words of a string."""
    listed = value.split() if isinstance(value, str) else value
    if not isinstance(listed, list):
        return ()
    return tuple(one for one in listed if isinstance(one, str))


def objects(value: Any) -> list[Json]:
    """Return the objects of a list; of anything else, none."""
    listed = value if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, dict)]


async def delete(
    api: Api, path: str, *, what: str, scope: str, query: Query | None = None
) -> bool:
    """Delete the object at *path*; tell whether it was there.

    What is gone already is what was wanted: a second try of a deletion whose answer
    was lost ends well.

    Raises:
        TenantError: as `Api.request`.
    """
    try:
        await api.request(
            "DELETE", path, query=query, expect=DONE, what=what, scope=scope
        )
    except TenantNotFoundError:
        return False
    return True
