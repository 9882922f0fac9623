"""Steps at the tenant that outlive the request, the tenant's outages and the broker.

A step is a row of the ledger, written with the revocation it belongs to. It is tried
until the tenant was seen to have done it, or given up after a day, which operators are
told of at once and for as long as it stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final, Literal, Protocol

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.holdings import Holding, Holdings
from agentvault_tui.broker.upstream.steps import ORDER, Step, do, needed, waits
from agentvault_tui.clock import Clock
from agentvault_tui.errors import AgentVaultError, NotFoundError, TenantBusyError
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
_PROBLEM: Final = 200
_NO_CREDENTIAL: Final = (
    "this home has no Management API credential: agentvault auth0 apply"
)
_BROKER: Final = Actor(ActorKind.SYSTEM, "broker", "broker")
_random: Final = SystemRandom().random

Record = Callable[[Draft | None, Change], Awaitable[None]]
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


class Outbox:
    """Plans the steps of a revocation, and does them one after the other."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        access: Access,
        record: Record,
        jitter: Callable[[], float] = _random,
    ) -> None:
        """Do steps by *access*; *jitter* gives numbers from 0 to 1."""
        self._clock = clock
        self._registry = registry
        self._access = access
        self._record = record
        self._jitter = jitter
        self._news = asyncio.Event()

    def cut(self, agent_id: AgentId) -> tuple[OutboxStep, ...]:
        """Return the steps that end the agent at the tenant, to be recorded and taken.

        What a restore has still to give back is withdrawn, also a restore that is
        being recorded right now: of two rows the one handed to the ledger later wins.
        """
        held = self._held(agent_id)
        back = [] if held is None else [self._new(agent_id, Step.GRANT_BACK)]
        users = () if held is None else self._users(agent_id, held)
        return (
            *(replace(step, status="withdrawn") for step in back),
            *(
                replace(self._new(agent_id, name), users=users)
                for name in needed(held, users)
            ),
        )

    def _users(self, agent_id: AgentId, held: Holding) -> tuple[str, ...]:
        """Return whose refresh tokens its client may have, also without an account."""
        try:
            others = self._access.holdings.signed_in(agent_id)
        except AgentVaultError as error:
            log.warning("the agent's vault user is unknown: %s", error.what)
            others = ()
        return tuple(dict.fromkeys((*held.users, *others)))

    def foreseen(self, agent_id: AgentId) -> tuple[str, ...]:
        """Return the names of the steps that a revocation would take now."""
        return tuple(name.value for name in needed(self._held(agent_id)))

    def restore(self, agent_id: AgentId) -> tuple[OutboxStep, ...]:
        """Return the steps that let the agent use its grant again, the rest withdrawn.

        To be recorded with the restore, and taken once that is durable.
        """
        withdrawn = [
            replace(step, status="withdrawn", next_at=None)
            for step in self._registry.steps_of(agent_id)
            if step.status == "pending" and step.step != Step.GRANT_BACK
        ]
        if self._held(agent_id) is None:
            return tuple(withdrawn)
        return (*withdrawn, self._new(agent_id, Step.GRANT_BACK))

    def take(self, steps: Iterable[OutboxStep]) -> None:
        """Begin with *steps*."""
        for step in steps:
            self._registry.put_step(step)
        self.wake()

    def wake(self) -> None:
        """Look again: there are new steps, or the tenant became reachable."""
        self._news.set()

    async def run(self) -> None:
        """Do steps until cancelled; no fault of one ends the others."""
        while True:
            self._news.clear()
            if not await self.work():
                await self._rest()

    async def work(self) -> bool:
        """Try the step that stops most of those that are due; tell if there was one."""
        now = self._clock.now()
        due = [
            step
            for step in self._pending()
            if (step.next_at or now) <= now
            and not waits(step, self._registry.steps_of(step.agent_id), now)
        ]
        if not due:
            return False
        await self._try(min(due, key=lambda step: (_rank(step), step.begun_at)))
        return True

    async def _rest(self) -> None:
        """Wait until the next step is due, or there are others."""
        moments = [step.next_at for step in self._pending() if step.next_at]
        now = self._clock.now()
        left = max((min(moments) - now).total_seconds(), 0.0) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._news.wait()

    def _pending(self) -> list[OutboxStep]:
        return [s for s in self._registry.steps() if s.status == "pending"]

    def _held(self, agent_id: AgentId) -> Holding | None:
        """Return what it has at the tenant; a home that cannot be read stops no cut."""
        try:
            return self._access.holdings.of(agent_id)
        except AgentVaultError as error:
            log.warning("what agents have at the tenant is unknown: %s", error.what)
            return None

    def _new(self, agent_id: AgentId, name: Step) -> OutboxStep:
        step_id = f"{agent_id}/{name.value}"
        return OutboxStep(step_id, agent_id, name.value, self._clock.now())

    async def _try(self, step: OutboxStep) -> None:
        wait = 0.0
        if (Step(step.step) is Step.GRANT_BACK) is not self._served(step.agent_id):
            # Never against what is in force here, whatever a row says.
            await self._end(replace(step, status="withdrawn", next_at=None))
            return
        try:
            management = self._access.management
            if management is None:
                problem: str | None = _NO_CREDENTIAL
            else:
                api = management.at(Priority.REVOCATION)
                known = self._access.holdings
                done = await do(step, api, known)
                problem = None if done else "accepted, and not true yet"
        except TenantBusyError as error:
            problem, wait = error.diagnosis(), error.retry_after or 0.0
        except AgentVaultError as error:
            problem = error.diagnosis()
        except Exception as error:
            log.exception("step %s of %s broke", step.step, step.agent_id)
            problem = f"this is our fault, see the log ({type(error).__name__})"
        if self._registry.step(step.agent_id, step.id) is step:
            # Otherwise the agent was revoked or restored meanwhile: that holds.
            await self._tell(step, problem and visible(problem, _PROBLEM), wait)

    async def _tell(self, step: OutboxStep, problem: str | None, wait: float) -> None:
        """Record how a try ended; an event where operators want to know."""
        now = self._clock.now()
        tried = step.attempts + 1
        if problem is not None and now - step.begun_at < GIVE_UP:
            pause = min(_FIRST * 2.0 ** min(step.attempts, 20), _LONGEST)
            pause = max(pause * (0.75 + self._jitter() / 2), wait)
            next_at = now + timedelta(seconds=pause)
            new = replace(step, attempts=tried, next_at=next_at, problem=problem)
        else:
            new = _over(step, "failed" if problem else "confirmed", problem, now)
        if new.status == "pending" and new.problem == step.problem:
            self._registry.put_step(new)
            await self._record(None, new)
        else:
            await self._end(new)

    async def _end(self, step: OutboxStep) -> None:
        """Keep a step that operators are to hear of."""
        self._registry.put_step(step)
        await self._record(_draft(step), step)

    def _served(self, agent_id: AgentId) -> bool:
        try:
            return self._registry.agent(agent_id).status is AgentStatus.ACTIVE
        except NotFoundError:
            return False


def _over(
    step: OutboxStep,
    status: Literal["confirmed", "failed"],
    problem: str | None,
    now: datetime,
) -> OutboxStep:
    return replace(
        step,
        status=status,
        attempts=step.attempts + 1,
        next_at=None,
        ms=round((now - step.begun_at).total_seconds() * 1000, 1),
        problem=problem,
    )


def _rank(step: OutboxStep) -> int:
    return ORDER[Step(step.step)]


def _draft(step: OutboxStep) -> Draft:
    return Draft(
        EventType.UPSTREAM_REVOCATION,
        _BROKER,
        agent_id=step.agent_id,
        action=step.step,
        reason=step.problem or step.status,
        detail={
            "step": step.step,
            "status": step.status,
            "attempts": step.attempts,
            "ms": None if step.ms is None else round(step.ms),
        },
    )
