"""One try of a step, and how it is recorded and told.

A try may end the step, or say when another is worth it. What is in force here goes
before what a row says, and what came of a step that was withdrawn meanwhile is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final, Protocol

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.holdings import Holdings, users_of
from agentvault_tui.broker.upstream.providers import Providers, is_providers
from agentvault_tui.broker.upstream.steps import (
    AS_THE_AGENT,
    NO_CREDENTIAL,
    Step,
    do,
    do_as_agent,
)
from agentvault_tui.broker.upstream.tried import Tried
from agentvault_tui.clock import Clock
from agentvault_tui.errors import AgentVaultError, NotFoundError
from agentvault_tui.ledger import Change, OutboxStep
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    AgentStatus,
    Draft,
    EventType,
)
from agentvault_tui.text import visible
from agentvault_tui.vault import Management, Priority

log = logging.getLogger("agentvault.outbox")

GIVE_UP: Final = timedelta(hours=24)
_FIRST: Final = 1.0
_LONGEST: Final = 300.0
_TRY: Final = 120.0
"""Seconds one try at the tenant may take: one that it drags out must not hold the cuts
of other agents up."""
_PROBLEM: Final = 200
_BROKER: Final = Actor(ActorKind.SYSTEM, "broker", "broker")
_random: Final = SystemRandom().random

Record = Callable[[Draft | None, tuple[Change, ...]], Awaitable[None]]
"""Writes a step, with its event if it has one; keeps both when the ledger cannot."""


class Access(Protocol):
    """How the tenant is administered; it may come to be known while the broker runs."""

    @property
    def management(self) -> Management | None:
        """The Management API, when there is a credential for it."""
        ...

    @property
    def holdings(self) -> Holdings:
        """What agents have there."""
        ...


class Attempts:
    """Tries steps, and records how that went."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        access: Access,
        providers: Providers,
        record: Record,
        *,
        jitter: Callable[[], float] = _random,
        longest: float = _TRY,
    ) -> None:
        """Do steps by *access* and *providers*; *jitter* gives numbers from 0 to 1.

        A try at the tenant ends after *longest* seconds; another follows later.
        """
        self._clock = clock
        self._registry = registry
        self._access = access
        self._providers = providers
        self._record = record
        self._jitter = jitter
        self._longest = longest

    async def make(self, step: OutboxStep) -> None:
        """Try *step* once, unless what is in force here is against it."""
        if (step.step == Step.GRANT_BACK) is not self._served(step.agent_id):
            # Never against what is in force here, whatever a row says.
            await self._end(replace(step, status="withdrawn", next_at=None))
            return
        try:
            if is_providers(step):
                tried = await self._providers.do(step)
            else:
                step = await self._informed(step)
                tried = await self._at_tenant(step)
        except AgentVaultError as error:
            tried = Tried.of(error)
        except Exception as error:
            log.exception("step %s of %s broke", step.step, step.agent_id)
            fault = f"this is our fault, see the log ({type(error).__name__})"
            tried = Tried(fault)
        if self._registry.step(step.agent_id, step.id) is step:
            await self._tell(step, tried)
        elif tried.changes:
            # The agent was revoked or restored meanwhile, which holds. What is undone
            # at a provider by nobody is told all the same.
            done = _over(step, tried, self._clock.now())
            await self._record(_draft(done), tried.changes)

    async def keep(self, step: OutboxStep) -> None:
        """Write *step*, of which operators need not hear."""
        await self._record(None, (step,))

    async def _informed(self, step: OutboxStep) -> OutboxStep:
        """Return *step*, which knows whose tokens end even if its cut could not know.

        All of the agent's steps are told at once: one of them forgets the accounts.
        """
        agent_id, holdings = step.agent_id, self._access.holdings
        if step.users or step.step == Step.GRANT_BACK:
            return step
        held = holdings.of(agent_id)
        users = users_of(holdings, agent_id, held) if held else ()
        for row in self._registry.steps_of(agent_id) if users else ():
            if row.status == "pending" and not row.users and not is_providers(row):
                told = replace(row, users=users)
                self._registry.put_step(told)
                await self.keep(told)
        return self._registry.step(agent_id, step.id) or step

    async def _at_tenant(self, step: OutboxStep) -> Tried:
        holdings = self._access.holdings
        try:
            async with asyncio.timeout(self._longest):
                if step.step in AS_THE_AGENT:
                    return await do_as_agent(step, holdings)
                management = self._access.management
                if management is None:
                    # Waiting makes none: people are told at once, see `Outbox`.
                    return Tried(NO_CREDENTIAL, over="failed")
                return await do(step, management.at(Priority.REVOCATION), holdings)
        except TimeoutError:
            return Tried(f"the tenant took longer than {self._longest:g} s")

    async def _tell(self, step: OutboxStep, tried: Tried) -> None:
        """Record how a try ended; an event where operators want to know."""
        now = self._clock.now()
        in_time = now - step.begun_at < GIVE_UP
        if tried.over is None and tried.problem is not None and in_time:
            pause = min(_FIRST * 2.0 ** min(step.attempts, 20), _LONGEST)
            pause = max(pause * (0.75 + self._jitter() / 2), tried.wait)
            new = replace(
                step,
                attempts=step.attempts + 1,
                next_at=now + timedelta(seconds=pause),
                problem=visible(tried.problem, _PROBLEM),
            )
        else:
            new = _over(step, tried, now)
        if new.status == "pending" and new.problem == step.problem:
            self._registry.put_step(new)
            await self.keep(new)
        else:
            await self._end(new, *tried.changes)

    async def _end(self, step: OutboxStep, *changes: Change) -> None:
        """Keep a step that operators are to hear of."""
        self._registry.put_step(step)
        if step.status != "pending" and is_providers(step):
            self._providers.forget(step)
        await self._record(_draft(step), (step, *changes))

    def _served(self, agent_id: AgentId) -> bool:
        try:
            return self._registry.agent(agent_id).status is AgentStatus.ACTIVE
        except NotFoundError:
            return False


def _over(step: OutboxStep, tried: Tried, now: datetime) -> OutboxStep:
    return replace(
        step,
        status=tried.over or ("failed" if tried.problem else "confirmed"),
        attempts=step.attempts + 1,
        next_at=None,
        ms=round((now - step.begun_at).total_seconds() * 1000, 1),
        problem=tried.problem and visible(tried.problem, _PROBLEM),
    )


def _draft(step: OutboxStep) -> Draft:
    return Draft(
        EventType.UPSTREAM_REVOCATION,
        _BROKER,
        agent_id=step.agent_id,
        action=step.step,
        resource=f"connection:{step.connection}" if step.connection else None,
        reason=step.problem or step.status,
        detail={
            "step": step.step,
            **({"connection": step.connection} if step.connection else {}),
            "status": step.status,
            "attempts": step.attempts,
            "ms": None if step.ms is None else round(step.ms),
        },
    )
