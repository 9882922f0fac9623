"""Which answers are retried, and how long to wait before that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import Tenant

Jitter = Callable[[], float]
"""Returns a number from 0 to 1, another each time."""

IDEMPOTENT: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""PATCH too: all of ours set values, and none adds to any."""
_FIRST, _LONGEST = 0.5, 20.0
_FAILURES: Final = 3
"""Tries after which silence and 5xx are taken for an answer."""
_random: Final[Jitter] = SystemRandom().random


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often to try, and how many seconds to wait in all between the tries."""

    attempts: int = 10
    seconds: float = 90.0
    jitter: Jitter = _random


async def persist(
    send: Callable[[], Awaitable[TenantReply]],
    tenant: Tenant,
    patience: RetryLimits,
    *,
    repeatable: bool,
) -> TenantReply:
    """Send until the answer is final, or *patience* ends; return the last one.

    A 429 was not carried out and is always tried again; after a 408, a 5xx or no
    answer at all it may have been, so only what is *repeatable* is.

    Raises:
        TenantUnreachableError: no answer came, the last time.
    """
    waited, attempt = 0.0, 0
    while True:
        attempt += 1
        outcome: TenantReply | TenantUnreachableError
        try:
            outcome = await send()
        except TenantUnreachableError as error:
            outcome = error
        pause = _pause(outcome, attempt, tenant, patience.jitter)
        if (
            not _is_worth_more(outcome, attempt, repeatable=repeatable)
            or attempt >= patience.attempts
            or waited + pause > patience.seconds
        ):
            break
        await tenant.sleep(pause)
        waited += pause
    if isinstance(outcome, TenantUnreachableError):
        raise outcome
    return outcome


def _is_worth_more(
    outcome: TenantReply | TenantUnreachableError, attempt: int, *, repeatable: bool
) -> bool:
    if isinstance(outcome, TenantReply):
        if outcome.status == 429:
            return True
        if outcome.status < 500 and outcome.status not in {408, 425}:
            return False
    return repeatable and attempt < _FAILURES


def _pause(
    outcome: TenantReply | TenantUnreachableError,
    attempt: int,
    tenant: Tenant,
    jitter: Jitter,
) -> float:
    """Return how long to wait: what the tenant said, else an exponential backoff.

    With jitter, for every client is told the same moment of renewal.
    """
    said: float | None = None
    if isinstance(outcome, TenantReply):
        # Every answer has the limit's reset; only a 429 is about it.
        limited = outcome.status == 429
        said = outcome.wait(tenant.clock.now()) if limited else outcome.retry_after
    backoff: float = min(_FIRST * 2.0 ** (attempt - 1), _LONGEST)
    if said is None:
        return backoff * (0.5 + jitter() / 2)
    return said + min(backoff, 1.0) * jitter()
