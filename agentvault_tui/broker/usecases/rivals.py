"""Several accounts of one vault user at one provider, whichever agents use them.

Token Vault keeps them all and gives a token of the one that was connected last; it is
not told whose is meant. So agents that share a vault user share an account as well, or
one agent's approval would be spent on another's account.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from agentvault_tui.broker.connecting import Consent
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.account_events import account_draft
from agentvault_tui.broker.vault_access import CrowdedError
from agentvault_tui.errors import ConflictError, TenantError
from agentvault_tui.model import Account, Actor, EventType
from agentvault_tui.text import visible


@asynccontextmanager
async def alone(broker: Broker, account: Account) -> AsyncIterator[None]:
    """Let no other agent have a token of *account*'s vault user there in a block.

    Raises:
        ConflictError: those who ask already take too long.
    """
    used = _of_others(broker, account)
    async with AsyncExitStack() as stack:
        # In one order, so that two of these do not wait for each other.
        for one in sorted(used, key=lambda one: one.agent_id):
            try:
                await stack.enter_async_context(broker.vault.turn(one))
            except CrowdedError:
                raise ConflictError(
                    "tokens of this account are being asked for", "begin again"
                ) from None
        yield


def latest(broker: Broker, account: Account) -> Account:
    """Return *account* as connected after every other, also by a clock set back."""
    rivals = broker.registry.accounts.rivals(account)
    after = [one.since + timedelta(microseconds=1) for one in rivals]
    return replace(account, since=max([broker.clock.now(), *after]))


async def unless_rivals(
    broker: Broker, consent: Consent, account: Account, operator: Actor
) -> None:
    """Take the account back where other agents use another of the same vault user's.

    Token Vault would give them tokens of this one from here on.

    Raises:
        ConflictError: others do.
        TenantError: the tenant does not say which accounts there are.
    """
    registry = broker.registry
    others = _of_others(broker, account)
    if not others:
        return
    closed = replace(account, removing=True)
    try:
        there = consent.accounts.accounts(connection=account.connection)
        ids = {known.id async for known in there}
        others = [one for one in others if one.id in ids]
        if not others:
            return  # theirs are gone from the vault: they are to connect it anew
        await consent.accounts.disconnect(account.id)
    except TenantError:
        # Known and closed, it keeps the others from its tokens until it is deleted.
        registry.accounts.put(closed)
        for one in (closed, *others):
            registry.void_decisions(one.agent_id)
        draft = account_draft(
            EventType.CONNECTION_REMOVED, closed, operator, at_tenant="pending"
        )
        await broker.record_cut(draft, changes=[closed])
        raise
    names = ", ".join(visible(registry.agent(one.agent_id).name, 60) for one in others)
    raise ConflictError(
        f"{names} would use this account too, in the place of their own: all have one "
        "vault user",
        "sign in as another vault user, or allow the same account",
    )


async def delete_unused(
    broker: Broker, consent: Consent, account: Account, operator: Actor
) -> None:
    """Delete at the tenant what no agent uses any more: no revocation would find it."""
    if broker.registry.accounts.sharing(account):
        return
    at_tenant = "left"
    with contextlib.suppress(TenantError):
        was_there = await consent.accounts.disconnect(account.id)
        at_tenant = "deleted" if was_there else "gone"
    kind = EventType.CONNECTION_REMOVED
    await broker.record_cut(account_draft(kind, account, operator, at_tenant=at_tenant))


def _of_others(broker: Broker, account: Account) -> list[Account]:
    found = broker.registry.accounts.rivals(account)
    return [one for one in found if one.agent_id != account.agent_id]
