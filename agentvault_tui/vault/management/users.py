"""People and agents' vault users, and the accounts they connected (``/users``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.offered import NotOffered, not_offered
from agentvault_tui.vault.management.rows import delete, strings, text, without_secrets
from agentvault_tui.vault.reply import Json
from agentvault_tui.vault.secret import Secret

_SCOPES, _LONGEST = 100, 500
"""Of an account's scopes: Auth0's own bound on how many, and ours on each."""


@dataclass(frozen=True, slots=True)
class ConnectedAccount:
    """An account at a provider whose tokens Token Vault keeps for a person."""

    id: str
    connection: str
    scopes: tuple[str, ...]
    """All that the person allowed; an exchange never gives less."""
    created_at: str


@dataclass(frozen=True, slots=True)
class Tokenset:
    """A vault entry as the calls of before July 2026 have it."""

    id: str
    connection: str
    scopes: tuple[str, ...]


async def create(
    api: Api, profile: Mapping[str, Any], *, password: Secret | None = None
) -> Json:
    """Make a user (201). Scope ``create:users``.

    Raises:
        TenantConflictError: there is one with this address.
    """
    hidden = {} if password is None else {"password": password.reveal()}
    reply = await api.request(
        "POST",
        "users",
        body={**profile, **hidden},
        expect=(201,),
        what="make a user",
        scope="create:users",
    )
    return _user(reply.json())


async def get(api: Api, user_id: str) -> Json:
    """Return a user. Scope ``read:users``.

    Raises:
        TenantNotFoundError: there is none.
    """
    reply = await api.request(
        "GET", path("users", user_id), what="show the user", scope="read:users"
    )
    return _user(reply.json())


async def patch(api: Api, user_id: str, changes: Mapping[str, Any]) -> Json:
    """Change a user (200). Scope ``update:users``.

    ``{"blocked": true}`` refuses sign-ins and refreshes; access tokens live on.
    """
    reply = await api.request(
        "PATCH",
        path("users", user_id),
        body=dict(changes),
        what="change the user",
        scope="update:users",
    )
    return _user(reply.json())


async def connected_accounts(api: Api, user_id: str) -> AsyncIterator[ConnectedAccount]:
    """Yield what Token Vault keeps for a user. Scope ``read:users``.

    There is no call to delete one: only the user can, see `vault.my_account`.
    """
    rows = api.by_checkpoint(
        path("users", user_id, "connected-accounts"),
        "connected_accounts",
        what="list the user's connected accounts",
        scope="read:users",
    )
    async for row in rows:
        yield account(row)


async def tokensets(api: Api, user_id: str) -> list[Tokenset] | NotOffered:
    """Return the user's vault entries, where the tenant still has the call."""
    try:
        reply = await api.request(
            "GET",
            path("users", user_id, "federated-connections-tokensets"),
            what="list the user's tokensets",
            scope="read:federated_connections_tokens",
        )
    except TenantRefusedError as error:
        return _or_raise(error)
    return [
        Tokenset(
            text(row, "id"),
            text(row, "connection"),
            strings(row.get("scope") or row.get("scopes")),
        )
        for row in reply.rows()
    ]


async def delete_tokenset(
    api: Api, user_id: str, tokenset_id: str
) -> bool | NotOffered:
    """Delete a vault entry, where the tenant still has the call; was it there?

    No revocation may depend on it: Auth0 took it out of its SDKs in July 2026.
    """
    listed = await tokensets(api, user_id)
    if isinstance(listed, NotOffered):
        return listed
    if tokenset_id not in {one.id for one in listed}:
        return False
    try:
        return await delete(
            api,
            path("users", user_id, "federated-connections-tokensets", tokenset_id),
            what="delete the tokenset",
            scope="delete:federated_connections_tokens",
        )
    except TenantRefusedError as error:
        return _or_raise(error)


def account(row: Json) -> ConnectedAccount:
    """Read a connected account, as both APIs have it."""
    created = row.get("created_at")
    return ConnectedAccount(
        id=text(row, "id"),
        connection=text(row, "connection"),
        scopes=tuple(one[:_LONGEST] for one in strings(row.get("scopes"))[:_SCOPES]),
        created_at=created if isinstance(created, str) else "",
    )


def _or_raise(error: TenantRefusedError) -> NotOffered:
    absent = not_offered(error)
    if absent is None:
        raise error
    return absent


def _user(row: Json) -> Json:
    text(row, "user_id")
    # Each identity holds the provider's own tokens, for who may read them.
    identities = [
        {key: value for key, value in one.items() if key != "access_token"}
        for one in row.get("identities") or []
        if isinstance(one, dict)
    ]
    return without_secrets({**row, "identities": identities})
