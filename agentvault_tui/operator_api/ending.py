"""The operators' wire of revocations: answers name the place of the record.

It takes effect at the broker that was asked at once. With the ledger away, or the store
of a team, it is recorded later, and the other brokers do not know of it until then.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import UNSET, UnsetType

from agentvault_tui.operator_api.shapes import (
    AgentInfo,
    PanicInfo,
    StepInfo,
    WireShape,
)
from agentvault_tui.operator_api.stepups import StepUpInfo


class ConfirmedInfo(WireShape, kw_only=True):
    """Whether another broker carried out a revocation, or ran out of its lease."""

    id: str
    confirmed: bool
    ms: float


class RecordedAnswer(WireShape, kw_only=True):
    """The place of a record of a change here, and the brokers that follow it."""

    recorded: bool = True
    kept: str = "ledger"
    """Where it is durable: ``ledger``, ``journal``, ``stop`` (the next start stops
    everything) or ``memory``."""
    brokers: tuple[ConfirmedInfo, ...] | UnsetType = UNSET
    """The other brokers of the team, for a revoked agent and where it is not recorded;
    absent without a team."""
    others: str | UnsetType = UNSET
    """``not_told`` while the team's store is away."""


class RevokeAnswer(RecordedAnswer, kw_only=True):
    """The result of a revocation, or of the panic switch."""

    agent: AgentInfo | UnsetType = UNSET
    """Absent when all were meant."""
    agents: int | UnsetType = UNSET
    """How many were cut off, when all were meant; else absent."""
    agents_revoked_before: int = 0
    """How many of these were revoked one by one already."""
    panic_before: PanicInfo | UnsetType = UNSET
    """The panic that was on already, when all were meant; else absent."""
    tokens_revoked: int = 0
    stepups_cancelled: int = 0
    delegated_revoked: int = 0
    """Tokens that ended with those they were exchanged for; of all, among the above."""
    derived_revoked: int = 0
    """Agents that were made from it, and ended with it."""
    calls_cut: int = 0
    calls_sent: int = 0
    """Of the cancelled calls, those that the service had received whole."""
    effective_ms: float = 0.0
    """Milliseconds from the request until nothing was honoured any more."""
    upstream: tuple[StepInfo, ...] = ()


class TokenRevokeAnswer(RecordedAnswer, kw_only=True):
    """The effect of revoking one token."""

    id: str
    tokens_revoked: int
    """With those that were exchanged for it."""
    calls_cut: int = 0
    calls_sent: int = 0
    """Of the cancelled calls, those that the service had received whole."""


class ScopesAnswer(AgentInfo, kw_only=True):
    """An agent after a change of its scopes."""

    calls_cut: int = 0
    calls_sent: int = 0
    """Of the cancelled calls, those that the service had received whole."""
    delegated_revoked: int = 0
    """Tokens that ended because they were exchanged for removed rights."""
    recorded: bool = True
    kept: str = "ledger"
    brokers: tuple[ConfirmedInfo, ...] | UnsetType = UNSET
    others: str | UnsetType = UNSET
    """As in `RecordedAnswer`: msgspec has one base with members."""


class DecisionAnswer(StepUpInfo, kw_only=True):
    """A step-up that was decided, or that an approval has begun for."""

    recorded: bool = True
    kept: str = "ledger"
    brokers: tuple[ConfirmedInfo, ...] | UnsetType = UNSET
    others: str | UnsetType = UNSET
    """As in `RecordedAnswer`: msgspec has one base with members."""


Ended: TypeAlias = RecordedAnswer | ScopesAnswer | DecisionAnswer
"""An answer that says where it is recorded."""
