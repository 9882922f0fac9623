"""The past, rebuilt from events, is what the registry held: step by step, at random."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import details_of
from support.wire_shapes import as_json

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.shapes import stepup_info, token_info
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll, revoke_token
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import ConflictError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Past
from agentvault_tui.model import Action, Agent, Draft, EventType, StepUp, StepUpStatus
from agentvault_tui.vault import FlowExpired as CodeExpired

READ = Action(scopes=("read:calendar",), action="read:calendar", parameters={})
WRITE = Action(scopes=("write:calendar",), action="write:calendar", parameters={})
MAIL = Action(("send:email",), "send:email", None, {"recipients": 1})
SCOPES = ("read:calendar", "write:calendar", "send:email", "send:payment")
Scene = dict[str, Any]


def scene_of(registry: Registry) -> Scene:
    """What the registry holds, as the operators' HTTP tells it."""
    agents = registry.agents()
    waiting, done = registry.stepups.open(), list(registry.stepups.decided())
    return {
        "agents": {a.id: _plain(a) for a in agents},
        "tokens": {
            a.id: sorted(_token(t) for t in registry.tokens_of(a.id)) for a in agents
        },
        "live": {a.id: len(registry.tokens_of(a.id)) for a in agents},
        "counts": {a.id: registry.counts(a.id) for a in agents},
        "stepups": {s.id: _stepup(s) for s in (*waiting, *done)},
        "panic": registry.revocations.panic,
    }


def scene_then(past: Past) -> Scene:
    """The same of the past."""
    none = Registry(ManualClock(past.moment)).counts(past.agents[0].id)
    return {
        "agents": {a.id: _plain(a) for a in past.agents},
        "tokens": {
            a.id: sorted(_token(t) for t in past.holdings[a.id].soonest)
            if a.id in past.holdings
            else []
            for a in past.agents
        },
        "live": {
            a.id: past.holdings[a.id].live if a.id in past.holdings else 0
            for a in past.agents
        },
        "counts": {a.id: past.counts.get(a.id, none) for a in past.agents},
        "stepups": {s.id: _stepup(s) for s in past.stepups},
        "panic": past.panic,
    }


def _plain(agent: Agent) -> Agent:
    return replace(agent, credential=type(agent.credential)())


def _token(token: Any) -> tuple[str, ...]:
    shape = as_json(token_info(token))
    return tuple(shape[name] for name in ("id", "scope", "kind", "expires_at"))


def _stepup(stepup: StepUp) -> dict[str, Any]:
    # A code that is over helps nobody; whoever looks back must not find one.
    return {**as_json(stepup_info(replace(stepup, device=None))), "nonce": stepup.nonce}


