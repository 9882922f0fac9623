"""An account is taken from an agent: closed here at once, then deleted there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.upstream import holdings
from agentvault_tui.broker.upstream.access import KeptHoldings
from agentvault_tui.broker.usecases.account_events import account_draft
from agentvault_tui.broker.usecases.connect import my_account
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    NotFoundError,
    TenantError,
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
from agentvault_tui.vault import revoke_token

log = logging.getLogger("agentvault.disconnect")

AtTenant = Literal["deleted", "gone", "left"]
"""Deleted now; gone before; or left there, since its user is not signed in here."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of an account."""

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
        agent_id: whose.
        connection: which.
        operator: who does it.
        shared: also when other agents use the same account, which ends for them too.

    Raises:
        NotFoundError: no such agent, or it has no account there.
        ConflictError: others use it, and *shared* is not set.
        TenantError: it is closed here; the tenant has not deleted it. Ask again.
    """
    registry = broker.registry
    agent = registry.agent(agent_id)
    account = registry.accounts.get(agent.id, connection)
    if account is None:
        raise NotFoundError(
            f"the agent has no account at {visible(connection, 60)}",
            "agentvault connections list",
        )
    others = [registry.agent(other) for other in registry.accounts.sharing(account)]
    if others and not shared:
        names = ", ".join(visible(other.name, 60) for other in others)
        raise ConflictError(
            f"the same account is used by {names}", "--shared takes it from them too"
        )
    whole = [account, *_of(broker, [other.id for other in others], connection)]
    await _close(broker, whole, operator)
    at_tenant = await _delete(broker, account)
    await _forget(broker, whole, operator, at_tenant)
    return Removed(
        account, at_tenant, tuple(others), registry.leases.outside_until(agent.id)
    )


def join_accounts(broker: Broker) -> None:
    """Let a revocation's steps at the tenant know and delete what agents connected."""
    known = broker.access.holdings
    if not isinstance(known, KeptHoldings):
        return

    def accounts_of(agent_id: AgentId) -> tuple[holdings.Account, ...]:
        accounts = broker.registry.accounts
        return tuple(
            holdings.Account(
                user_id=one.user,
                connection=one.connection,
                account_id=one.id,
                shared=bool(accounts.sharing(one)),
            )
            for one in accounts.of(agent_id)
            if one.issuer == broker.vault.issuer
        )

    async def disconnecting(agent_id: AgentId, one: holdings.Account) -> bool:
        """Delete it as its user; tell whether nothing is left to delete."""
        account = broker.registry.accounts.get(agent_id, one.connection)
        if account is None or account.id != one.account_id:
            return True
        # Looked at again before each: others ran while the tenant was waited for.
        if broker.registry.agent(agent_id).status is AgentStatus.ACTIVE:
            return False
        if broker.registry.accounts.sharing(account):
            return True
        at_tenant = await _delete(broker, account)
        if at_tenant == "left":
            raise AgentVaultError("its user is not signed in here any more")
        await _forget(broker, [account], SYSTEM, at_tenant)
        return True

    def signed_in(agent_id: AgentId) -> tuple[str, ...]:
        sub = broker.vault.users.sub_of(agent_id)
        return () if sub is None else (sub,)

    known.accounts_of = accounts_of
    known.signed_in = signed_in
    known.disconnecting = disconnecting


def _of(broker: Broker, agents: list[AgentId], connection: str) -> list[Account]:
    found = (broker.registry.accounts.get(agent, connection) for agent in agents)
    return [account for account in found if account is not None]


async def _close(broker: Broker, accounts: list[Account], operator: Actor) -> None:
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
    with broker.cutting():
        await broker.record_cut(*drafts, changes=closing)


async def _delete(broker: Broker, account: Account) -> AtTenant:
    """Delete the account in Token Vault, as its user: nobody else can.

    Raises:
        TenantError: the tenant would not, or does not answer.
        NotFoundError: the agent has no client at the tenant any more.
    """
    user = broker.vault.users.of(account.agent_id)
    whose = (account.issuer, account.user)
    if user is None or whose != (broker.vault.issuer, user.sub):
        return "left"
    was_there = await my_account(broker, account, user).disconnect(account.id)
    return "deleted" if was_there else "gone"


async def _forget(
    broker: Broker, accounts: list[Account], actor: Actor, at_tenant: AtTenant
) -> None:
    """Forget accounts, and the vault user of an agent that has none left.

    Another that was connected there while the tenant was waited for is not forgotten:
    nobody would know of it, nor end it.
    """
    kind, known = EventType.CONNECTION_REMOVED, broker.registry.accounts
    held = ((one, known.get(one.agent_id, one.connection)) for one in accounts)
    gone = [one for one, now in held if now is not None and now.id == one.id]
    for account in gone:
        known.drop(account.agent_id, account.connection)
        broker.registry.void_decisions(account.agent_id)
    await broker.record_cut(
        *(account_draft(kind, one, actor, at_tenant=at_tenant) for one in accounts),
        changes=[DropAccount(one.agent_id, one.connection) for one in gone],
    )
    for account in accounts:
        if not broker.registry.accounts.of(account.agent_id):
            await _sign_out(broker, account.agent_id)


async def _sign_out(broker: Broker, agent_id: AgentId) -> None:
    """Keep no credential that nothing needs; that the tenant hears of it is a courtesy.

    A refresh token that is deleted here is in no hands any more.
    """
    user = broker.vault.users.of(agent_id)
    if user is None:
        return
    # Before the wait: whoever signs in meanwhile is another, and is kept.
    broker.vault.users.forget(agent_id)
    try:
        credential = broker.vault.credential(agent_id)
        await revoke_token(broker.tenant.tenant, credential, user.refresh_token)
    except (TenantError, NotFoundError) as error:
        log.warning("the tenant keeps a refresh token nobody has: %s", error.what)
