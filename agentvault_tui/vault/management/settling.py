"""Waiting until what the tenant accepted has become true, for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from agentvault_tui.clock import Deadline
from agentvault_tui.vault.tenant import Tenant

PATIENT: Final = 30.0
"""Seconds, by default; who needs more asks again later."""
_FIRST, _LONGEST = 0.5, 5.0


async def settled(
    tenant: Tenant, is_so: Callable[[], Awaitable[bool]], seconds: float = PATIENT
) -> bool:
    """Ask *is_so* until it says yes, for at most *seconds*; return its last word.

    Auth0 answers 202 or 204 to deletions that are "eventually consistent".

    Raises:
        TenantError: *is_so* does.
    """
    deadline = Deadline.after(tenant.clock, seconds)
    pause = _FIRST
    while not await is_so():
        left = deadline.remaining(tenant.clock)
        if left <= 0:
            return False
        await tenant.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST)
    return True
