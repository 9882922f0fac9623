"""Ending the refresh tokens of one person for one client, whatever the plan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agentvault_tui.errors import (
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.text import Shown, visible
from agentvault_tui.vault.api import Api
from agentvault_tui.vault.management import device_credentials, refresh_tokens
from agentvault_tui.vault.management.offered import not_offered
from agentvault_tui.vault.management.refresh_tokens import StoredToken
from agentvault_tui.vault.management.settling import PATIENT, settled


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was done, and what was then seen."""

    ways: tuple[str, ...]
    """The calls that did it."""
    ended: int
    """Tokens ended one by one; what `refresh-tokens/revoke` ended is not counted."""
    confirmed: bool
    """Whether a later reading showed that none is left."""
    refused: tuple[Shown, ...]
    """What the tenant said of the ways it does not have or does not let us use."""
    unread: TenantScopeError | None = None
    """What keeps us from reading a list there is: no other one stands for it."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the tenant's lists of refresh tokens, and how to take from it."""

    name: str
    every: Callable[[Api, str, str], AsyncIterator[StoredToken]]
    delete: Callable[[Api, str], Awaitable[bool]]


async def _of_user(
    api: Api, user_id: str, client_id: str
) -> AsyncIterator[StoredToken]:
    """Yield what the person has for this client: the list has every client's."""
    async for token in refresh_tokens.every_of_user(api, user_id):
        if token.client_id == client_id:
            yield token


_BULK: Final = "refresh-tokens/revoke"
_LISTS: Final = (
    _Way("device-credentials", device_credentials.every, device_credentials.delete),
    _Way("users/refresh-tokens", _of_user, refresh_tokens.delete),
)


async def revoke_refresh_tokens(
    api: Api, user_id: str, client_id: str, *, seconds: float = PATIENT
) -> Revoked:
    """End the tokens by the first way the plan has, and see that they are gone.

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
    return Revoked(
        ways=tuple(ways),
        ended=ended,
        confirmed=confirmed,
        refused=tuple(visible(problem.what, 300) for problem in problems),
        unread=unread,
    )


async def _bulk(api: Api, user_id: str, client_id: str) -> int:
    await refresh_tokens.revoke(api, user_id, client_id=client_id)
    return 0


async def _end_all(api: Api, way: _Way, user_id: str, client_id: str) -> int:
    # Listed first: deleting while paging would skip some.
    tokens = [token async for token in way.every(api, user_id, client_id)]
    for token in tokens:
        await way.delete(api, token.id)
    return len(tokens)


async def _left(api: Api, way: _Way, user_id: str, client_id: str) -> int:
    return len([token async for token in way.every(api, user_id, client_id)])


async def _is_confirmed(
    api: Api, user_id: str, client_id: str, seconds: float
) -> tuple[bool, TenantScopeError | None]:
    """Read every list the plan has until it is empty; none can: not confirmed.

    A list that is there and closed to us may hold what the others do not know of.
    """
    readable = 0
    problems: list[TenantRefusedError] = []
    for way in _LISTS:

        async def none_left(way: _Way = way) -> bool:
            nonlocal readable
            left = await _tried(_left(api, way, user_id, client_id), problems)
            readable += left is not None
            return not left

        if not await settled(api.tenant, none_left, seconds):
            return False, None
    unread = next((one for one in problems if isinstance(one, TenantScopeError)), None)
    return readable > 0 and unread is None, unread


async def _tried(
    work: Awaitable[int], problems: list[TenantRefusedError]
) -> int | None:
    """Await *work*; nothing, and a problem kept, when its way is closed to us.

    Raises:
        TenantRefusedError: any other refusal.
    """
    try:
        return await work
    except TenantRefusedError as error:
        if isinstance(error, TenantScopeError) or not_offered(error) is not None:
            problems.append(error)
            return None
        if isinstance(error, TenantNotFoundError):
            return 0  # No such person: no tokens either.
        raise
