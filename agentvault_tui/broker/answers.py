"""The broker's answers to an agent, one record for each, before any HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentvault_tui.model import DecisionId, StepUp, Token
from agentvault_tui.vault import Secret

POLL_INTERVAL: Final = 2
"""Seconds an agent waits between two polls (CIBA Core 7.3 ``interval``)."""
RATE_RETRY: Final = 1
"""Seconds until an agent beyond its rate may ask again."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A token was issued; the secret is shown this once."""

    access_token: str = field(repr=False)
    token: Token
    expires_in: int
    decision_id: DecisionId


@dataclass(frozen=True, slots=True)
class Permitted:
    """The action may happen now, once; nothing was issued for it."""

    reason: str
    message: str
    decision_id: DecisionId


@dataclass(frozen=True, slots=True)
class Denied:
    """The answer is no: ``access_denied`` with a reason a person can act on."""

    reason: str
    message: str
    decision_id: DecisionId
    retry_after: int | None = None
    """Seconds after which the same request would be within its limits."""


@dataclass(frozen=True, slots=True)
class Escalated:
    """A person decides: the step-up to poll for."""

    stepup: StepUp
    message: str
    expires_in: int
    decision_id: DecisionId


@dataclass(frozen=True, slots=True)
class InvalidScope:
    """A person would decide, and it is not said for which of the scopes."""

    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Undecided: ``authorization_pending``."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """The client polls faster than its interval: ``slow_down`` (CIBA Core 11)."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The time for a decision, or to fetch the token, is over: ``expired_token``."""

    approved: bool = False
    """Whether a person approved it, and the agent did not fetch its token."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Unknown, foreign or already answered: ``invalid_grant``, always the same."""


@dataclass(frozen=True, slots=True)
class Introspection:
    """The facts of a token for a resource server (RFC 7662 2.2); None: not active."""

    token: Token | None


@dataclass(frozen=True, slots=True)
class Provided:
    """A provider's token, from Token Vault; it was recorded that the agent has it."""

    access_token: Secret
    scope: str
    """Scopes of the provider."""
    expires_in: int
    """Seconds until the agent is to ask again: no more than a lease."""
    decision_id: DecisionId


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no account to have a token of: a person connects it, again or first."""

    error: str
    """Auth0's own code, which its SDKs match."""
    message: str
    decision_id: DecisionId


@dataclass(frozen=True, slots=True)
class TenantUnavailable:
    """The tenant gives no usable answer, or its credential cannot be decrypted."""

    message: str
    retry_after: int
    decision_id: DecisionId
    error: str = "temporarily_unavailable"


Decided = Granted | Denied | Escalated | InvalidScope
"""The answers to a request for a token."""
Exchanged = Provided | Denied | Disconnected | TenantUnavailable
"""The answers to a request for a provider's token, unless a person decides."""
Polled = Granted | Exchanged | Waiting | SlowDown | Expired | Spent
"""The answers to a poll (CIBA Core sections 10.1.1 and 11)."""
