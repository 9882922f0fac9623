"""The refresh token of an agent's vault user is ended, and then kept no more.

It is shown to the tenant by the client it was issued to (RFC 7009), which takes no
Management credential: what is left of an agent where nobody has one.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.upstream.access import DONE, NOT_YET, Tried
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
)
from agentvault_tui.model import AgentId
from agentvault_tui.text import visible
from agentvault_tui.vault import Priority, revoke_token, still_taken
from agentvault_tui.vault.management.objects import clients

log = logging.getLogger("agentvault.sign_out")


async def end_held_token(broker: Broker, agent_id: AgentId) -> Tried:
    """Revoke the token at the tenant; forget it once it is seen to be dead.

    Raises:
        TenantError: the tenant would not, or does not answer.
        NotFoundError: the client it was issued to, or its secret, is not in this home.
        SettingsError: what is kept cannot be read or written.
    """
    users, tenant = broker.vault.users, broker.tenant.tenant
    user = users.of(agent_id)
    if user is None:
        if users.sub_of(agent_id) is None:
            return DONE
        return Tried("the refresh token kept for it does not open")
    credential = broker.vault.credential(agent_id)
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
        left = await still_taken(tenant, credential, user.refresh_token)
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
    """Tell whether the tenant is seen to have no such client; a doubt is no."""
    try:
        management = broker.access.management
        if management is not None:
            await clients.get(management.at(Priority.REVOCATION), client_id)
    except TenantNotFoundError:
        return True
    except AgentVaultError as error:
        log.warning("whether a client is gone cannot be told: %s", error.what)
    return False


async def sign_out(broker: Broker, agent_id: AgentId) -> None:
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
