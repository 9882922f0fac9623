"""An example agent: requests tokens, calls the workspace, polls step-ups."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from random import Random

import httpx

from agentvault_tui.demo.client import (
    DENIED,
    ESCALATED,
    GRANTED,
    UNAVAILABLE,
    OAuthClient,
    TokenAnswer,
)
from agentvault_tui.demo.roles import AgentRole, DemoAction


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long an agent waits after each kind of no, in seconds."""

    cut_off: float = 5.0
    """Revoked, or everything is stopped: look again now and then."""
    cooling: float = 20.0
    """A person said no: doubled each time in a row."""
    cooling_most: float = 300.0
    again: float = 15.0
    """Nobody decided in time, or too much is waiting: ask again later."""
    slow_down: float = 5.0
    """Added to the polling interval at each ``slow_down`` (RFC 8628 section 3.5)."""


class ExampleAgent:
    """One agent: its client, its manners, and what it has in hand."""

    def __init__(
        self,
        name: str,
        role: AgentRole,
        client: OAuthClient,
        workspace: httpx.AsyncClient,
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
        self._workspace = workspace
        self._stopping = stopping
        self._pauses = pauses
        self._not_before = 0.0
        self._cooling = pauses.cooling
        self._tokens: deque[str] = deque()
        self._awaited: set[str] = set()
        self._polls: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Requests that wait for a person."""
        return len(self._awaited)

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
        """Wait for polls under way."""
        while self._polls:
            await asyncio.gather(*self._polls)

    async def rest(self, seconds: float) -> None:
        """Wait *seconds*, or until the demo stops."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), seconds)
            except TimeoutError:
                return

    async def run(self, action: DemoAction) -> None:
        """Request a token for *action*, and do it if allowed."""
        await self.rest(self._not_before - asyncio.get_running_loop().time())
        if self._stopping.is_set():
            return
        answer = await self._ask(action)
        if answer.error == GRANTED:
            self._cooling = self._pauses.cooling
            await self._act(action, answer.access_token)
            if not action.connection:
                await self._keep(answer.access_token)
        elif answer.error == ESCALATED:
            self._await_person(action, answer)
        elif answer.error == DENIED:
            self._back_off(answer)
        elif answer.error == UNAVAILABLE:
            self._hold(answer.retry_after)

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

    async def _ask(self, action: DemoAction) -> TokenAnswer:
        if action.connection:
            return await self.client.exchange(action.connection)
        return await self.client.ask(action.scope, action.details())

    async def _act(self, action: DemoAction, access_token: str) -> None:
        try:
            reply = await self._workspace.request(
                action.method,
                action.path,
                headers={"Authorization": f"Bearer {access_token}"},
                json=action.body or None,
            )
        except httpx.TransportError:
            return
        self.done += reply.is_success

    async def _keep(self, access_token: str) -> None:
        """Keep the latest tokens; revoke the oldest."""
        self._tokens.append(access_token)
        if len(self._tokens) > self.role.keeps:
            await self.client.hand_back(self._tokens.popleft())

    def _await_person(self, action: DemoAction, answer: TokenAnswer) -> None:
        """Poll for *answer* in the background; once per request."""
        if answer.auth_req_id in self._awaited:
            return
        self._awaited.add(answer.auth_req_id)
        task = asyncio.create_task(self._poll(action, answer), name=f"{self.name} poll")
        self._polls.add(task)
        task.add_done_callback(self._polls.discard)

    async def _poll(self, action: DemoAction, asked: TokenAnswer) -> None:
        interval = asked.interval
        answer = TokenAnswer("authorization_pending")
        while answer.error in {"authorization_pending", "slow_down", UNAVAILABLE}:
            if answer.error == "slow_down":
                interval += self._pauses.slow_down
            pause = answer.retry_after if answer.error == UNAVAILABLE else 0.0
            await self.rest(max(interval, pause))
            if self._stopping.is_set():
                break
            answer = await self.client.poll(asked.auth_req_id)
        self._awaited.discard(asked.auth_req_id)
        await self._decided(action, answer)

    async def _decided(self, action: DemoAction, answer: TokenAnswer) -> None:
        if answer.error == GRANTED:
            # Good for one action: the workspace's question to the broker spends it.
            await self._act(action, answer.access_token)
        elif answer.error == DENIED:
            self._back_off(answer)
        elif answer.error == "expired_token":
            await self.rest(self._pauses.again)
            await self.run(action)

    def _back_off(self, answer: TokenAnswer) -> None:
        """Pause as long as the reason asks for."""
        if answer.reason in {"agent_revoked", "panic"}:
            self._hold(self._pauses.cut_off)
        elif answer.reason in {"cooling_down", "stepup_denied"}:
            self._hold(self._cooling)
            self._cooling = min(self._cooling * 2, self._pauses.cooling_most)
        elif answer.reason == "too_many_pending":
            self._hold(self._pauses.again)

    def _hold(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._not_before = max(self._not_before, until)
