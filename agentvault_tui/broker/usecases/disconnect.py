"""Take an account from an agent: close it here at once, then delete it there.

With the last one the refresh token of its vault user is revoked (RFC 7009, by the
client it was issued to), and then deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.upstream.access import DONE, NOT_YET, Tried
from agentvault_tui.broker.usecases.connect import account_draft, my_account
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    NotFoundError,
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
)
from agentvault_tui.ledger import DropAccount
from agentvault_tui.model import (
    Account,
    Actor,
    Agent,
    AgentId,
    AgentStatus,
    EventType,
)
from agentvault_tui.text import visible
from agentvault_tui.vault import Priority, probe_refresh_token, revoke_token
from agentvault_tui.vault.management.objects import clients

log = logging.getLogger("agentvault.sign_out")


async def end_held_token(broker: Broker, agent_id: AgentId) -> Tried:
    """Revoke the token at the tenant; forget it once it is seen to be dead."""
    reaching = broker.reaching
    users, tenant = reaching.vault.users, reaching.tenant
    user = users.of(agent_id)
    if user is None:
        if users.sub_of(agent_id) is None:
            return DONE
        return Tried("the refresh token kept for it does not open")
    credential = reaching.vault.credential(agent_id)
    if user.client_id not in {"", credential.client_id}:
        # Shown by another client it is refused, or answered as an unknown one is.
        whose = visible(user.client_id, 60)
        return Tried(
            f"it was issued to {whose}, whose secret is not kept: delete that "
            "application at the tenant",
            over="failed",
        )
    try:
        await revoke_token(tenant, credential, user.refresh_token)
        left = await probe_refresh_token(tenant, credential, user.refresh_token)
    except TenantCredentialError:
        if not await _is_gone(broker, credential.client_id):
            raise
        left = None  # of a client there is none of, nobody can use it
    if users.holds(agent_id, user):
        # Another one that is kept by now is of an agent that was restored meanwhile.
        if left is None:
            users.forget(agent_id)
        elif left is not user.refresh_token:
            users.keep(agent_id, replace(user, refresh_token=left))
    return DONE if left is None else NOT_YET


async def _is_gone(broker: Broker, client_id: str) -> bool:
    """Check whether the tenant is seen to have no such client."""
    try:
        management = broker.reaching.access.management
        if management is not None:
            await clients.get(management.at(Priority.REVOCATION), client_id)
    except TenantNotFoundError:
        return True
    except AgentVaultError as error:
        log.warning("whether a client is gone cannot be told: %s", error.what)
    return False


async def sign_out(broker: Broker, agent_id: AgentId) -> None:
    """Delete the agent's stored refresh token, and revoke it at the tenant."""
    reaching = broker.reaching
    user = reaching.vault.users.of(agent_id)
    if user is None:
        return
    # Before the wait: whoever signs in meanwhile is another, and is kept.
    reaching.vault.users.forget(agent_id)
    try:
        credential = reaching.vault.credential(agent_id)
        await revoke_token(reaching.tenant, credential, user.refresh_token)
    except (TenantError, NotFoundError) as error:
        log.warning("the tenant keeps a refresh token nobody has: %s", error.what)


AtTenant = Literal["deleted", "gone", "left"]
"""Deleted now; gone before; or left there, since its user is not signed in here."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of removing an account."""

    account: Account
    at_tenant: AtTenant
    also: tuple[Agent, ...]
    """Other agents that used it, and now do not."""
    outside_until: datetime | None
    """When the last provider token the agent was given ends by itself."""


async def disconnect(
    broker: Broker, agent_id: str, connection: str, operator: Actor, *, shared: bool
) -> Removed:
    """Take the account away: from here on no token of it is given to the agent.

    Args:
        broker: the broker.
        agent_id: the agent.
        connection: which.
        operator: who does it.
        shared: also when other agents use the same account, which ends for them too.

    Returns:
        the result.

    Raises:
        NotFoundError: no such agent, or it has no account there.
        ConflictError: others use it, and *shared* is not set.
        LedgerUnwritableError: it is not known here, and the store did not answer.
        TenantError: it is closed here; the tenant has not deleted it. Ask again.
    """
    registry = broker.registry

    def find() -> Account:
        account = registry.accounts.get(registry.agent(agent_id).id, connection)
        if account is None:
            raise NotFoundError(
                f"the agent has no account at {visible(connection, 60)}",
                "agentvault connections list",
            )
        return account

    account = await broker.look_up(find)
    if not shared and (served := tuple(registry.accounts.in_use(account))):
        raise ConflictError(
            f"the same account is used by {registry.named(served)}",
            "--shared takes it from them too",
        )
    others = registry.accounts.sharing(account)
    whole = [account, *_of(broker, others, connection)]
    await close_accounts(broker, whole, operator)
    at_tenant = await _delete(broker, account)
    await _forget(broker, whole, operator, at_tenant)
    for one in whole:
        if not registry.accounts.of(one.agent_id):
            await sign_out(broker, one.agent_id)
    also = tuple(registry.agent(other) for other in others)
    return Removed(
        account, at_tenant, also, registry.leases.outside_until(account.agent_id)
    )


