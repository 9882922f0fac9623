"""Commands that operators run as agents: a key each for the proxy, and a live token."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.redeem import end_token
from agentvault_tui.clock import Deadline
from agentvault_tui.errors import LedgerError, NotFoundError, RefusedError
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.model import Actor, AgentId, new_id, new_secret, sha256_hex
from agentvault_tui.settings import PassThrough

log = logging.getLogger("agentvault.runs")

RUN_KEY: Final = "av_r"
"""The beginning of a run's key."""
LEASE: Final = 45.0
"""Seconds after which a run has ended if its command line is silent. They do not count
while the machine is suspended: the command line slept too."""
WAIT: Final = 15.0
"""The longest that a question for news is held open, in seconds."""
_RENEWED: Final = 0.7
"""The part of a token's life after which a run gets another one."""


@dataclass(eq=False, slots=True)
class CommandRun:
    """One command that runs as an agent."""

    agent_id: AgentId
    operator: Actor
    """Who runs it."""
    services: frozenset[str]
    """Services that it may reach, and that its tokens are bound to (RFC 8707). Empty:
    all services and MCP servers."""
    pass_through: tuple[PassThrough, ...]
    """Hosts that it may reach besides those of the settings."""
    key_sha256: str
    lease: float
    """The end of its life if its command line is silent, in the event loop's time."""
    id: str = field(default_factory=lambda: new_id("run"))
    token_sha256: str = ""
    """Of its live token; of the last one, once it has ended."""
    renewal: Deadline | None = None
    ended: str | None = None
    """Why it has ended, if so: ``done``, ``lost`` or the reason of a refusal."""
    why: str = ""
    """The same for a person."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if its waiters should look again."""
    counts: Counter[str] = field(default_factory=Counter)
    """Its requests: ``calls``, ``held``, ``refused`` and ``tunnels``."""


class Runs:
    """The runs of one broker."""

    def __init__(self, broker: Broker, on_end: Callable[[CommandRun], None]) -> None:
        """Start with none; *on_end* is called with each that ends, in that turn."""
        self._broker = broker
        self._on_end = on_end
        self._runs: dict[str, CommandRun] = {}
        self._by_token: dict[str, CommandRun] = {}

    def __iter__(self) -> Iterator[CommandRun]:
        """Yield those that have not ended."""
        return iter([run for run in self._runs.values() if run.ended is None])

    def by_key(self, sha256: str) -> CommandRun | None:
        """Return the run whose key has that digest, if it has not ended."""
        return next((run for run in self if run.key_sha256 == sha256), None)

    def observe(self, caller: Caller, kind: str) -> None:
        """Count a request, where its token is one of a run."""
        run = self._by_token.get(caller.token.sha256)
        if run is not None:
            run.counts[kind] += 1

    def get(self, run_id: str) -> CommandRun:
        """Return a run, also one that has ended and was not asked about since.

        Raises:
            NotFoundError: there is none.
        """
        run = self._runs.get(run_id)
        if run is None:
            raise NotFoundError("no run has that id: it has ended")
        return run

    async def start(
        self,
        agent_id: AgentId,
        operator: Actor,
        services: frozenset[str],
        pass_through: tuple[PassThrough, ...],
    ) -> tuple[CommandRun, str, Granted]:
        """Start one.

        Returns:
            the run, its key, and its first token.

        Raises:
            RefusedError: policy allows the agent nothing at once.
            LedgerError: the token could not be recorded.
        """
        key = new_secret(RUN_KEY)
        lease = asyncio.get_running_loop().time() + LEASE
        run = CommandRun(
            agent_id, operator, services, pass_through, sha256_hex(key), lease
        )
        granted = await self._issue(run)
        self._runs[run.id] = run
        return run, key, granted

    async def wait(self, run: CommandRun) -> Granted | None:
        """Wait for news of *run*: that it has ended, or a new token, or nothing.

        Returns:
            its new token, where it got one.

        Raises:
            LedgerError: it needs one, which could not be recorded.
        """
        clock, now = self._broker.clock, asyncio.get_running_loop().time
        run.lease = now() + LEASE
        if run.ended is None and not self._due(run):
            left = run.renewal.remaining(clock) if run.renewal else 0.0
            with suppress(TimeoutError):
                async with asyncio.timeout(min(WAIT, left)):
                    await run.news.wait()
        run.news.clear()
        run.lease = now() + LEASE
        if run.ended is not None or not self._due(run):
            return None
        try:
            return await self._issue(run)
        except RefusedError as error:
            self._end(run, "refused", error.what)
            return None

    def _due(self, run: CommandRun) -> bool:
        lives = self._broker.registry.token(run.token_sha256) is not None
        return (
            not lives or run.renewal is None or run.renewal.passed(self._broker.clock)
        )

    async def _issue(self, run: CommandRun) -> Granted:
        agent = self._broker.registry.agent(run.agent_id)
        named = [
            f"{self._broker.admitting.url}/gw/{one}" for one in sorted(run.services)
        ]
        bound = " ".join(named) or None
        granted = await issue_for(self._broker, agent, (), bound, run.operator)
        run.token_sha256 = granted.token.sha256
        self._by_token[run.token_sha256] = run
        run.renewal = Deadline.after(self._broker.clock, granted.expires_in * _RENEWED)
        return granted

    async def finish(self, run: CommandRun) -> None:
        """End a run whose command has ended, and its token."""
        self._end(run, "done", "the command has ended")
        self._forget(run)
        await self._end_token(run)

    def cut(self, agent_id: AgentId | None, scopes: frozenset[str] | None) -> None:
        """End the runs of an agent, or of all; where scopes changed, look again."""
        for run in self:
            if agent_id not in {None, run.agent_id}:
                continue
            if scopes is not None:
                run.news.set()
            elif agent_id is None:
                self._end(run, "panic", "everything is stopped by an operator")
            else:
                self._end(run, "agent_revoked", "its agent was revoked by an operator")

    async def look(self) -> None:
        """End runs whose command line is gone."""
        for run in list(self._runs.values()):
            if asyncio.get_running_loop().time() < run.lease:
                continue
            self._end(run, "lost", "its command line asks no more")
            self._forget(run)
            await self._end_token(run)

    def _end(self, run: CommandRun, reason: str, why: str) -> None:
        if run.ended is None:
            run.ended, run.why = reason, why
            run.news.set()
            self._on_end(run)

    def _forget(self, run: CommandRun) -> None:
        self._runs.pop(run.id, None)
        for sha256 in [sha for sha, one in self._by_token.items() if one is run]:
            del self._by_token[sha256]

    async def _end_token(self, run: CommandRun) -> None:
        """End its token, so that nothing outlives it."""
        token = self._broker.registry.token(run.token_sha256)
        if token is not None:
            agent = self._broker.registry.agent(run.agent_id)
            try:
                await end_token(self._broker, agent, token)
            except LedgerError as error:
                log.warning("the token of a run lives to its end: %s", error.what)
