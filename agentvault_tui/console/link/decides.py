"""Decisions carried to the broker, each one request; and when none may be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentvault_tui.console.link.reads import Reads
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import (
    LinkState,
    Restored,
    Revoked,
    StepUpRow,
    Stopped,
)
from agentvault_tui.errors import RefusedError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.calls import AnswerT, ApiCall
from agentvault_tui.operator_api.client import AsyncOperatorClient
from agentvault_tui.operator_api.requests import (
    DecisionRequest,
    RestoreRequest,
    RevokeRequest,
)
from agentvault_tui.operator_api.shapes import WireShape

STALL: Final = 3.0
"""Seconds without a beat after which this process itself must have stood still."""
_BLIND: Final = 1.0
"""Seconds a terminal may owe reading before nothing is decided on what it shows."""


class Decides(Reads):
    """Decides as `actions.Actions` says, and never on old news."""

    def __init__(
        self, mirror: Mirror, client: AsyncOperatorClient, *, read_only: bool
    ) -> None:
        super().__init__(mirror, client)
        self.read_only = read_only
        self.screen_waits: Callable[[], float] = lambda: 0.0
        """For how many seconds the operator has not been shown what happens."""
        self._beat_at = mirror.clock.boot()

    async def approve(self, stepup_id: str, digest: str) -> StepUpRow:
        """Begin the second factor for exactly the request with that *digest*."""
        return await self._decide(
            DecisionRequest(id=stepup_id, decision="approve", digest=digest), None
        )

    async def deny(self, stepup_id: str, reason: str) -> StepUpRow:
        """Turn a request down."""
        return await self._decide(
            DecisionRequest(id=stepup_id, decision="deny", reason=reason), stepup_id
        )

    async def revoke(self, agent_id: str, reason: str) -> Revoked:
        """Cut an agent off."""
        asked = RevokeRequest(agent_id=agent_id, reason=reason)
        told, took = await self._send(calls.REVOKE, asked, agent_id)
        self.mirror.cut(agent_id, told.effective_ms)
        if told.agent:
            self.mirror.apply(told.agent)
        return Revoked(
            agent_id,
            told.tokens_revoked,
            told.stepups_cancelled,
            told.effective_ms,
            took,
            self.mirror.intake.upstream(told.upstream),
            told.durable_in,
        )

    async def restore(self, agent_id: str) -> Restored:
        """Serve an agent again."""
        asked = RestoreRequest(agent_id=agent_id)
        told, took = await self._send(calls.RESTORE, asked, agent_id)
        self.mirror.cuts.pop(agent_id, None)
        if told.agent:
            self.mirror.apply(told.agent)
        return Restored(agent_id, took)

    async def panic(self, reason: str) -> Stopped:
        """Stop everything."""
        asked = RevokeRequest(all=True, reason=reason)
        told, took = await self._send(calls.REVOKE, asked, "")
        return Stopped(
            told.agents or 0,
            told.tokens_revoked,
            told.stepups_cancelled,
            told.effective_ms,
            took,
            told.durable_in,
        )

    async def lift(self) -> Restored:
        """End the panic."""
        _, took = await self._send(calls.RESTORE, RestoreRequest(all=True), "")
        return Restored("", took)

    async def _decide(self, decision: DecisionRequest, about: str | None) -> StepUpRow:
        told, _ = await self._send(calls.DECIDE, decision, about)
        self.mirror.apply(told)
        return self.mirror.intake.stepup(told)

    async def _send(
        self, call: ApiCall[AnswerT], body: WireShape, about: str | None
    ) -> tuple[AnswerT, float]:
        """Send a decision; return the answer and the milliseconds it took.

        Its event, *about* what it decides, is no news here; None where none follows.
        """
        self.check()
        started = self.mirror.clock.boot()
        if about is not None:
            self.mirror.presence.deciding(about)
        told = await self._client.call(call, body)
        return told, (self.mirror.clock.boot() - started) * 1000

    def check(self) -> None:
        """Refuse to decide on what the broker has not confirmed.

        Raises:
            RefusedError: this console only reads, or what it shows may be old.
        """
        if self.read_only:
            raise RefusedError("this console is read-only")
        link = self.mirror.link
        if self.screen_waits() > _BLIND:
            raise RefusedError("the terminal does not show what happens now")
        if self.stood_still() > STALL:
            # Keys typed into a frozen terminal arrive before the heart beats again.
            self.mirror.set_link(LinkState.STALE, "this console stood still")
        elif link.live:
            return
        raise RefusedError(
            f"the link is {self.mirror.link.state.value}, so nothing is decided",
            "what is shown may be old; agentvault agents revoke works without it",
        )

    def beat(self) -> None:
        """Note that this process runs, and has read what there was to read."""
        self._beat_at = self.mirror.clock.boot()

    def stood_still(self) -> float:
        """Return for how many seconds it did not."""
        return self.mirror.clock.boot() - self._beat_at
