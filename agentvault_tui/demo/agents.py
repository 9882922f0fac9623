"""An example agent: it acts through the gateway, and holds no API's credential."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from random import Random
from typing import Final

from agentvault_tui.demo.client import UNAVAILABLE, AgentAnswer, OAuthClient
from agentvault_tui.demo.roles import AgentRole, DemoAction

_ON_ITS_WAY: Final = 1.0
"""Seconds after which an agent goes on with other things while a call waits."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long an agent waits after each kind of no, in seconds."""

    cut_off: float = 5.0
    """Revoked, or everything is stopped: look again now and then."""
    cooling: float = 20.0
    """A person said no: doubled each time in a row."""
    cooling_most: float = 300.0
    again: float = 15.0
    """Undecided in time, or too much is waiting: ask again later."""


class ExampleAgent:
    """One agent: its client, its manners, and its present work."""

    def __init__(
        self,
        name: str,
        role: AgentRole,
        client: OAuthClient,
        *,
        random: Random,
        stopping: asyncio.Event,
        pauses: Pauses = Pauses(),
    ) -> None:
        self.name = name
        self.role = role
        self.client = client
        self.random = random
        self.done = 0
        """Actions the workspace has carried out."""
        self.account = asyncio.Event()
        """Set once its owner has connected the account it uses at a provider."""
        self._stopping = stopping
        self._pauses = pauses
        self._not_before = 0.0
        self._cooling = pauses.cooling
        self._token = ""
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Calls that wait for a person, or take long."""
        return len(self._under_way)

    @property
    def stopping(self) -> bool:
        """Whether the demo is stopping."""
        return self._stopping.is_set()

    async def live(self, rate: float) -> None:
        """Do ordinary actions, *rate* a second on average."""
        due = asyncio.get_running_loop().time()
        while not self._stopping.is_set():
            due += self.random.expovariate(rate)
            now = asyncio.get_running_loop().time()
            if due < now - 1.0:
                due = now  # a pause is not made up for
            await self.rest(due - now)
            await self.run(self.role.next_action(self.random))

    async def finish(self) -> None:
        """Leave calls under way: a held one is not sent without a waiting client."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def rest(self, seconds: float) -> None:
        """Wait *seconds*, or until the demo stops."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def run(self, action: DemoAction) -> None:
        """Do *action* through the gateway; go on while a person decides about it."""
        await self.rest(self._not_before - asyncio.get_running_loop().time())
        if self._stopping.is_set():
            return
        task = asyncio.create_task(self._act(action), name=f"{self.name} call")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait({task}, timeout=_ON_ITS_WAY)
        if task.done():
            await task

    async def connected(self) -> bool:
        """Wait until the account is connected; False if the demo stops first."""
        waits = {
            asyncio.create_task(event.wait())
            for event in (self.account, self._stopping)
        }
        _, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        return not self.stopping

    async def have_done(
        self, helper: ExampleAgent, action: DemoAction, scope: str
    ) -> None:
        """Pass a token on to another agent, which does *action* with it."""
        if await self._has_token():
            other = helper.client.client_id
            passed = await self.client.pass_on(self._token, other, scope)
            if passed.error:
                self._back_off(passed)
                return
            called = (action.method, action.path, action.body or None)
            await helper.client.call(passed.access_token, *called)

    async def _has_token(self) -> bool:
        if not self._token:
            reply = await self.client.ask(self.role.token_scope)
            self._token = reply.access_token
            if reply.error:
                self._back_off(reply)
        return bool(self._token)

    async def _act(self, action: DemoAction) -> None:
        if not await self._has_token():
            return
        answer = await self.client.call(
            self._token, action.method, action.path, action.body or None
        )
        self.done += answer.done
        if not answer.error:
            self._cooling = self._pauses.cooling
        elif answer.reason == "stepup_expired":
            await self.rest(self._pauses.again)
            await self._act(action)
        else:
            self._back_off(answer)

    def _back_off(self, answer: AgentAnswer) -> None:
        """Pause as long as the refusal asks for."""
        if answer.error == "invalid_token":
            self._token = ""
        if answer.error == UNAVAILABLE:
            self._hold(answer.retry_after)
        elif answer.reason in {"agent_revoked", "panic"}:
            self._hold(self._pauses.cut_off)
        elif answer.reason in {"cooling_down", "stepup_denied"}:
            self._hold(self._cooling)
            self._cooling = min(self._cooling * 2, self._pauses.cooling_most)
        elif answer.reason == "too_many_pending":
            self._hold(self._pauses.again)

    def _hold(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._not_before = max(self._not_before, until)
