"""The outbox: steps elsewhere, carried out until each is confirmed or given up.

A step is a row of the ledger, written with the revocation it belongs to. Those at the
tenant are done one after the other, those at providers next to them: none waits for a
provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from random import SystemRandom
from typing import Final

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.access import Holding, TenantAccess, Tried, users_of
from agentvault_tui.broker.upstream.providers import Providers, is_providers
from agentvault_tui.broker.upstream.steps import (
    AS_THE_AGENT,
    CUTTING,
    NO_CREDENTIAL,
    Step,
    do,
    do_as_agent,
    lacks_credential,
    needed,
    not_before,
    rank,
)
from agentvault_tui.clock import Clock
from agentvault_tui.errors import AgentVaultError
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
from agentvault_tui.vault import Priority

log = logging.getLogger("agentvault.outbox")

GIVE_UP: Final = timedelta(hours=24)
_FIRST: Final = 1.0
_LONGEST: Final = 300.0
_TRY: Final = 120.0
"""Seconds a try at the tenant may take, so that it delays no other agent's steps."""
_PROBLEM: Final = 200
_BROKER: Final = Actor(ActorKind.SYSTEM, "broker", "broker")
_random: Final = SystemRandom().random

Record = Callable[..., Awaitable[object]]
"""Records events, and *changes* of the state, in one transaction."""


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


_BREATH: Final = 0.05
"""Seconds between two looks at a step that is due and waits."""
_LOOK: Final = 30.0
"""Seconds between two looks for a credential that steps were given up without."""


