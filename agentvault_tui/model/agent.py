"""An agent: its identity, its owner, its permissions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from agentvault_tui.clock import Deadline
from agentvault_tui.model.ids import AgentId


class AgentStatus(StrEnum):
    """Whether the agent is served."""

    ACTIVE = "active"
    REVOKED = "revoked"
    TEMPLATE = "template"
    """Never served itself: other agents are made from it."""


@dataclass(frozen=True, slots=True)
class Credential:
    """How an agent proves who it is: at most one of these is set."""

    secret_sha256: str | None = None
    """Hex digest of the client secret; the secret itself is never stored."""
    public_key: str | None = None
    """JWK as JSON text, for ``private_key_jwt`` (RFC 7523)."""
    subject: str | None = None
    """``ISSUER:SUBJECT`` of its platform's tokens; see `broker.subjects`."""

    @property
    def kind(self) -> str:
        """Return which it is, or ``none``: it cannot authenticate."""
        if self.secret_sha256 is not None:
            return "secret"
        if self.subject is not None:
            return "subject"
        return "none" if self.public_key is None else "public_key"


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """How the agent's token requests were answered, since it was registered."""

    allowed: int = 0
    denied: int = 0
    escalated: int = 0


class Delegate(NamedTuple):
    """Another agent that tokens may be passed on to, and with which scopes."""

    agent_id: AgentId
    scopes: tuple[str, ...]
    """Sorted."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered client of the broker; every text in it is untrusted."""

    id: AgentId
    client_id: str
    name: str
    owner: str
    purpose: str
    scopes: tuple[str, ...]
    """Granted scopes, sorted."""
    created_at: datetime
    status: AgentStatus = AgentStatus.ACTIVE
    resource_server: bool = False
    """May introspect other agents' tokens, and so consume those good for one action."""
    serves: tuple[str, ...] = ()
    """A resource server's scopes: it sees tokens of these alone; empty: of any."""
    resources: tuple[str, ...] = ()
    """A resource server's resources: these and the ones below them."""
    credential: Credential = Credential()
    revoked_at: datetime | None = None
    removed_at: datetime | None = None
    """Since when it is in no list, and cannot be restored; its history stays."""
    delegates: tuple[Delegate, ...] = ()
    until: Deadline | None = None
    """When it is revoked by itself."""
    template: bool = False
    """Whether other agents are made from it, whatever its status."""
    from_template: AgentId | None = None
    """The template that it was made from, and ends with."""
    decisions_a_second: int | None = None
    """Permitted decisions it may have a second, if not as many as others; 0 for any."""
    authenticated_as: str | None = None
    """``ISSUER:SUBJECT`` of the platform's token that a request came with; of a stored
    agent nothing."""

    @property
    def subject(self) -> str | None:
        """Return the subject that it authenticates by; a removed agent does not."""
        return None if self.removed_at else self.credential.subject

    @property
    def shown_identity(self) -> dict[str, str]:
        """Return the identity that events record for its platform's token."""
        proven = self.authenticated_as
        return {"authenticated_as": proven} if proven else {}

    def may_pass_on(self, to: AgentId) -> frozenset[str]:
        """Return the scopes of tokens that it may pass on to another agent."""
        granted = (one.scopes for one in self.delegates if one.agent_id == to)
        return frozenset(next(granted, ()))

    def restored(self) -> Agent:
        """Return the agent without its revocation."""
        status = AgentStatus.TEMPLATE if self.template else AgentStatus.ACTIVE
        return replace(self, status=status, revoked_at=None)

    def revoked(self, when: datetime) -> Agent:
        """Return it revoked since *when*, or since it was."""
        return replace(
            self, status=AgentStatus.REVOKED, revoked_at=self.revoked_at or when
        )