def join_accounts(broker: Broker) -> None:
    """Let a revocation's steps at the tenant end the agents' connected accounts."""
    broker.reaching.access.holdings.disconnect = partial(_cut_account, broker)
    broker.reaching.access.holdings.end_token = partial(end_held_token, broker)


async def _cut_account(broker: Broker, account: Account) -> Tried:
    """Delete a revoked agent's accounts, as its user, unless others share them."""
    registry, agent_id = broker.registry, account.agent_id
    # Looked at again before each: others ran while the tenant was waited for.
    account_now = registry.accounts.get(agent_id, account.connection)
    if account_now is None or account_now.id != account.id:
        return DONE
    account = account_now
    if registry.agent(agent_id).status is AgentStatus.ACTIVE:
        return Tried("the agent is served again")
    where = visible(account.connection, 60)
    if others := tuple(registry.accounts.in_use(account)):
        uses = "uses" if len(others) == 1 else "use"
        why = f"{where} stays: {registry.named(others)} {uses} it too"
        return Tried(why, over="left")
    at_tenant = await _delete(broker, account)
    if at_tenant == "left":
        why = f"{where} stays: only its user can delete it, who is not signed in here"
        # What does not open may open again, from a backup of its key.
        retained = broker.reaching.vault.users.sub_of(agent_id) == account.user
        return Tried(why, over=None if retained else "failed")
    sharers = registry.accounts.sharing(account)
    whole = [account, *_of(broker, sharers, account.connection)]
    await _forget(broker, whole, SYSTEM, at_tenant)
    return DONE


def _of(broker: Broker, agents: Iterable[AgentId], connection: str) -> list[Account]:
    accounts = (broker.registry.accounts.get(agent, connection) for agent in agents)
    return [account for account in accounts if account is not None]


async def close_accounts(
    broker: Broker, accounts: list[Account], operator: Actor
) -> None:
    """Let no exchange succeed any more, in memory first; then record it."""
    closing = [replace(one, removing=True) for one in accounts if not one.removing]
    for account in closing:
        broker.registry.accounts.put(account)
        broker.registry.void_decisions(account.agent_id)
    if not closing:
        return
    kind = EventType.CONNECTION_REMOVED
    drafts = [
        account_draft(kind, one, operator, at_tenant="pending") for one in closing
    ]
    with broker.admitting.paused():
        await broker.record_cut(*drafts, changes=closing)


async def _delete(broker: Broker, account: Account) -> AtTenant:
    """Delete the account in Token Vault, as its user: no other party can."""
    user = broker.reaching.vault.users.of(account.agent_id)
    whose = (account.issuer, account.user)
    if user is None or whose != (broker.reaching.vault.issuer, user.sub):
        return "left"
    was_there = await my_account(broker, account, user).disconnect(account.id)
    return "deleted" if was_there else "gone"


async def _forget(
    broker: Broker, accounts: list[Account], actor: Actor, at_tenant: AtTenant
) -> None:
    """Forget accounts; steps left from earlier revocations are done now.

    Another that was connected there meanwhile is not forgotten.
    """
    kind, account_store = EventType.CONNECTION_REMOVED, broker.registry.accounts
    held = ((one, account_store.get(one.agent_id, one.connection)) for one in accounts)
    gone = [one for one, now in held if now is not None and now.id == one.id]
    for account in gone:
        account_store.drop(account.agent_id, account.connection)
        broker.registry.void_decisions(account.agent_id)
    drops = [DropAccount(one.agent_id, one.connection) for one in gone]
    await broker.record_cut(
        *(account_draft(kind, one, actor, at_tenant=at_tenant) for one in accounts),
        changes=[*drops, *broker.reaching.outbox.settle(one.agent_id for one in gone)],
    )
