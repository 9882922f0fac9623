"""Decisions carried to the broker, each one request; and when none may be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentvault_tui.console.link.reads import Reads
from agentvault_tui.console.link.wire import Wire, integer, real
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import (
    Json,
    LinkState,
    Restored,
    Revoked,
    StepUpRow,
    Stopped,
)
from agentvault_tui.errors import RefusedError

STALL: Final = 3.0
"""Seconds without a beat after which this process itself must have stood still."""
_BLIND: Final = 1.0
"""Seconds a terminal may owe reading before nothing is decided on what it shows."""


class Decides(Reads):
    """Decides as `actions.Actions` says, and never on old news."""

    def __init__(self, mirror: Mirror, wire: Wire, *, read_only: bool) -> None:
        super().__init__(mirror, wire)
        self.read_only = read_only
        self.screen_waits: Callable[[], float] = lambda: 0.0
        """For how many seconds the operator has not been shown what happens."""
        self._beat_at = mirror.clock.boot()

    async def approve(self, stepup_id: str, digest: str) -> StepUpRow:
        """Begin the second factor for exactly the request with that *digest*."""
        return await self._decide(
            {"id": stepup_id, "decision": "approve", "digest": digest}
        )

    async def deny(self, stepup_id: str, reason: str) -> StepUpRow:
        """Turn a request down."""
        return await self._decide(
            {"id": stepup_id, "decision": "deny", "reason": reason}
        )

    async def revoke(self, agent_id: str, reason: str) -> Revoked:
        """Cut an agent off."""
        body = {"agent_id": agent_id, "reason": reason}
        data, took = await self._post("/api/agents/revoke", body)
        upstream = self.mirror.intake.upstream(data.get("upstream"))
        effective = real(data.get("effective_ms"))
        self.mirror.cut(agent_id, effective)
        if isinstance(agent := data.get("agent"), dict):
            self.mirror.apply("agent", agent)
        return Revoked(
            agent_id,
            integer(data.get("tokens_revoked")),
            integer(data.get("stepups_cancelled")),
            effective,
            took,
            upstream,
            _kept(data),
        )

    async def restore(self, agent_id: str) -> Restored:
        """Serve an agent again."""
        data, took = await self._post("/api/agents/restore", {"agent_id": agent_id})
        self.mirror.cuts.pop(agent_id, None)
        if isinstance(agent := data.get("agent"), dict):
            self.mirror.apply("agent", agent)
        return Restored(agent_id, took)

    async def panic(self, reason: str) -> Stopped:
        """Stop everything."""
        body = {"all": True, "reason": reason}
        data, took = await self._post("/api/agents/revoke", body)
        return Stopped(
            integer(data.get("agents")),
            integer(data.get("tokens_revoked")),
            integer(data.get("stepups_cancelled")),
            real(data.get("effective_ms")),
            took,
            _kept(data),
        )

    async def lift(self) -> Restored:
        """End the panic."""
        _, took = await self._post("/api/agents/restore", {"all": True})
        return Restored("", took)

    async def _decide(self, body: Json) -> StepUpRow:
        data, _ = await self._post("/api/agents/stepup", body)
        self.mirror.apply("stepup", data)
        return self.mirror.intake.stepup(data)

    async def _post(self, path: str, body: Json) -> tuple[Json, float]:
        """Send a decision; return the answer and the milliseconds it took."""
        self.check()
        started = self.mirror.clock.boot()
        self.mirror.presence.deciding(body)
        data = await self._wire.post(path, body)
        return data, (self.mirror.clock.boot() - started) * 1000

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


def _kept(data: Json) -> str:
    """Return where a cut is durable; a broker that does not say has recorded it."""
    unsaid = "memory" if data.get("recorded") is False else "ledger"
    return str(data.get("kept", unsaid))
