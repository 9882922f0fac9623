"""What an operator can do from the console, as dialogs and screens call it.

`decides.Decides` does it over the operators' socket; tests may put another there.
Each raises an `AgentVaultError` whose `diagnosis()` is fit for the screen:
`RefusedError` also when the link is not live, because nobody may decide on what the
broker has not confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from agentvault_tui.console.state.records import StepUpRow, UpstreamStep

_NOT_IN_LEDGER: Final = {
    "journal": "the cut journal keeps it, also over a restart.",
    "stop": "if the broker restarts before it is, everything is stopped.",
}
_IN_MEMORY: Final = "a broker that restarts before it is serves again."


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation cut."""

    agent_id: str
    tokens: int
    stepups: int
    effective_ms: float
    """Measured by the broker: from the request to nothing being honoured."""
    round_trip_ms: float
    """Measured here: from the key to the broker's word."""
    upstream: tuple[UpstreamStep, ...]
    kept: str = "ledger"
    """Where it is durable: ``ledger``, ``journal``, ``stop`` (the next start stops
    everything) or ``memory``."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What the panic switch cut."""

    agents: int
    tokens: int
    stepups: int
    effective_ms: float
    round_trip_ms: float
    kept: str = "ledger"
    """Where it is durable: ``ledger``, ``journal``, ``stop`` (the next start stops
    everything) or ``memory``."""


@dataclass(frozen=True, slots=True)
class Restored:
    """An agent served again, or the panic lifted (then `agent_id` is empty)."""

    agent_id: str
    round_trip_ms: float


def caution(answer: object) -> tuple[str, ...]:
    """Return what has to be said with a cut that the ledger has not got yet."""
    if not isinstance(answer, Revoked | Stopped) or answer.kept == "ledger":
        return ()
    kept = _NOT_IN_LEDGER.get(answer.kept, _IN_MEMORY)
    return (f"In force, but NOT in the ledger yet: {kept} agentvault doctor says why.",)


class Actions(Protocol):
    """The decisions, each one request to the broker."""

    async def approve(self, stepup_id: str, digest: str) -> StepUpRow:
        """Begin the second factor for exactly the request with that *digest*.

        The answer carries `device`; the mirror follows what comes of it.
        """
        ...

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        ...

    def look(self, stepup_id: str | None) -> None:
        """Let the others know which step-up is open here, or that none is."""
        ...

    async def deny(self, stepup_id: str, reason: str) -> StepUpRow:
        """Turn a request down; *reason* reaches the agent."""
        ...

    async def revoke(self, agent_id: str, reason: str) -> Revoked:
        """Cut an agent off."""
        ...

    async def restore(self, agent_id: str) -> Restored:
        """Serve an agent again; what was cut stays cut."""
        ...

    async def panic(self, reason: str) -> Stopped:
        """Stop everything."""
        ...

    async def lift(self) -> Restored:
        """End the panic."""
        ...
