"""The ledger's data next to events, in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

from agentvault_tui.clock import Deadline
from agentvault_tui.model import (
    Account,
    Agent,
    AgentCounts,
    AgentId,
    Draft,
    Event,
    EventType,
    Lease,
    Outcome,
    StepUp,
    Token,
    TokenId,
    sha256_hex,
)


@dataclass(frozen=True, slots=True)
class Head:
    """The last link of the chain: it represents everything before it."""

    seq: int
    """0 when nothing was recorded yet."""
    hash: str
    """``sha256:…``; the genesis hash when nothing was recorded yet."""


@dataclass(frozen=True, slots=True)
class DropToken:
    """Forget one token: it was redeemed or revoked."""

    token_id: TokenId


@dataclass(frozen=True, slots=True)
class DropAgentTokens:
    """Forget every token of an agent that was handed to `commit` before this."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class DropScopeTokens:
    """Forget those of an agent's tokens so far that carry a scope: it has it no more.

    One row, however many there are: an agent may hold a hundred thousand.
    """

    agent_id: AgentId
    scope: str


@dataclass(frozen=True, slots=True)
class DropAllTokens:
    """Forget every token of every agent that was handed to `commit` before this."""


@dataclass(frozen=True, slots=True)
class Panic:
    """The panic switch; stored with ``on=False`` once lifted."""

    on: bool
    since: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Denials of a requester since its last approval, and how long it waits.

    A requester is an agent, or the chain of a passed-on token; see `requester_of`.
    Stored with no *until* once an approval has ended it.
    """

    requester: str
    denials: int = 0
    until: Deadline | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class UsedAssertion:
    """An assertion a client has used: it counts once, also after a restart."""

    client_id: str
    digest: str
    """Represents its ``jti``, in hexadecimal."""
    expires: datetime
    """From when on it is refused for its age anyway, and this is forgotten."""


@dataclass(frozen=True, slots=True)
class DropAccount:
    """Forget a connected account: the vault keeps it no more."""

    agent_id: AgentId
    connection: str


@dataclass(frozen=True, slots=True)
class OutboxStep:
    """One slower step of a revocation or a restore, at the tenant."""

    id: str
    """Of the agent and the step: a later revocation takes an earlier one's place."""
    agent_id: AgentId
    step: str
    begun_at: datetime
    """When the operator decided it."""
    status: Literal["pending", "confirmed", "failed", "withdrawn", "left"] = "pending"
    """Withdrawn when the agent was restored before it was done; left on purpose when it
    would have cut another agent off too."""
    attempts: int = 0
    next_at: datetime | None = None
    """When to try again; only while pending."""
    ms: float | None = None
    """How long it took from then on, once it is over."""
    problem: str | None = None
    """Why it is not done yet, or was given up; displayable."""
    users: tuple[str, ...] = ()
    """Whom at the tenant it is about: an earlier step may make the broker forget."""
    connection: str = ""
    """At which provider, where it is one at a provider."""


@dataclass(frozen=True, slots=True)
class Meta:
    """A small value to find again at the next start; ``None`` removes it."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class KeptText:
    """A text of the policy that was in effect; stored once, under its own digest."""

    text: str

    @property
    def sha256(self) -> str:
        """The digest that events name it by, in hexadecimal."""
        return sha256_hex(self.text)


Change: TypeAlias = (
    Agent
    | Token
    | StepUp
    | DropToken
    | DropAgentTokens
    | DropScopeTokens
    | DropAllTokens
    | Panic
    | Cooldown
    | UsedAssertion
    | Account
    | DropAccount
    | Lease
    | OutboxStep
    | Meta
    | KeptText
)
"""One change of state, written in the same transaction as its events.

Of two changes to one thing the one handed to `commit` later wins, in whatever order
they reach the disk.
"""


class Attempt(NamedTuple):
    """One commit that was reported as failed."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Writing works again: the result of the batch in doubt.

    The tokens of that batch are void in the store already; their secrets were never
    delivered. Every other change of a *committed* batch is in the store, while its
    callers were told that it failed: write the current state of those things again.
    """

    committed: bool
    """Whether the batch had reached the store after all."""
    attempts: tuple[Attempt, ...]
    event: Event | None
    """The ``audit.ambiguous`` event that records it; None where nothing was in doubt,
    as when a team's store was away."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything the broker keeps in memory, as the last process left it."""

    agents: tuple[Agent, ...]
    counts: dict[AgentId, AgentCounts]
    last_seen: dict[AgentId, datetime]
    tokens: tuple[Token, ...]
    """Those not expired, dropped or voided, oldest first."""
    stepups: tuple[StepUp, ...]
    """The open ones, the approved ones not yet redeemed, and the 50 latest others."""
    panic: Panic | None
    """Set only while the switch is on."""
    cooldowns: tuple[Cooldown, ...]
    assertions: tuple[UsedAssertion, ...]
    """Those not pruned yet: whether one has expired, a clock that is ahead says too."""
    outbox: tuple[OutboxStep, ...]
    meta: dict[str, str] = field(default_factory=dict)
    accounts: tuple[Account, ...] = ()
    leases: tuple[Lease, ...] = ()
    """Those not over yet."""
    numbers: Sequence[int] = ()
    """For each of the tokens the number of its row."""
    issued: Sequence[int] = ()
    """For each of the tokens the event that binds its row; 0: no event binds it."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to read: keyset paging by ``seq``.

    With *after* the page starts just above it, oldest first; otherwise newest first,
    just below *before*, or from the head.
    """

    after: int | None = None
    before: int | None = None
    since: datetime | None = None
    """Inclusive."""
    until: datetime | None = None
    """Exclusive."""
    agent: AgentId | None = None
    outcome: Outcome | None = None
    type: EventType | None = None
    q: str | None = None
    """Case-insensitive substring of any visible field."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """One page of events.

    A page may hold fewer than *limit* events, even none, and still have a `next`:
    the time for one page was up, and reading goes on from there.
    """

    events: tuple[Event, ...]
    next: int | None
    """Goes into the parameter the query used; None at the end."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain, with all it takes to compute it again."""

    seq: int
    body: str
    """The exact bytes that were hashed, as text."""
    hash: str
    previous: str
    """The hash before it; the genesis hash before the first."""


@dataclass(frozen=True, slots=True)
class Story:
    """The events that share one decision, oldest first."""

    events: tuple[Event, ...]
    complete: bool
    """Whether all were found before the time or the room for it was up."""
