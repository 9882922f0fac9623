"""Calls that a plan does not have, or that Auth0 took away: an answer, no fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.errors import (
    TenantCredentialError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.text import Shown, visible

_GONE: Final = frozenset({402, 405, 410})
_PLAN: Final = frozenset(
    {
        "feature_not_enabled",
        "insufficient_entitlement",
        "insufficient_plan",
        "operation_not_supported",
        "trial_expired",
    }
)


@dataclass(frozen=True, slots=True)
class NotOffered:
    """The tenant does not have this call, or not on its plan."""

    why: Shown


def by_plan(error: TenantRefusedError) -> bool:
    """Tell whether the tenant's plan, by its own word, does not have what was asked."""
    return error.status == 402 or error.error in _PLAN


def not_offered(error: TenantRefusedError) -> NotOffered | None:
    """Tell whether *error* means that the call is not there at all.

    Auth0 documents no status for it. An object that is missing has a code of its own
    (``inexistent_user``); a path that is missing has not.
    """
    missing_object = error.error.startswith("inexistent_")
    absent = (
        error.status in _GONE
        or by_plan(error)
        or (isinstance(error, TenantNotFoundError) and not missing_object)
        or (
            error.status == 403
            and not isinstance(error, TenantScopeError | TenantCredentialError)
        )
    )
    return NotOffered(visible(error.what, 300)) if absent else None
