"""A revocation's steps at the tenant, the most effective first.

Each step may be done twice with the same outcome, looks again afterwards, and counts as
done only when its effect was seen: Auth0 answers 202 and 204 before the effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from agentvault_tui.broker.upstream.access import (
    DONE,
    NOT_YET,
    Holding,
    Holdings,
    Tried,
    combine_attempts,
)
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    TenantNotFoundError,
    TenantRefusedError,
)
from agentvault_tui.ledger import OutboxStep
from agentvault_tui.model import Account, AgentId
from agentvault_tui.text import visible
from agentvault_tui.vault import Management
from agentvault_tui.vault.credentials import VAULT_GRANT
from agentvault_tui.vault.management.objects import clients
from agentvault_tui.vault.management.revoking import revoke_refresh_tokens

_SETTLING: Final = 5.0
"""Seconds to wait for a deletion to become true; the outbox asks again later."""

_ACCOUNTS_FIRST: Final = timedelta(minutes=5)


class Step(StrEnum):
    """A step, by the name people read; cutting ones stand in the order of doing."""

    VAULT_GRANT = "vault grant"
    """Remove the Token Vault grant of its client: holds at its next exchange."""
    ACCOUNTS = "connected accounts"
    """Disconnect accounts no other agent uses, as their user: no other party can."""
    HELD_TOKEN = "held refresh token"  # noqa: S105 - a step's name
    """Revoke the refresh token stored here (RFC 7009), as the client it was issued
    to."""
    REFRESH_TOKENS = "refresh tokens"
    """Revoke all others of the same user and client."""
    SECRET = "client secret"  # noqa: S105 - a step's name
    """Rotate its client's secret."""
    GRANT_BACK = "vault grant back"
    """After a restore: give the Token Vault grant back."""


CUTTING: Final = tuple(step for step in Step if step is not Step.GRANT_BACK)
AS_THE_AGENT: Final = frozenset({Step.ACCOUNTS, Step.HELD_TOKEN})
"""Steps done with the agent's own credentials; others take the Management API."""
NO_CREDENTIAL: Final = "no Management API credential here: agentvault auth0 apply"
_ORDER: Final[dict[str, int]] = {step: number for number, step in enumerate(Step)}


def rank(row: OutboxStep) -> tuple[int, str]:
    """Return the sort key of rows in the kill order; providers' come last, by name."""
    return _ORDER.get(row.step, len(_ORDER)), row.connection


def reason(row: OutboxStep) -> str | None:
    """Return the stable code of why *row* is not done, where there is one."""
    lacking = row.problem == NO_CREDENTIAL and row.status in {"pending", "failed"}
    return "no_credential" if lacking else None


def lacks_credential(row: OutboxStep) -> bool:
    """Check whether *row* was given up only because nothing here may do it yet."""
    return row.status == "failed" and row.problem == NO_CREDENTIAL


def not_before(step: OutboxStep, others: Iterable[OutboxStep]) -> datetime | None:
    """Return when *step* is to be tried, among *others* of its agent; None: now.

    Accounts are disconnected with the refresh token that this step would end, so it
    waits for them, some minutes at most.
    """
    accounts = any(s.step == Step.ACCOUNTS and s.status == "pending" for s in others)
    if step.step not in {Step.HELD_TOKEN, Step.REFRESH_TOKENS} or not accounts:
        return step.next_at
    at_the_latest = step.begun_at + _ACCOUNTS_FIRST
    return max(at_the_latest, step.next_at or at_the_latest)


def needed(
    holding: Holding | None, users: Sequence[str] = (), *, token: bool = False
) -> tuple[Step, ...]:
    """Return the steps that end the rights of an agent, and of *users* for it, there.

    *token* is whether a refresh token of theirs is stored here.
    """
    held = (Step.HELD_TOKEN,) if token else ()
    if holding is None:
        return held
    steps = [Step.VAULT_GRANT]
    if holding.accounts:
        steps.append(Step.ACCOUNTS)
    steps += held
    if holding.users or users:
        steps.append(Step.REFRESH_TOKENS)
    if holding.has_secret:
        steps.append(Step.SECRET)
    return tuple(steps)


async def do_as_agent(row: OutboxStep, holdings: Holdings) -> Tried:
    """Do the step of *row*, one of `AS_THE_AGENT`; return the result."""
    if row.step == Step.HELD_TOKEN:
        return await holdings.end_token(row.agent_id)
    holding = holdings.of(row.agent_id)
    accounts = holding.accounts if holding else ()
    # One that fails leaves the next one to be tried all the same.
    return combine_attempts([await _account(holdings, one) for one in accounts])


async def do(row: OutboxStep, api: Management, holdings: Holdings) -> Tried:
    """Do the step of *row* by the Management API; return the result."""
    holding = holdings.of(row.agent_id)
    if holding is None:
        return DONE  # its client is gone from here: nothing is left to cut
    match Step(row.step):
        case Step.GRANT_BACK:
            done = await _vault_grant(api, holding.client_id, given=True)
        case Step.VAULT_GRANT:
            done = await _vault_grant(api, holding.client_id, given=False)
        case Step.REFRESH_TOKENS:
            done = await _refresh_tokens(api, holding.client_id, row.users)
        case Step.SECRET:
            done = await _secret(api, holding.client_id, row.agent_id, holdings)
        case other:
            raise AssertionError(f"{other} takes no Management API")
    return DONE if done else NOT_YET


async def _account(holdings: Holdings, account: Account) -> Tried:
    """Disconnect one account; a refusal lets the other steps go on."""
    try:
        return await holdings.disconnect(account)
    except (NotFoundError, TenantRefusedError) as error:
        stays = f"{visible(account.connection, 60)} stays: {error.diagnosis()}"
        return Tried(stays, over="failed")
    except AgentVaultError as error:
        return Tried.of(error)


async def _secret(
    api: Management, client_id: str, agent_id: AgentId, holdings: Holdings
) -> bool:
    """Rotate the client's secret, and store the new one for a restore."""
    try:
        secret = await clients.rotate_secret(api, client_id)
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
    grants = client.get("grant_types")
    return [str(grant) for grant in grants] if isinstance(grants, list) else []
