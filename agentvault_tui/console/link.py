"""The link to the broker: follows it into the mirror for as long as the console runs.

What cannot be confirmed makes the link stale or lost, and then decisions are refused
here, before they are sent: see `decides`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentvault_tui.console.decides import STALL, Decides
from agentvault_tui.console.looking import Looking
from agentvault_tui.console.memory import Memory
from agentvault_tui.console.mirror import RING, Mirror
from agentvault_tui.console.records import Json, LinkState
from agentvault_tui.console.seen import SeenLedger
from agentvault_tui.console.sse import read_frames
from agentvault_tui.console.wire import Wire, objects
from agentvault_tui.errors import AgentVaultError, NotFoundError

_BEAT: Final = 1.0
_PAUSE: Final = 0.1
"""Seconds between reads of a busy stream, so that many frames cost one wake-up."""
_CHECK_BEATS: Final = 5
"""The broker is asked for its status this often: a frozen one says nothing."""
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_REREAD_AT_ONCE: Final = 5


class _ResyncError(Exception):
    """What is shown has to be read anew, at once."""


class Link(Decides):
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
        super().__init__(mirror, Wire(socket, pause), read_only=read_only)
        self._looking = Looking(mirror.presence, self._wire)
        self.look = self._looking.at
        self.face = "console"
        """What this is to the other operators."""
        self._seen = SeenLedger(mirror, memory, self._wire)
        self.accept_ledger = self._seen.accept
        self.loaded: Callable[[], object] = lambda: None
        """Called when everything has been read anew."""
        self._doubt: asyncio.Future[None] | None = None

    # Following

    async def run(self) -> None:
        """Follow the broker until cancelled; come back whenever it does."""
        self._seen.tidy()
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
            self._seen.keep()
            await self._looking.close()
            await self._wire.close()

    async def _session(self) -> None:
        """Read everything, then follow until something ends it."""
        self.beat()
        await self._snapshot()
        self.loaded()
        # However long that took: what came meanwhile is read from where it ends.
        self.beat()
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
        await self._seen.compare(status)
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
            self._seen.accuse("the broker does not know the last event seen here")
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
            if (still := self.stood_still()) > STALL:
                raise _ResyncError(f"this console stood still for {still:.0f} s")
            self.beat()
            beats += 1
            if beats % _CHECK_BEATS == 0:
                status = await self._wire.get("/api/status")
                self.mirror.apply("status", status)
                self._seen.keep()
                self.beat()
            for agent_id in list(self.mirror.wants)[:_REREAD_AT_ONCE]:
                self.mirror.wants.discard(agent_id)
                with contextlib.suppress(NotFoundError):
                    self.mirror.apply("agent", await self.agent(agent_id))

    def screen_stood(self, seconds: float) -> None:
        """Read everything anew when the operator's screen stood still for long.

        Keys typed meanwhile arrive now, and were meant for what was shown before.
        """
        if seconds > STALL and self._doubt is not None and not self._doubt.done():
            why = f"the terminal stood still for {seconds:.0f} s"
            self.mirror.set_link(LinkState.STALE, why)
            self._doubt.set_exception(_ResyncError(why))
