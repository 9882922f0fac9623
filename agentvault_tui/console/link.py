"""The link to the broker: follows it into the mirror, and carries decisions to it.

It never decides on old news: what cannot be confirmed makes the link stale or lost,
and then decisions are refused here, before they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentvault_tui.console.actions import Restored, Revoked, Stopped
from agentvault_tui.console.looking import Looking
from agentvault_tui.console.memory import Head, Memory
from agentvault_tui.console.mirror import RING, Mirror
from agentvault_tui.console.records import (
    EventPage,
    EventRow,
    Json,
    LinkState,
    StepUpRow,
)
from agentvault_tui.console.sse import read_frames
from agentvault_tui.console.wire import Wire, integer, objects, real
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    RefusedError,
)

if TYPE_CHECKING:
    from agentvault_tui.console.activity import ActivityRow
    from agentvault_tui.proof import Proof

_BEAT: Final = 1.0
_STALL: Final = 3.0
"""Seconds without a beat after which this process itself must have stood still."""
_PAUSE: Final = 0.1
"""Seconds between reads of a busy stream, so that many frames cost one wake-up."""
_BLIND: Final = 1.0
"""Seconds a terminal may owe reading before nothing is decided on what it shows."""
_CHECK_BEATS: Final = 5
"""The broker is asked for its status this often: a frozen one says nothing."""
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_REREAD_AT_ONCE: Final = 5
_LEDGER: Final = "ledger"


class _ResyncError(Exception):
    """What is shown has to be read anew, at once."""


class Link:
    """Implements `actions.Actions` over the operators' socket."""

    def __init__(
        self,
        mirror: Mirror,
        socket: Path,
        memory: Memory,
        *,
        read_only: bool = False,
        pause: float = _PAUSE,
    ) -> None:
        self.mirror = mirror
        self.read_only = read_only
        self._wire = Wire(socket, pause)
        self._looking = Looking(mirror.presence, self._wire)
        self.look = self._looking.at
        self.face = "console"
        """What this is to the other operators."""
        self._memory = memory
        self._beat_at = mirror.clock.boot()
        self.screen_waits: Callable[[], float] = lambda: 0.0
        """For how many seconds the operator has not been shown what happens."""
        self.loaded: Callable[[], object] = lambda: None
        """Called when everything has been read anew."""
        self._doubt: asyncio.Future[None] | None = None

    # Following

    async def run(self) -> None:
        """Follow the broker until cancelled; come back whenever it does."""
        self._memory.tidy()
        failures = 0
        try:
            while True:
                try:
                    await self._session()
                except _ResyncError as why:
                    self.mirror.set_link(LinkState.STALE, str(why))
                    continue
                except AgentVaultError as error:
                    if self.mirror.link.live:
                        failures = 0
                    self.mirror.set_link(LinkState.LOST, error.diagnosis())
                await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
                failures += 1
        finally:
            self._keep_head()
            await self._looking.close()
            await self._wire.close()

    async def _session(self) -> None:
        """Read everything, then follow until something ends it."""
        self._beat_at = self.mirror.clock.boot()
        await self._snapshot()
        self.loaded()
        # However long that took: what came meanwhile is read from where it ends.
        self._beat_at = self.mirror.clock.boot()
        async with contextlib.AsyncExitStack() as stack:
            watch = asyncio.ensure_future(self._watch())
            stack.callback(watch.cancel)
            follow = asyncio.ensure_future(self._follow())
            stack.callback(follow.cancel)
            self._doubt = asyncio.get_running_loop().create_future()
            done, rest = await asyncio.wait(
                {watch, follow, self._doubt}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                task.result()

    async def _snapshot(self) -> None:
        mirror, wire = self.mirror, self._wire
        status = await wire.get("/api/status")
        head = mirror.intake.status(status).head
        await self._compare(status)
        if not 0 <= head - mirror.last_seq <= RING or not mirror.last_seq:
            page = await wire.get("/api/audit", before=head + 1, limit=200)
            mirror.load_events(reversed(objects(page, "events")), after=head)
        mirror.intake.learn((await wire.get("/api/policy")).get("catalogue"))
        agents, head = await self._agents(head)
        stepups = await wire.get("/api/agents/stepup")
        mirror.load(
            status,
            agents,
            objects(stepups, "stepups"),
            head=head,
        )

    async def _agents(self, head: int) -> tuple[list[Json], int]:
        """Read all agents, and the head that their counts are true for.

        Where the broker does not name it, the answer is asked for again until no
        event fell between two looks at the head; a busy ledger gets three tries.
        """
        for _ in range(3):
            page = await self._wire.get("/api/agents")
            if isinstance(named := page.get("head"), int):
                return objects(page, "agents"), named
            status = self.mirror.intake.status(await self._wire.get("/api/status"))
            if status.head == head:
                break
            head = status.head
        return objects(page, "agents"), head

    async def _follow(self) -> None:
        mirror = self.mirror
        async for frames in self._wire.events(mirror.last_seq, self.face):
            mirror.set_link(LinkState.LIVE)
            for frame, data in zip(frames, read_frames(frames), strict=True):
                self._take(frame.kind, data)
            mirror.stir()

    def _take(self, kind: str, data: Any) -> None:
        if not isinstance(data, dict):
            return
        if kind == "reset":
            self._accuse("the broker does not know the last event seen here")
            self.mirror.last_seq = 0
            raise _ResyncError("the ledger is another one; reading it anew")
        if kind == "audit" and data.get("seq", 0) > self.mirror.last_seq + 1:
            raise _ResyncError("events were missed; reading them")
        self.mirror.take(kind, data)
        if data.get("type") == "clock.jump":
            raise _ResyncError("the clock was set; reading anew what ends when")
        if kind == "presence":
            self._looking.update()

    async def _watch(self) -> None:
        """Notice that this process stood still, or that the broker does."""
        beats = 0
        while True:
            await asyncio.sleep(_BEAT)
            if (still := self._stood_still()) > _STALL:
                raise _ResyncError(f"this console stood still for {still:.0f} s")
            self._beat_at = self.mirror.clock.boot()
            beats += 1
            if beats % _CHECK_BEATS == 0:
                status = await self._wire.get("/api/status")
                self.mirror.apply("status", status)
                self._keep_head()
                self._beat_at = self.mirror.clock.boot()
            for agent_id in list(self.mirror.wants)[:_REREAD_AT_ONCE]:
                self.mirror.wants.discard(agent_id)
                with contextlib.suppress(NotFoundError):
                    self.mirror.apply("agent", await self.agent(agent_id))

    def screen_stood(self, seconds: float) -> None:
        """Read everything anew when the operator's screen stood still for long.

        Keys typed meanwhile arrive now, and were meant for what was shown before.
        """
        if seconds > _STALL and self._doubt is not None and not self._doubt.done():
            why = f"the terminal stood still for {seconds:.0f} s"
            self.mirror.set_link(LinkState.STALE, why)
            self._doubt.set_exception(_ResyncError(why))

    def _stood_still(self) -> float:
        return self.mirror.clock.boot() - self._beat_at

    # The ledger this console remembers

    async def _compare(self, status: Json) -> None:
        """Hold what the broker has now against what was seen before."""
        now = self.mirror.intake.status(status)
        seen = self._memory.recall()
        if self.mirror.last_hash:
            mine = Head(self.mirror.last_seq, self.mirror.last_hash)
            seen = mine if seen is None or mine.seq >= seen.seq else seen
        if seen is None or not seen.seq or _LEDGER in self.mirror.warnings:
            return
        if now.head < seen.seq:
            self._accuse(f"it ends at {now.head:,}, and {seen.seq:,} was seen here")
            return
        page = await self._wire.get("/api/audit", after=seen.seq - 1, limit=1)
        events = objects(page, "events")
        if not events or events[0].get("hash") != seen.hash:
            self._accuse(f"event {seen.seq:,} is not the one that was seen here")

    def _accuse(self, what: str) -> None:
        self.mirror.versions.ledger += 1
        self.mirror.warn(
            _LEDGER,
            f"LEDGER CHANGED: {what}. Records are missing, or an older copy stands in"
            " their place. What to do: agentvault audit verify",
        )

    def accept_ledger(self) -> None:
        """Take the ledger as it is now for the true one; the operator's word."""
        self.mirror.unwarn(_LEDGER)
        self._keep_head()

    def _keep_head(self) -> None:
        mirror = self.mirror
        if _LEDGER in mirror.warnings or not mirror.last_hash:
            return
        self._memory.keep(Head(mirror.last_seq, mirror.last_hash))

    # Reading

    async def agent(self, agent_id: str) -> Json:
        """Read one agent."""
        return await self._wire.get(f"/api/agents/{agent_id}")

    async def activity(self, agent_id: str) -> ActivityRow:
        """Read what one agent did, counted by the broker."""
        # Loaded by whoever shows it; the first frame does without.
        from agentvault_tui.console.activity import read_activity  # noqa: PLC0415

        data = await self._wire.get(f"/api/agents/{agent_id}/activity")
        return read_activity(self.mirror.intake, data)

    async def audit(self, **query: object) -> EventPage:
        """Read a page of the audit, in the order the broker gives."""
        events, following = await self.audit_objects(**query)
        return EventPage(tuple(map(self.mirror.intake.event, events)), following)

    async def audit_objects(self, **query: object) -> tuple[list[Json], int | None]:
        """Read a page of the audit as it comes; also where reading goes on."""
        page = await self._wire.get("/api/audit", **query)
        following = page.get("next")
        return objects(page, "events"), following if integer(following) else None

    async def past(self, **moment: object) -> Json:
        """Read what the broker knew at a moment."""
        return await self._wire.get("/api/past", **moment)

    async def links(self, seqs: Iterable[int]) -> list[Proof]:
        """Read what it takes to compute links of the chain again."""
        from agentvault_tui.proof import Proof  # noqa: PLC0415 - as above

        asked = ",".join(map(str, seqs))
        page = await self._wire.get("/api/audit/links", seq=asked)
        ledger = page.get("ledger")
        return [Proof.read(link, ledger) for link in objects(page, "links")]

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision; also whether that is all."""
        page = await self._wire.get(f"/api/audit/{seq}/story")
        rows = map(self.mirror.intake.event, objects(page, "events"))
        return list(rows), page.get("complete") is True

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        path = f"/api/agents/stepup/{stepup_id}/before"
        page = await self._wire.get(path, limit=limit)
        rows = map(self.mirror.intake.stepup, objects(page, "stepups"))
        # In the past, what was decided later had not been decided yet.
        now = self.mirror.clock.now()
        return tuple(r for r in rows if r.decided_at is None or r.decided_at <= now)

    # Deciding: each as `actions.Actions` says

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
            data.get("recorded") is not False,
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
            data.get("recorded") is not False,
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
        if self._stood_still() > _STALL:
            # Keys typed into a frozen terminal arrive before the heart beats again.
            self.mirror.set_link(LinkState.STALE, "this console stood still")
        elif link.live:
            return
        raise RefusedError(
            f"the link is {self.mirror.link.state.value}, so nothing is decided",
            "what is shown may be old; agentvault agents revoke works without it",
        )
