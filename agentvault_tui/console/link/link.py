"""The link to the broker: follows it into the mirror for as long as the console runs.

What cannot be confirmed makes the link stale or lost, and then decisions are refused
here, before they are sent: see `decides`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentvault_tui.console.link.decides import STALL, Decides
from agentvault_tui.console.link.looking import Looking
from agentvault_tui.console.link.memory import Memory
from agentvault_tui.console.link.seen import SeenLedger
from agentvault_tui.console.state.mirror import RING, Mirror, Roster
from agentvault_tui.console.state.records import LinkState
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import AsyncOperatorClient
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import AgentQuery, AuditQuery
from agentvault_tui.operator_api.shapes import (
    AgentPage,
    HeadInfo,
    PresenceInfo,
    WireShape,
)

_BEAT: Final = 1.0
_PAUSE: Final = 0.1
"""Seconds between reads of a busy stream, so that many frames cost one wake-up."""
_CHECK_BEATS: Final = 5
"""The broker is asked for its status this often: a frozen one says nothing."""
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_PAGE: Final = 500
"""Agents a page of the first reading has."""
_AT_ONCE: Final = 100
"""Agents read anew by one request."""


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
        super().__init__(
            mirror, AsyncOperatorClient(socket, pause), read_only=read_only
        )
        self._looking = Looking(mirror.presence, self._client)
        self.look = self._looking.at
        self.face = "console"
        """What this is to the other operators."""
        self._seen = SeenLedger(mirror, memory, self._client)
        self.accept_ledger = self._seen.accept
        self.loaded: Callable[[], object] = lambda: None
        """Called when everything has been read anew."""
        self._doubt: asyncio.Future[None] | None = None
        self._wanted = asyncio.Event()
        mirror.wanted = self._wanted.set

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
            await self._client.close()

    async def _session(self) -> None:
        """Read everything, then follow until something ends it."""
        self.beat()
        await self._snapshot()
        self.loaded()
        # However long that took: what came meanwhile is read from where it ends.
        self.beat()
        self._doubt = asyncio.get_running_loop().create_future()
        parts = (self._watch(), self._follow(), self._reread())
        tasks = {self._doubt, *map(asyncio.ensure_future, parts)}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _snapshot(self) -> None:
        """Read all there is; show the first agents before the others are read.

        While one page of agents is taken in, the next one is on its way.
        """
        mirror, client = self.mirror, self._client
        status = await client.call(calls.STATUS)
        reading = asyncio.ensure_future(self._page(AgentQuery(limit=_PAGE)))
        try:
            head = status.ledger.head
            await self._seen.compare(head)
            if not 0 <= head - mirror.last_seq <= RING or not mirror.last_seq:
                query = AuditQuery(before=head + 1, limit=200)
                events = (await client.call(calls.AUDIT, query)).events
                mirror.load_events(reversed(events), after=head)
            mirror.intake.learn((await client.call(calls.POLICY)).catalogue)
            stepups = (await client.call(calls.STEPUPS)).stepups
            roster = Roster(mirror.intake)
            while True:
                page = await reading
                if following := page.next:
                    query_on = AgentQuery(limit=_PAGE, after=following)
                    reading = asyncio.ensure_future(self._page(query_on))
                    await asyncio.sleep(0)  # let it be sent
                roster.take(page.agents, page.head)
                if not following:
                    break
                if not mirror.agents:
                    mirror.load(status, roster, stepups, whole=False)
                    await asyncio.sleep(0)  # let it be shown
        finally:
            reading.cancel()
        mirror.load(status, roster, stepups)

    async def _page(self, query: AgentQuery) -> AgentPage:
        return await self._client.call(calls.AGENTS, query)

    async def _reread(self) -> None:
        """Read the tokens of agents that somebody looks at, when they are not held."""
        wants = self.mirror.wants
        while True:
            if not wants:
                self._wanted.clear()
                await self._wanted.wait()
            asked = list(wants)[:_AT_ONCE]
            try:
                await self._read_agents(asked, tokens=True)
            finally:
                wants.difference_update(asked)

    async def _read_agents(self, asked: list[str], *, tokens: bool) -> None:
        query = AgentQuery(ids=",".join(asked), tokens=tokens)
        for agent in (await self._page(query)).agents:
            self.mirror.take(agent)
        self.mirror.versions.held += tokens
        self.mirror.stir()

    async def _follow(self) -> None:
        mirror = self.mirror
        async for told in self._client.events(mirror.last_seq, self.face):
            mirror.set_link(LinkState.LIVE)
            for each in told:
                self._take(each)
            mirror.stir()

    def _take(self, told: WireShape) -> None:
        if isinstance(told, HeadInfo):
            self._seen.accuse("the broker does not know the last event seen here")
            self.mirror.last_seq = 0
            raise _ResyncError("the ledger is another one; reading it anew")
        if isinstance(told, EventInfo) and told.seq > self.mirror.last_seq + 1:
            raise _ResyncError("events were missed; reading them")
        self.mirror.take(told)
        if isinstance(told, EventInfo) and told.type == "clock.jump":
            raise _ResyncError("the clock was set; reading anew what ends when")
        if isinstance(told, PresenceInfo):
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
                status = await self._client.call(calls.STATUS)
                self.mirror.apply(status)
                self._seen.keep()
                self.beat()
            if asked := list(self.mirror.stale)[:_AT_ONCE]:
                self.mirror.stale.difference_update(asked)
                await self._read_agents(asked, tokens=False)

    def screen_stood(self, seconds: float) -> None:
        """Read everything anew when the operator's screen stood still for long.

        Keys typed meanwhile arrive now, and were meant for what was shown before.
        """
        if seconds > STALL and self._doubt is not None and not self._doubt.done():
            why = f"the terminal stood still for {seconds:.0f} s"
            self.mirror.set_link(LinkState.STALE, why)
            self._doubt.set_exception(_ResyncError(why))
