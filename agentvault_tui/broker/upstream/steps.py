"""What a revocation does at the tenant, in the order that stops most, soonest.

Each step may be done twice with the same outcome, looks again afterwards, and counts
as done only when it was seen to be: Auth0 answers 202 and 204 to what is true later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from agentvault_tui.broker.upstream.holdings import Holding, Holdings
from agentvault_tui.errors import TenantNotFoundError
from agentvault_tui.ledger import Change, OutboxStep
from agentvault_tui.model import AgentId
from agentvault_tui.vault import Management
from agentvault_tui.vault.management import clients
from agentvault_tui.vault.management.revoking import revoke_refresh_tokens
from agentvault_tui.vault.urns import VAULT_GRANT

_SETTLING: Final = 5.0
"""Seconds to wait for a deletion to become true; the outbox asks again later."""

_ACCOUNTS_FIRST: Final = timedelta(minutes=5)


class Step(StrEnum):
    """A step, by the name people read; cutting ones stand in the order of doing."""

    VAULT_GRANT = "vault grant"
    """The client may not use Token Vault any more: holds at its next exchange."""
    ACCOUNTS = "connected accounts"
    """Accounts that no other agent uses are disconnected, while the user's refresh
    token still lives: only the user can, the Management API cannot."""
    REFRESH_TOKENS = "refresh tokens"
    SECRET = "client secret"  # noqa: S105 - a step's name
    """Whoever copied the agent's secret at the tenant is left with nothing."""
    GRANT_BACK = "vault grant back"
    """After a restore: the client may use Token Vault again."""


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try of a step went."""

    problem: str | None
    """Why it is not done; nothing when it is."""
    wait: float = 0.0
    """Seconds before which no other try is worth it."""
    over: Literal["confirmed", "failed", "left"] | None = None
    """How it ended, when another try would change nothing; else time decides."""
    changes: tuple[Change, ...] = ()
    """What else came of it."""


CUTTING: Final = tuple(step for step in Step if step is not Step.GRANT_BACK)
ORDER: Final = {step: number for number, step in enumerate(Step)}


def not_before(step: OutboxStep, others: Iterable[OutboxStep]) -> datetime | None:
    """Return when *step* is to be tried, among *others* of its agent; nothing: now.

    Its accounts are disconnected as their user, with the refresh token that it would
    end. The client's grant is gone by then, so that may live minutes longer, no more.
    """
    accounts = any(s.step == Step.ACCOUNTS and s.status == "pending" for s in others)
    if step.step != Step.REFRESH_TOKENS or not accounts:
        return step.next_at
    at_the_latest = step.begun_at + _ACCOUNTS_FIRST
    return max(at_the_latest, step.next_at or at_the_latest)


def needed(holding: Holding | None, users: Sequence[str] = ()) -> tuple[Step, ...]:
    """Return the steps that cut what an agent, and *users* for it, hold there."""
    if holding is None:
        return ()
    found = [Step.VAULT_GRANT]
    if any(not account.shared for account in holding.accounts):
        found.append(Step.ACCOUNTS)
    if holding.users or users:
        found.append(Step.REFRESH_TOKENS)
    if holding.has_secret:
        found.append(Step.SECRET)
    return tuple(found)


async def do(row: OutboxStep, api: Management, holdings: Holdings) -> bool:
    """Do the step of *row*; tell whether it is true now.

    Raises:
        TenantError: the tenant refused, or did not answer.
    """
    agent_id = row.agent_id
    holding = holdings.of(agent_id)
    if holding is None:
        return True  # its client is gone from here: nothing is left to cut
    match Step(row.step):
        case Step.VAULT_GRANT:
            return await _vault_grant(api, holding.client_id, given=False)
        case Step.GRANT_BACK:
            return await _vault_grant(api, holding.client_id, given=True)
        case Step.ACCOUNTS:
            return await _accounts(holdings, holding, agent_id)
        case Step.REFRESH_TOKENS:
            return await _refresh_tokens(api, holding.client_id, row.users)
        case Step.SECRET:
            try:
                secret = await clients.rotate_secret(api, holding.client_id)
            except TenantNotFoundError:
                return True
            holdings.keep_secret(agent_id, secret)
            return True


async def _vault_grant(api: Management, client_id: str, *, given: bool) -> bool:
    """Give or take the client's Token Vault grant, and read whether it is so."""
    try:
        listed = _grants(await clients.get(api, client_id))
        wanted = [grant for grant in listed if grant != VAULT_GRANT]
        if given:
            wanted.append(VAULT_GRANT)
        if sorted(wanted) != sorted(listed):
            await clients.patch(api, client_id, {"grant_types": wanted})
            listed = _grants(await clients.get(api, client_id))
    except TenantNotFoundError:
        if given:
            raise
        return True
    return (VAULT_GRANT in listed) is given


async def _accounts(holdings: Holdings, holding: Holding, agent_id: AgentId) -> bool:
    own = [account for account in holding.accounts if not account.shared]
    gone = [await holdings.disconnect(agent_id, account) for account in own]
    return all(gone)


async def _refresh_tokens(
    api: Management, client_id: str, users: Iterable[str]
) -> bool:
    confirmed, unread = True, None
    for user_id in users:
        done = await revoke_refresh_tokens(api, user_id, client_id, seconds=_SETTLING)
        confirmed = confirmed and done.confirmed
        unread = unread or done.unread
    if unread is not None:
        # What could be ended is; that nothing is left takes the scope it names.
        raise unread
    return confirmed


def _grants(client: dict[str, object]) -> list[str]:
    found = client.get("grant_types")
    return [str(grant) for grant in found] if isinstance(found, list) else []
