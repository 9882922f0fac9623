"""Common parts of the calls: objects without secrets, deletions, missing calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from agentvault_tui.clock import Deadline
from agentvault_tui.errors import (
    TenantCredentialError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.vault.api import Purpose, TenantApi
from agentvault_tui.vault.reply import Json
from agentvault_tui.vault.tenant import Tenant

DONE: Final = (200, 202, 204)
"""A deletion's statuses: done, or accepted to be done soon."""
PATIENT: Final = 30.0
"""Seconds to wait for a deletion, by default; who needs more asks again later."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_LONGEST: Final = 2048
"""Characters of an id that is stored or sent back."""
_GONE: Final = frozenset({402, 405, 410})
_PLAN: Final = frozenset((
    "feature_not_enabled", "insufficient_entitlement", "insufficient_plan",
    "operation_not_supported", "trial_expired",
))  # fmt: skip
_SECRET: Final = frozenset((
    "app_secret", "client_secret", "encryption_key", "password", "private_key",
    "refresh_token", "signing_keys", "tls_client_auth_key",
))  # fmt: skip


def without_secrets(row: Json) -> Json:
    """Return *row* without the members in which Auth0 gives secrets away."""
    return {
        name: _cleaned(inner)
        for name, inner in row.items()
        # A client's member of that name holds settings, and no token.
        if name not in _SECRET or (name == "refresh_token" and isinstance(inner, dict))
    }


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return without_secrets(value)
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


def text(row: Json, *names: str) -> str:
    """Return the first of *names* that *row* has.

    Raises:
        TenantUnreachableError: it has none that is a string of a storable length.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST:
            return value
    raise TenantUnreachableError(f"the tenant sent an object without its {names[0]}")


def strings(value: object) -> tuple[str, ...]:
    """Return the strings of a list, or the words of a string."""
    listed = value.split() if isinstance(value, str) else value
    if not isinstance(listed, list):
        return ()
    return tuple(one for one in listed if isinstance(one, str))


def object_rows(value: object) -> list[Json]:
    """Return the objects of a list; of anything else, none."""
    listed = value if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, dict)]


async def delete_at(api: TenantApi, path: str, purpose: Purpose) -> bool:
    """Delete the object at *path*; return whether it existed.

    A missing object is no error: a deletion is repeated when its answer is lost.

    Raises:
        TenantError: as `TenantApi.request`.
    """
    try:
        await api.request("DELETE", path, expect=DONE, purpose=purpose)
    except TenantNotFoundError:
        return False
    return True


async def settled(
    tenant: Tenant, is_so: Callable[[], Awaitable[bool]], seconds: float = PATIENT
) -> bool:
    """Ask *is_so* until it says yes, for at most *seconds*; return its last word.

    Auth0 answers 202 or 204 to deletions that are "eventually consistent".
    """
    deadline = Deadline.after(tenant.clock, seconds)
    pause = _FIRST_PAUSE
    while not await is_so():
        left = deadline.remaining(tenant.clock)
        if left <= 0:
            return False
        await tenant.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def by_plan(error: TenantRefusedError) -> bool:
    """Check whether the tenant's plan, by its own answer, lacks the feature."""
    return error.status == 402 or error.error in _PLAN


def is_not_offered(error: TenantRefusedError) -> bool:
    """Check whether *error* means that the call is not there at all.

    Auth0 documents no status for it. A missing object has a code of its own
    (``inexistent_user``), a missing path has none.
    """
    missing_object = error.error.startswith("inexistent_")
    return (
        error.status in _GONE
        or by_plan(error)
        or (isinstance(error, TenantNotFoundError) and not missing_object)
        or (
            error.status == 403
            and not isinstance(error, TenantScopeError | TenantCredentialError)
        )
    )
