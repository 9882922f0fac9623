"""An account a person connected for an agent, and what was handed out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
    """What the person allowed there, in the provider's words: untrusted."""
    since: datetime
    removing: bool = False
    """Not used any more; that the tenant has deleted it is not confirmed yet."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Until when the latest provider token an agent was given can be used."""

    agent_id: AgentId
    connection: str
    until: datetime
    """The provider's own end of it: nobody here can bring it forward."""
