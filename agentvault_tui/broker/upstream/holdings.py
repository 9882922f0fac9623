"""What an agent has at the tenant: its client, and the accounts it can reach."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from agentvault_tui.broker.upstream.tried import Tried
from agentvault_tui.model import AgentId
from agentvault_tui.vault import Secret


@dataclass(frozen=True, slots=True)
class Account:
    """An account a vault user of the agent's connected."""

    user_id: str
    connection: str
    account_id: str
    """``cac_…``."""
    shared: bool
    """Whether another agent that is served uses it too: then it is left."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One agent at the tenant."""

    client_id: str
    has_secret: bool
    """Whether its client authenticates with a secret, which can be rotated."""
    accounts: tuple[Account, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """The vault users whose refresh tokens its client may have."""
        return tuple(dict.fromkeys(account.user_id for account in self.accounts))


def users_of(holdings: Holdings, agent_id: AgentId, held: Holding) -> tuple[str, ...]:
    """Return whose refresh tokens its client may have, also without an account."""
    return tuple(dict.fromkeys((*held.users, *holdings.signed_in(agent_id))))


class Holdings(Protocol):
    """Who knows what agents have at the tenant."""

    def of(self, agent_id: AgentId) -> Holding | None:
        """Return what the agent has there; nothing when it has no client."""
        ...

    def keep_secret(self, agent_id: AgentId, secret: Secret) -> None:
        """Keep the new secret of the agent's client, for when it is restored."""
        ...

    def disconnect(self, agent_id: AgentId, account: Account) -> Awaitable[Tried]:
        """Delete a connected account as its user; tell how that went.

        Raises:
            AgentVaultError: it cannot be done now.
        """
        ...

    def holds_token(self, agent_id: AgentId) -> bool:
        """Tell whether a refresh token of the agent's is kept here, and opens."""
        ...

    def end_token(self, agent_id: AgentId) -> Awaitable[Tried]:
        """End that refresh token at the tenant, and forget it once it is dead.

        Raises:
            AgentVaultError: it cannot be done now.
        """
        ...

    def clients(self) -> dict[str, AgentId | None]:
        """Return our clients at the tenant, and whose each is."""
        ...

    def signed_in(self, agent_id: AgentId) -> tuple[str, ...]:
        """Return the vault users of the agent that no account tells of yet."""
        ...

    def users(self) -> dict[str, AgentId | None]:
        """Return the vault users, and whose each is: nobody's alone if shared."""
        ...
