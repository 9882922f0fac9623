"""The decisions and reads of dialogs, which the link to the broker carries out."""

from __future__ import annotations

from typing import Protocol

from agentvault_tui.console.state.records import (
    BodyView,
    HeldRequest,
    StepUpRow,
    TreeRow,
)
from agentvault_tui.console.state.revocations import Restored, Revoked
from agentvault_tui.operator_api.requests import RepeatRequest


class Actions(Protocol):
    """The decisions, each one request to the broker."""

    async def approve(
        self, stepup_id: str, digest: str, repeat: RepeatRequest | None = None
    ) -> StepUpRow:
        """Begin the second factor for exactly the request with that *digest*.

        With *repeat* the next ones like it are approved too, under a digest of both.

        The answer carries `device`; the mirror follows what comes of it.
        """
        ...

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        ...

    async def tree(self, agent_id: str | None) -> tuple[TreeRow, ...]:
        """Read the tokens that were passed on, with those they came from.

        Of one agent: those that are its own or end with its own.
        """
        ...

    async def body(self, stepup_id: str, request: HeldRequest) -> BodyView:
        """Read the body of a held call, readable."""
        ...

    def look(self, stepup_id: str | None) -> None:
        """Report which step-up is open here, or that none is."""
        ...

    async def deny(self, stepup_id: str, reason: str) -> StepUpRow:
        """Turn a request down; *reason* reaches the agent."""
        ...

    async def revoke(self, agent_id: str, reason: str) -> Revoked: ...

    async def restore(self, agent_id: str) -> Restored: ...

    async def cut(self, call_id: str) -> None:
        """Cut one call; a held one goes on waiting for a retry."""
        ...

    async def panic(self, reason: str) -> Revoked: ...

    async def lift(self) -> Restored: ...
