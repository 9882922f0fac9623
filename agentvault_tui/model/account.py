"""An account that a person connected for an agent, and the tokens issued from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from agentvault_tui.model.ids import AgentId


@dataclass(frozen=True, slots=True)
class Account:
    """An account at a provider that an agent uses through Token Vault.

    The vault keeps one set of tokens for each user and connection, so two agents with
    the same *issuer*, *user* and *connection* share it: deleting it cuts both.
    """

    agent_id: AgentId
    connection: str
    """The provider's, as the tenant names it: ``google-oauth2``."""
    id: str
    """The tenant's name for it: ``cac_…``."""
    issuer: str
    """The tenant that keeps its tokens."""
    user: str
    """The vault user: the tenant's subject of who connected it."""
    user_name: str
    scopes: tuple[str, ...]
    """The permissions that the person granted there, in the provider's words:
    untrusted."""
    since: datetime
    removing: bool = False
    """Not used any more; that the tenant has deleted it is not confirmed yet."""
    provider_user: str = ""
    """Who its owner is at the provider, as that says; empty when it was not asked."""


class IssuedProviderToken(NamedTuple):
    """A provider's token that an agent got, by the facts that may be recorded."""

    account_id: str
    """The account it is of."""
    thumbprint: str
    """The beginning of its SHA-256."""
    until: datetime
    """The provider's own end of it: only the provider can bring it forward."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The provider tokens an agent was given at a connection, until they are over."""

    agent_id: AgentId
    connection: str
    given: tuple[IssuedProviderToken, ...]

    @property
    def until(self) -> datetime | None:
        """When the last of them ends; nothing when none is left."""
        return max((one.until for one in self.given), default=None)
