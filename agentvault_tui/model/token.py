"""A token as the broker remembers it: everything but the secret."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from agentvault_tui.clock import Deadline
from agentvault_tui.model.agent import Agent
from agentvault_tui.model.ids import (
    AgentId,
    DecisionId,
    StepUpId,
    TokenId,
    requester_of,
)


class TokenKind(StrEnum):
    """The use of a token."""

    STANDARD = "standard"
    """Decided by policy alone."""
    ELEVATED = "elevated"
    """Exactly one action, approved by a person."""


class Token(NamedTuple):
    """An issued access token; only the hash of its secret is stored."""

    id: TokenId
    sha256: str
    """Hex digest of the secret: the lookup key."""
    agent_id: AgentId
    scope: str
    """Space-separated scopes."""
    kind: TokenKind
    issued_at: datetime
    expires: Deadline
    authorization_details: str | None = None
    """RFC 9396, when the request named an action: the array as JSON text, as served."""
    resource: str | None = None
    """RFC 8707 resource indicator, when the request named one."""
    stepup_id: StepUpId | None = None
    """The approval an elevated token came from."""
    single_use: bool = False
    """Whether it is good for one action: one of its scopes sends, pays or deletes."""
    decision_id: DecisionId | None = None
    """The decision that issued it, and that every event about it names."""
    source: str | None = None
    """The address it was asked for from, if that is known."""
    parent_id: TokenId | None = None
    """The token it was exchanged for, when another agent passed it on (RFC 8693)."""
    chain: tuple[AgentId, ...] = ()
    """Who passed it on, the first agent first; empty for one that was asked for."""

    @property
    def subject(self) -> AgentId:
        """Return the first agent, whose authority it is (RFC 8693 section 4.1)."""
        return self.chain[0] if self.chain else self.agent_id

    @property
    def requester(self) -> str:
        """Return the requester that refusals count for; see `requester_of`."""
        return requester_of(self.agent_id, self.chain)

    @property
    def states_action(self) -> bool:
        """Whether it was requested with details, which limit its bearer (RFC 9396)."""
        return bool(json.loads(self.authorization_details or "[]"))

    def principal(self, holder: Agent) -> Agent:
        """Return *holder* as policy sees the user of this token.

        Of a token that was passed on the scopes count, and no grant of its holder's.
        """
        if not self.chain:
            return holder
        return replace(holder, scopes=tuple(sorted(self.scope.split())))
