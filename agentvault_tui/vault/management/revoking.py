"""End the refresh tokens of one person for one client, on any plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from agentvault_tui.errors import (
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.text import Shown, visible
from agentvault_tui.vault.api import Purpose, TenantApi
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import (
    DONE,
    PATIENT,
    delete_at,
    is_not_offered,
    settled,
    text,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RevocationResult:
    """The done steps, and the state read afterwards."""

    ways: tuple[str, ...]
    """The calls that did it."""
    ended: int
    """Tokens ended one by one; those ended by `refresh-tokens/revoke` are not
    counted."""
    confirmed: bool
    """Whether a later reading showed that none is left."""
    refused: tuple[Shown, ...]
    """The tenant's answers about ways that it lacks or does not permit."""
    unread: TenantScopeError | None = None
    """The problem of reading an existing list: no other one replaces it."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the tenant's lists of refresh tokens."""

    name: str
    ids: Callable[[TenantApi, str, str], Awaitable[list[str]]]
    where: str
    noun: str

    async def delete(self, api: TenantApi, identity: str) -> None:
        """End one token (204; true some time later)."""
        scope = f"delete:{self.where.replace('-', '_')}"
        purpose = Purpose(f"delete the {self.noun}", scope)
        await delete_at(api, f"{self.where}/{path(identity)}", purpose)


async def device_credentials(api: TenantApi, user_id: str, client_id: str) -> list[str]:
    """Return the ids of a person's tokens for a client (on every plan)."""
    credentials = []
    for kind in ("refresh_token", "rotating_refresh_token"):
        rows = api.by_page(
            "device-credentials",
            "device_credentials",
            query={"user_id": user_id, "client_id": client_id, "type": kind},
            purpose=Purpose("list device credentials", "read:device_credentials"),
        )
        async for row in rows:
            # Not everything listed says whose it is; what was asked for does.
            whose = text({"user_id": user_id} | row, "user_id")
            whats = text({"client_id": client_id} | row, "client_id")
            identity = text(row, "id")
            if (whose, whats) == (user_id, client_id):
                credentials.append(identity)
    return credentials


async def user_tokens(api: TenantApi, user_id: str, client_id: str) -> list[str]:
    """Return the ids of a person's tokens for a client (Enterprise)."""
    rows = api.by_checkpoint(
        path("users", user_id, "refresh-tokens"),
        "tokens",
        purpose=Purpose("list the person's refresh tokens", "read:refresh_tokens"),
    )
    return [
        text(row, "id")
        async for row in rows
        if text(row, "client_id", "clientID") == client_id
    ]


_BULK: Final = "refresh-tokens/revoke"
_LISTS: Final = (
    _Way(
        "device-credentials",
        device_credentials,
        "device-credentials",
        "device credential",
    ),
    _Way("users/refresh-tokens", user_tokens, "refresh-tokens", "refresh token"),
)


async def revoke_refresh_tokens(
    api: TenantApi, user_id: str, client_id: str, *, seconds: float = PATIENT
) -> RevocationResult:
    """End the tokens by the first way the plan has, and read that they are gone.

    In turn: the bulk call (early access), then both lists, device credentials (every
    plan) and the person's refresh tokens (Enterprise), for either may know of a token
    that the other does not.

    Raises:
        TenantRefusedError: no way is there or allowed; the last one's words.
        TenantUnreachableError: the tenant does not answer.
    """
    ways: list[str] = []
    problems: list[TenantRefusedError] = []
    ended = 0
    if await _tried(_bulk(api, user_id, client_id), problems) is not None:
        ways.append(_BULK)
    else:
        for way in _LISTS:
            count = await _tried(_end_all(api, way, user_id, client_id), problems)
            if count is not None:
                ways.append(way.name)
                ended += count
    if not ways:
        raise problems[-1]
    confirmed, unread = await _is_confirmed(api, user_id, client_id, seconds)
    return RevocationResult(
        ways=tuple(ways),
        ended=ended,
        confirmed=confirmed,
        refused=tuple(visible(problem.what, 300) for problem in problems),
        unread=unread,
    )


async def _bulk(api: TenantApi, user_id: str, client_id: str) -> int:
    """End a person's tokens for a client at once (early access)."""
    await api.request(
        "POST",
        _BULK,
        body={"user_id": user_id, "client_id": client_id},
        expect=DONE,
        purpose=Purpose("revoke refresh tokens", "delete:refresh_tokens"),
        repeatable=True,
    )
    return 0


async def _end_all(api: TenantApi, way: _Way, user_id: str, client_id: str) -> int:
    # Listed first: deleting while paging would skip some.
    tokens = await way.ids(api, user_id, client_id)
    for token in tokens:
        await way.delete(api, token)
    return len(tokens)


async def _is_confirmed(
    api: TenantApi, user_id: str, client_id: str, seconds: float
) -> tuple[bool, TenantScopeError | None]:
    """Read every list the plan has until it is empty; none can be read: not confirmed.

    A closed list may hold tokens that the others do not.
    """
    readable = 0
    problems: list[TenantRefusedError] = []
    for way in _LISTS:

        async def none_left(way: _Way = way) -> bool:
            nonlocal readable
            left = await _tried(way.ids(api, user_id, client_id), problems)
            readable += left is not None
            return not left

        if not await settled(api.tenant, none_left, seconds):
            return False, None
    unread = next((one for one in problems if isinstance(one, TenantScopeError)), None)
    return readable > 0 and unread is None, unread


async def _tried(
    work: Awaitable[T], problems: list[TenantRefusedError]
) -> T | Literal[0] | None:
    """Await *work*; None, its problem stored, when the call is missing or forbidden."""
    try:
        return await work
    except TenantRefusedError as error:
        if isinstance(error, TenantScopeError) or is_not_offered(error):
            problems.append(error)
            return None
        if isinstance(error, TenantNotFoundError):
            return 0  # No such person: no tokens either.
        raise