class Story:
    """Random use-cases on a broker, and what it held after each."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.chance = random.Random(seed)  # noqa: S311 - a repeatable story
        self.seen: list[tuple[int, datetime, Scene]] = []
        self.secrets: list[tuple[Agent, str]] = []
        self.server: Agent

    async def begin(self) -> None:
        self.server = await self.bench.agent("server", resource_server=True)
        for number in range(3):
            await self.bench.agent(f"agent-{number}", *SCOPES)

    @property
    def registry(self) -> Registry:
        return self.bench.broker.registry

    def agent(self) -> Agent:
        return self.chance.choice(self.registry.agents())

    def open(self) -> StepUp | None:
        found = self.registry.stepups.open()
        return self.chance.choice(found) if found else None

    async def step(self) -> None:
        """Do something, let what it started come to rest, and look."""
        steps: dict[Callable[[], Awaitable[Any]], int] = {
            self.read: 10,
            self.pay: 8,
            self.approve: 6,
            self.fetch: 4,
            self.use: 5,
            self.give_back: 3,
            self.deny: 2,
            self.code_runs_out: 2,
            self.revoke: 2,
            self.restore: 3,
            self.scopes: 3,
            self.stop_all: 1,
            self.lift: 3,
            self.register: 1,
            self.tighten: 1,
            self.restart: 1,
        }
        (what,) = self.chance.choices(list(steps), list(steps.values()))
        seconds = self.chance.choice([0.001, 0.001, 0.2, 0.5, 3, 3, 20, 40, 200, 1500])
        self.bench.clock.advance(seconds)
        await expire_due(self.bench.broker)
        with contextlib.suppress(ConflictError):
            await what()
        await expire_due(self.bench.broker)
        await self.look()

    async def look(self) -> None:
        seq = self.bench.ledger.head.seq
        self.seen.append((seq, self.bench.clock.now(), scene_of(self.registry)))

    async def ask(self, action: Action) -> None:
        agent = self.agent()
        # As agents say them, or a stricter policy ends the token: it cannot see what
        # it was for. A step-up's are not in its events, so the past has none.
        details = None if action.action == PAYMENT.action else details_of(action)
        answer = await request_token(
            self.bench.broker, agent, action, resource=None, details=details
        )
        if isinstance(answer, Granted):
            self.secrets.append((agent, answer.access_token))

    async def read(self) -> None:
        await self.ask(self.chance.choice([READ, WRITE, MAIL]))

    async def pay(self) -> None:
        amount = self.chance.choice([4200, 4200, 17])
        parameters = {"amount": amount, "currency": "USD"}
        await self.ask(replace(PAYMENT, parameters=parameters))

    async def approve(self) -> None:
        if step := self.open():
            await begin_approval(self.bench.broker, step.id, step.digest, OPERATOR)
            if self.chance.random() < 0.8:
                self.bench.tenant.approve()
                await self._rests(step)

    async def _rests(self, step: StepUp) -> None:
        flows = self.bench.broker.stepups.flows
        await self.bench.until(lambda: step.id not in flows)

    async def fetch(self) -> None:
        for step in list(self.registry.stepups.decided()):
            if step.status is StepUpStatus.APPROVED:
                agent = self.registry.agent(step.agent_id)
                answer = await poll(self.bench.broker, agent, step.id)
                if isinstance(answer, Granted):
                    self.secrets.append((agent, answer.access_token))
                    return

    async def use(self) -> None:
        once = [each for each in self.secrets if each[1].startswith("av_e")]
        if secrets := once[-2:] or self.secrets[-3:]:
            _, secret = self.chance.choice(secrets)
            await introspect(self.bench.broker, self.server, secret)

    async def give_back(self) -> None:
        if self.secrets:
            agent, secret = self.chance.choice(self.secrets[-12:])
            await revoke_token(self.bench.broker, agent, secret)

    async def deny(self) -> None:
        if step := self.open():
            await deny(self.bench.broker, step.id, "no", OPERATOR)

    async def code_runs_out(self) -> None:
        waiting = self.registry.stepups.open()
        flow = next(
            (s for s in waiting if s.id in self.bench.broker.stepups.flows), None
        )
        if flow is not None:
            self.bench.tenant.end(CodeExpired())
            await self.bench.until(lambda: not self.bench.broker.stepups.flows)

    async def revoke(self) -> None:
        await revoke_agent(self.bench.broker, self.agent().id, "odd", OPERATOR)

    async def restore(self) -> None:
        await restore_agent(self.bench.broker, self.agent().id, OPERATOR)

    async def scopes(self) -> None:
        first, second = self.chance.sample(SCOPES, 2)
        await change_scopes(
            self.bench.broker,
            self.agent().id,
            frozenset([first]),
            frozenset([second]),
            OPERATOR,
        )

    async def stop_all(self) -> None:
        await panic(self.bench.broker, "drill", OPERATOR)

    async def lift(self) -> None:
        await lift_panic(self.bench.broker, OPERATOR)

    async def register(self) -> None:
        count = len(self.registry.agents())
        await self.bench.agent(f"late-{count}", *SCOPES)

    async def tighten(self) -> None:
        text = self.bench.broker.deciding.policy.text
        self.bench.home.policy_file.write_text(f"{text}\n// tightened\n")
        await reload_policy(self.bench.broker)

    async def restart(self) -> None:
        """Stop in order, and go on from the ledger alone, as `serve` does."""
        await self.bench.close()
        self.bench = await Bench.open(self.bench.home, self.bench.clock)
        await self.bench.broker.record(Draft(EventType.BROKER_STARTED, SYSTEM))


async def tell(home: Path, clock: ManualClock, seed: int, steps: int) -> Story:
    story = Story(await Bench.open(Home.locate(home), clock), seed)
    await story.begin()
    for _ in range(steps):
        await story.step()
    return story


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_the_past_is_what_the_registry_held(
    tmp_path: Path, clock: ManualClock, seed: int
) -> None:
    """At every step of a random story, by number and by moment, all of it is equal."""
    story = await tell(tmp_path / "home", clock, seed, 70)
    ledger = story.bench.ledger
    for seq, moment, scene in story.chance.sample(story.seen, len(story.seen)):
        past = await ledger.past.at(moment=moment)
        assert past.place.seq == seq
        for what, then in scene_then(past).items():
            assert then == scene[what], (what, seq, moment)
        assert past.unsure == ()
    await story.bench.close()