class Outbox:
    """Plans the steps of a revocation, tries them, and records how that went."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        access: TenantAccess,
        providers: Providers,
        record: Record,
        *,
        notify: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = _random,
        longest: float = _TRY,
    ) -> None:
        """Do steps by *access* and *providers*; a try ends after *longest* seconds.

        *notify* is called once operators received a step in an event.
        """
        self._clock = clock
        self._registry = registry
        self._access = access
        self._providers = providers
        self._record = record
        self._notify = notify
        self._jitter = jitter
        self._longest = longest
        self._news = asyncio.Event()
        self._provider_news = asyncio.Event()
        self._busy: set[str] = set()
        """Ids of steps and agents that are being worked on."""
        self._requested: set[AgentId] = set()
        """Agents for which tokens were asked for, so that their steps need not wait."""

    def cut(
        self, agent_id: AgentId, held: Iterable[HeldProviderToken]
    ) -> tuple[OutboxStep, ...]:
        """Return the steps that end the agent elsewhere, to be recorded and taken.

        Provider tokens *held* for it until now are retained to be revoked. A restore
        that is not done, or is being recorded, is withdrawn.
        """
        return (*self._at_tenant(agent_id), *self._at_providers(agent_id, held))

    def _at_tenant(self, agent_id: AgentId) -> tuple[OutboxStep, ...]:
        """Return the steps there: all of them if its rights cannot be read now."""
        names: tuple[Step, ...] = CUTTING
        users: tuple[str, ...] = ()
        lacking = False
        try:
            holdings = self._access.holdings
            there, token = holdings.of(agent_id), holdings.holds_token(agent_id)
            if there is not None:
                users = users_of(holdings, agent_id, there)
            names = needed(there, users, token=token)
            lacking = bool(names) and self._access.management is None
        except Exception:
            # A cut waits for no file: what cannot be known now, its tries look for.
            log.exception("what %s has at the tenant cannot be read", agent_id)
        new = [
            replace(
                self._new(agent_id, name),
                users=users,
                # Told with the revocation's own answer; a try then says it for good.
                problem=NO_CREDENTIAL if lacking and name not in AS_THE_AGENT else None,
            )
            for name in names
        ]
        back = replace(self._new(agent_id, Step.GRANT_BACK), status="withdrawn")
        return (*new, back) if new else ()

    def _at_providers(
        self, agent_id: AgentId, held: Iterable[HeldProviderToken]
    ) -> tuple[OutboxStep, ...]:
        """Return the steps there; settings that make no sense stop no cut."""
        try:
            return self._providers.rows(agent_id, held)
        except Exception:
            log.exception("nothing of %s is revoked at providers", agent_id)
            return ()

    def foresee(self) -> Callable[[AgentId], tuple[str, ...]]:
        """Return the steps that a revocation would take at the tenant now."""
        try:
            now = self._access.holdings.now()
        except AgentVaultError as error:
            log.warning("what agents have at the tenant is unknown: %s", error.what)
            return lambda _: ()

        def foreseen(agent_id: AgentId) -> tuple[str, ...]:
            """Return the names of the steps for one agent."""
            there, user = now(agent_id)
            if there is None and not user:
                return ()
            in_use = self._registry.accounts.in_use
            in_use_elsewhere = there is not None and all(
                any(in_use(a)) for a in there.accounts
            )
            return tuple(
                name.value
                for name in needed(there, (user,) if user else (), token=bool(user))
                if not (in_use_elsewhere and name is Step.ACCOUNTS)
            )

        return foreseen

    def restore(self, agent_id: AgentId) -> tuple[OutboxStep, ...]:
        """Return the steps that give the agent its grant back, the rest withdrawn."""
        steps = self._registry.steps_of(agent_id)
        withdrawn = [
            replace(step, status="withdrawn", next_at=None)
            for step in steps
            if step.status == "pending" or lacks_credential(step)
            if step.step != Step.GRANT_BACK
        ]
        untouched = any(
            step.step == Step.VAULT_GRANT and lacks_credential(step) for step in steps
        )
        if untouched or self._held(agent_id) is None:
            return tuple(withdrawn)
        return (*withdrawn, self._new(agent_id, Step.GRANT_BACK))

    def take(self, steps: Iterable[OutboxStep]) -> None:
        """Begin with *steps*."""
        for step in steps:
            self._registry.put_step(step)
            if step.status != "pending" and is_providers(step):
                self._providers.forget(step)
        self.wake()

    def settle(self, agents: Iterable[AgentId]) -> tuple[OutboxStep, ...]:
        """Return as done the steps that left accounts of *agents*, which are gone."""
        now = self._clock.now()
        settled = []
        for agent_id in agents:
            row = self._registry.step(agent_id, f"{agent_id}/{Step.ACCOUNTS.value}")
            if row is None or row.status not in {"left", "failed"}:
                continue
            if self._registry.accounts.of(agent_id):
                continue
            ms = round((now - row.begun_at).total_seconds() * 1000, 1)
            done = replace(row, status="confirmed", ms=ms, problem=None)
            self._registry.put_step(done)
            settled.append(done)
        return tuple(settled)

    def keep_undelivered(self, held: HeldProviderToken) -> None:
        """Take a token that was on its way to an agent and overtaken by its cut."""
        self._providers.keep_undelivered(held)
        self.wake()

    def wake(self) -> None:
        """Look again: there are new steps, or the tenant became reachable."""
        self._news.set()
        self._provider_news.set()

    async def run(self) -> None:
        """Do steps until cancelled; no fault of one ends the others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_at_tenant())
            group.create_task(self._run_at_providers(group))

    async def work(self) -> bool:
        """Try the due steps, once; return whether there were any."""
        beside = self._begin_provider_work()
        await asyncio.gather(*beside)
        return await self._one_at_tenant() or bool(beside)

    async def _run_at_tenant(self) -> None:
        while True:
            self._news.clear()
            if not await self._one_at_tenant():
                await self._wait_until_due(self._news, at_providers=False)

    async def _run_at_providers(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._provider_news.clear()
            for task in self._begin_provider_work():
                group.create_task(task)
            await self._wait_until_due(self._provider_news, at_providers=True)

    async def _one_at_tenant(self) -> bool:
        """Try the due step that stops most; return whether there was one."""
        if waiting := self._without_credential():
            await self._begin_anew(waiting)
        due = [step for step in self._due_at_tenant() if not self._waits(step)]
        if not due:
            return False
        step = min(due, key=lambda step: (rank(step), step.begun_at))
        self._requested.discard(step.agent_id)
        await self.attempt(step)
        self._provider_news.set()
        return True

    async def attempt(self, step: OutboxStep) -> None:
        """Try *step* once, unless the state here forbids it."""
        if (step.step == Step.GRANT_BACK) is not self._served(step.agent_id):
            # Never against what is in force here, whatever a row says.
            await self._end(replace(step, status="withdrawn", next_at=None))
            return
        try:
            if is_providers(step):
                tried = await self._providers.do(step)
            else:
                step = await self._with_cut_holder(step)
                tried = await self._try_at_tenant(step)
        except AgentVaultError as error:
            tried = Tried.of(error)
        except Exception as error:
            log.exception("step %s of %s broke", step.step, step.agent_id)
            fault = f"the broker failed, see its log ({type(error).__name__})"
            tried = Tried(fault)
        if self._registry.step(step.agent_id, step.id) is step:
            await self._record_try(step, tried)
        elif tried.changes:
            # The agent was revoked or restored meanwhile, which holds. What is undone
            # at a provider by nobody is told all the same.
            done = _over(step, tried, self._clock.now())
            await self._record(_draft(done), changes=tried.changes)
            self._notify()

    async def _with_cut_holder(self, step: OutboxStep) -> OutboxStep:
        """Return *step* with the ended tokens' owners, if they are missing.

        All of the agent's steps get them at once: one of them forgets the accounts.
        """
        agent_id, holdings = step.agent_id, self._access.holdings
        if step.users or step.step == Step.GRANT_BACK:
            return step
        held = holdings.of(agent_id)
        users = users_of(holdings, agent_id, held) if held else ()
        for row in self._registry.steps_of(agent_id) if users else ():
            if row.status == "pending" and not row.users and not is_providers(row):
                changed = replace(row, users=users)
                self._registry.put_step(changed)
                await self._record(changes=[changed])
        return self._registry.step(agent_id, step.id) or step

    async def _try_at_tenant(self, step: OutboxStep) -> Tried:
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

    async def _record_try(self, step: OutboxStep, tried: Tried) -> None:
        """Record how a try ended; with an event where operators want to know."""
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
            await self._record(changes=[new])
        else:
            await self._end(new, *tried.changes)

    async def _end(self, step: OutboxStep, *changes: Change) -> None:
        """Record *step*, with an event for operators."""
        self._registry.put_step(step)
        if step.status != "pending" and is_providers(step):
            self._providers.forget(step)
        await self._record(_draft(step), changes=(step, *changes))
        self._notify()

    def _served(self, agent_id: AgentId) -> bool:
        agent = self._registry.find_agent(agent_id)
        return agent is not None and agent.status is AgentStatus.ACTIVE

    def _without_credential(self) -> list[OutboxStep]:
        return [step for step in self._registry.steps() if lacks_credential(step)]

    async def _begin_anew(self, steps: list[OutboxStep]) -> None:
        """Try *steps* again, once there is a credential: they were never tried."""
        try:
            if self._access.management is None:
                return
        except AgentVaultError:
            return
        now = self._clock.now()
        for step in steps:
            anew = replace(
                step, status="pending", begun_at=now, attempts=0, ms=None, problem=None
            )
            self._registry.put_step(anew)
            await self._record(changes=[anew])

    def _waits(self, step: OutboxStep) -> bool:
        """Check whether a token is asked for first: without the grant there is none."""
        agent_id = step.agent_id
        if agent_id in self._requested or not self._providers.lacking(agent_id):
            return False
        self._provider_news.set()
        return True

    def _begin_provider_work(self) -> list[Coroutine[object, object, None]]:
        """Return work possible next to the tenant's steps, marked as begun."""
        agents = {
            step.agent_id
            for step in self._due_at_tenant()
            if step.agent_id not in self._requested
            and self._providers.lacking(step.agent_id)
        }
        due = {step.id for step in self._due()}
        steps = [
            step
            for step in self._pending()
            if is_providers(step)
            and self._providers.ready(step)
            # Without a token time changes nothing: a person is told at once.
            and (step.id in due or not self._providers.holds(step))
        ]
        wanted: dict[str, Callable[[], Awaitable[None]]] = {
            **{agent: partial(self._ask, agent) for agent in sorted(agents)},
            **{step.id: partial(self.attempt, step) for step in steps},
        }
        begun = {name: act for name, act in wanted.items() if name not in self._busy}
        self._busy |= set(begun)
        return [self._run_and_wake(name, act) for name, act in begun.items()]

    async def _run_and_wake(
        self, name: str, act: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            await act()
        finally:
            self._busy.discard(name)
            self.wake()

    async def _ask(self, agent_id: AgentId) -> None:
        """Ask for tokens to revoke; then the agent's step at the tenant may go on."""
        try:
            await self._providers.ask(agent_id)
        except Exception:
            log.exception("no token of %s could be asked for", agent_id)
        self._requested.add(agent_id)

    def _due(self) -> list[OutboxStep]:
        now = self._clock.now()
        return [s for s in self._pending() if (self._not_before(s) or now) <= now]

    def _not_before(self, step: OutboxStep) -> datetime | None:
        return not_before(step, self._registry.steps_of(step.agent_id))

    def _due_at_tenant(self) -> list[OutboxStep]:
        return [step for step in self._due() if not is_providers(step)]

    async def _wait_until_due(self, news: asyncio.Event, *, at_providers: bool) -> None:
        """Wait until the next step is due, or one is added."""
        moments = [
            moment
            for step in self._pending()
            if is_providers(step) is at_providers
            and (moment := self._not_before(step)) is not None
        ]
        now = self._clock.now()
        left = max((min(moments) - now).total_seconds(), _BREATH) if moments else None
        if not at_providers and self._without_credential():
            left = min(left or _LOOK, _LOOK)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await news.wait()

    def _pending(self) -> list[OutboxStep]:
        return [s for s in self._registry.steps() if s.status == "pending"]

    def _held(self, agent_id: AgentId) -> Holding | None:
        try:
            return self._access.holdings.of(agent_id)
        except AgentVaultError as error:
            log.warning("what agents have at the tenant is unknown: %s", error.what)
            return None

    def _new(self, agent_id: AgentId, name: Step) -> OutboxStep:
        step_id = f"{agent_id}/{name.value}"
        return OutboxStep(step_id, agent_id, name.value, self._clock.now())
