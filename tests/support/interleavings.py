"""Random interleavings of asking, approving, taking, denying and revoking in a team.

Three brokers reach one store by lines that delay each answer by 0 to 20 ms. A program
is a list of steps; the operations of a step begin at once, at different brokers.
Replies, and all that agents can see after a step, have to be those of one broker that
does the same, in some order within each step.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.postgres_relay import Relay
from support.team_brokers import Broker, brokers_of

from agentvault_tui.broker import cuts
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.model import Agent, StepUpId
from agentvault_tui.settings import Settings

_LINE_S: Final = 0.02
"""The longest delay of an answer of the store."""
_AT_ONCE: Final = 10
"""Programs that run at the same time, each with an agent of its own."""
_STEPS: Final = 7
_BUSY_TRIES: Final = 30
SCOPES: Final = ("read:calendar", "write:calendar", "send:payment")
_KINDS: Final = (
    *("token", "token", "pay", "pay", "poll", "begin", "complete", "use"),
    *("take", "take", "grant", "deny", "deny", "revoke", "restore", "end", "other"),
)


class Operation(NamedTuple):
    """One request of a program."""

    number: int
    """Its place in the program."""
    kind: str
    broker: int
    """Which of the three is asked."""
    word: str
    """A scope, a resource, or nothing."""
    of: int
    """The operation that it is about: the one that asked, or that began."""


Program = list[list[Operation]]


def programs(seed: int, count: int) -> Iterator[Program]:
    """Yield random programs; the same ones for one *seed*."""
    for number in range(count):
        yield _program(random.Random(f"{seed} {number}"))  # noqa: S311 - no secret


def _program(rng: random.Random) -> Program:
    program, made = list[list[Operation]](), list[Operation]()
    orders = 1
    for _ in range(_STEPS):
        size = rng.choice((1, 1, 2, 2, 3))
        if orders * (1, 1, 2, 6)[size] > 24:
            size = 1
        orders *= (1, 1, 2, 6)[size]
        before, step = tuple(made), list[Operation]()
        for broker in rng.sample(range(3), size):
            step.append(_operation(rng, len(made), broker, before))
            made.append(step[-1])
        program.append(step)
    return program


def _operation(
    rng: random.Random, number: int, broker: int, before: Sequence[Operation]
) -> Operation:
    kind = rng.choice(_KINDS)
    payments = [one for one in before if one.kind == "pay"]
    tokens = [one for one in before if one.kind in {"token", "poll"}]
    begun = [one for one in before if one.kind == "begin"]
    about = {
        **dict.fromkeys(("poll", "begin", "deny"), payments),
        **dict.fromkeys(("use", "end"), tokens),
        "complete": begun,
    }.get(kind)
    if about == []:
        kind, about = rng.choice(("token", "pay")), None
    of = rng.choice(about) if about else None
    if kind == "complete" and of is not None:
        broker = of.broker  # the code is its own
    word = ""
    if kind == "pay":
        word = f"stripe:{rng.randrange(2)}"
    elif kind == "token":
        word = rng.choice(SCOPES[:2])
    elif kind in {"take", "grant"}:
        word = rng.choice(SCOPES)
    return Operation(number, kind, broker, word, -1 if of is None else of.number)


@dataclass
class Run:
    """One program under way: an agent of its own, and what was answered so far."""

    team: list[Broker]
    agent: Agent
    server: Agent
    answers: dict[int, str] = field(default_factory=dict)
    """What each operation was answered, without what differs each time."""
    ids: dict[int, str] = field(default_factory=dict)
    """The step-up that a request was answered with."""
    tokens: dict[int, str] = field(default_factory=dict)

    async def do(self, at: Broker, one: Operation) -> None:
        """Do *one* at a broker, again while it is too busy."""
        for _ in range(_BUSY_TRIES):
            answer = await getattr(self, f"_{one.kind}")(at, one)
            if not answer.startswith("503"):
                break
            await asyncio.sleep(0.02)
        self.answers[one.number] = answer

    async def _token(self, at: Broker, one: Operation) -> str:
        reply = await at.token(self.agent, one.word)
        return self._given(one, reply)

    async def _poll(self, at: Broker, one: Operation) -> str:
        reply = await at.poll(self.agent, self.ids.get(one.of, "sup_none"))
        return self._given(one, reply).replace("slow_down", "authorization_pending")

    def _given(self, one: Operation, reply: httpx.Response) -> str:
        body = reply.json()
        if reply.status_code == 200:
            self.tokens[one.number] = body["access_token"]
        asked_again = "changed while it asked" in body.get("error_description", "")
        if reply.status_code == 503 or asked_again:
            return "503"
        why = body.get("reason") or body.get("error") or body.get("scope")
        return f"{reply.status_code} {why}"

    async def _pay(self, at: Broker, one: Operation) -> str:
        told = await at.pay(self.agent, one.word)
        if told == "None":
            return "503"
        if not told.startswith("sup_"):
            return told
        self.ids[one.number] = told
        return "held"

    async def _begin(self, at: Broker, one: Operation) -> str:
        asked = self.ids.get(one.of, "sup_none")
        shown = await at.operator.get(f"/api/agents/stepup/{asked}")
        if shown.status_code != 200:
            return f"{shown.status_code}"
        digest = shown.json()["digest"]
        body = {"id": asked, "decision": "approve", "digest": digest}
        reply = await at.operator.post("/api/agents/stepup", json=body)
        if reply.status_code == 202:
            self.ids[one.number] = asked
        return f"{reply.status_code}"

    async def _complete(self, at: Broker, one: Operation) -> str:
        asked = StepUpId(self.ids.get(one.of, ""))
        has_flow = (b for b in self.team if asked in b.bench.broker.stepups.flows)
        at = next(has_flow, at)
        stepups = at.bench.broker.stepups
        own, code = stepups.flows.get(asked, {}), stepups.codes.get(asked)
        flow = next((one.task for one in own.values() if one.flow is code), None)
        if not asked:
            return "nothing to complete"
        if flow is not None and code is not None:
            number = at.bench.tenant.flows.index(code)
            if not at.bench.tenant._ends[number].done():
                at.bench.tenant.approve(number)
            await asyncio.wait({flow}, timeout=PATIENT)
        shown = await at.operator.get(f"/api/agents/stepup/{asked}")
        return str(shown.json()["status"])

    async def _use(self, at: Broker, one: Operation) -> str:
        token = self.tokens.get(one.of, "av_t_none")
        reply = await at.post(self.server, "/oauth/introspect", token=token)
        return "503" if reply.status_code == 503 else str(reply.json()["active"])

    async def _end(self, at: Broker, one: Operation) -> str:
        token = self.tokens.get(one.of, "av_t_none")
        reply = await at.post(self.agent, "/oauth/revoke", token=token)
        return f"{reply.status_code}"

    async def _other(self, at: Broker, _: Operation) -> str:
        """Change something else of the agent's row."""
        body = {"agent_id": self.agent.id, "ungrant": ["read:email"]}
        reply = await at.operator.post("/api/agents/scopes", json=body)
        return self._scopes(reply)

    async def _take(self, at: Broker, one: Operation) -> str:
        body = {"agent_id": self.agent.id, "ungrant": [one.word]}
        return self._scopes(await at.operator.post("/api/agents/scopes", json=body))

    async def _grant(self, at: Broker, one: Operation) -> str:
        body = {"agent_id": self.agent.id, "grant": [one.word]}
        return self._scopes(await at.operator.post("/api/agents/scopes", json=body))

    def _scopes(self, reply: httpx.Response) -> str:
        body = reply.json()
        told = body.get("scopes", "")
        return f"{reply.status_code} {told}" if told else f"{reply.status_code}"

    async def _deny(self, at: Broker, one: Operation) -> str:
        body = {"id": self.ids.get(one.of, "sup_none"), "decision": "deny"}
        reply = await at.operator.post("/api/agents/stepup", json=body)
        return f"{reply.status_code}"

    async def _revoke(self, at: Broker, _: Operation) -> str:
        body = {"agent_id": self.agent.id, "reason": "drill"}
        reply = await at.operator.post("/api/agents/revoke", json=body)
        told = reply.json()
        if reply.status_code == 404:
            return reply.text
        counts = (told.get(name) for name in ("tokens_revoked", "stepups_cancelled"))
        return " ".join(map(str, (reply.status_code, *counts)))

    async def _restore(self, at: Broker, _: Operation) -> str:
        body = {"agent_id": self.agent.id}
        reply = await at.operator.post("/api/agents/restore", json=body)
        return f"{reply.status_code}"

    async def seen(self, at: Broker) -> dict[str, object]:
        """Return what anybody can see once all are answered, without using it up."""
        active = dict[str, object]()
        for number, token in sorted(self.tokens.items()):
            reply = await at.post(self.agent, "/oauth/introspect", token=token)
            while reply.status_code == 503:
                await asyncio.sleep(0.02)
                reply = await at.post(self.agent, "/oauth/introspect", token=token)
            active[f"token of {number}"] = reply.json()["active"]
        return active

    def held(self) -> dict[str, str]:
        """Return which requests were answered with the same step-up."""
        first = dict[str, int]()
        for number, asked in sorted(self.ids.items()):
            first.setdefault(asked, number)
        return {f"step-up of {n}": f"{first[asked]}" for n, asked in self.ids.items()}

    def state(self, at: Broker) -> dict[str, object]:
        """Return what a broker's memory has of the agent."""
        core = at.bench.broker
        agent = core.registry.agent(self.agent.id)
        return {
            "status": str(agent.status),
            "scopes": agent.scopes,
            "tokens": sorted(one.scope for one in core.registry.tokens_of(agent.id)),
            "denials": core.stepups.cooldowns.of(agent.id).denials,
            **{
                f"step-up {self.held()[f'step-up of {number}']}": str(
                    core.stepups.get(asked).status
                )
                for number, asked in self.ids.items()
            },
        }


@dataclass
class Difference:
    """A program whose outcome no order explains at one broker."""

    program: Program
    team: list[object]
    nearest: list[object]

    def __str__(self) -> str:
        lines = [
            f"  {step_number}: {one.kind} {one.word} of {one.of} at {'abc'[one.broker]}"
            f" (operation {one.number})"
            for step_number, step in enumerate(self.program)
            for one in step
        ]
        told = [
            f"  step {number}:\n    team   {mine}\n    oracle {theirs}"
            for number, (mine, theirs) in enumerate(
                zip(self.team, self.nearest, strict=False)
            )
            if mine != theirs
        ]
        return "\n".join(["program:", *lines, "differs in:", *told])


class Interleavings:
    """A team behind slow lines, and the broker that says what it should answer."""

    def __init__(
        self, team: list[Broker], relays: list[Relay], oracle: Broker, seed: int
    ) -> None:
        self._team, self._relays, self._oracle = team, relays, oracle
        self._rng = random.Random(seed)  # noqa: S311 - no secret
        self._names = itertools.count()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._replaying = asyncio.Lock()

    async def check(self, program: Program) -> Difference | None:
        """Run a program, and look for an order that explains it."""
        async with self._room:
            try:
                team = await self._run(program)
            except Exception:  # noqa: BLE001 - told with its program
                return Difference(program, [traceback.format_exc()], [""])
        nearest, most = list[object](), -1
        async with self._replaying:
            for order in itertools.product(*map(itertools.permutations, program)):
                trace = await self._replay(order)
                if trace == team:
                    return None
                same = [mine == one for mine, one in zip(team, trace, strict=True)]
                alike = [*same, False].index(False) * 100 + sum(same)
                if alike > most:
                    nearest, most = trace, alike
        return Difference(program, team, nearest)

    async def _agents(self, team: list[Broker]) -> Run:
        name = f"agent {next(self._names)}"
        agent = await team[0].agent(name, *SCOPES, "read:email")
        server = await team[0].agent(f"{name} api", resource_server=True)
        return Run(team, agent, server)

    async def _run(self, program: Program) -> list[object]:
        run = await self._agents(self._team)
        trace = list[object]()
        for step in program:
            for relay in self._relays:
                relay.delay = self._rng.uniform(0, _LINE_S)
            async with asyncio.timeout(PATIENT):
                await asyncio.gather(
                    *(run.do(self._team[one.broker], one) for one in step)
                )
                seen = await run.seen(self._rng.choice(self._team))
            trace.append(_told(run, step, seen))
        for one in self._team:
            await _know(one)
        states = [run.state(one) for one in self._team]
        trace.append(states[0] if states[1:] == states[:-1] else states)
        return trace

    async def _replay(self, order: Sequence[Sequence[Operation]]) -> list[object]:
        run = await self._agents([self._oracle])
        trace = list[object]()
        for step in order:
            for one in step:
                await run.do(self._oracle, one)
            trace.append(_told(run, step, await run.seen(self._oracle)))
        trace.append(run.state(self._oracle))
        return trace


async def _know(one: Broker) -> None:
    """Let a broker know what all have recorded, however busy the machine is."""
    while True:
        with suppress(LedgerUnwritableError):
            return await one.bench.ledger.confirm()


def _told(run: Run, step: Sequence[Operation], seen: dict[str, object]) -> object:
    answers = {one.number: run.answers[one.number] for one in step}
    denied = "403 agent_revoked" in answers.values()
    for one in step if denied else ():
        if one.kind == "revoke":  # it may count a token that was never handed out
            status, _, stepups = answers[one.number].split()
            answers[one.number] = f"{status} … {stepups}"
    return sorted(answers.items()), seen, run.held()


@asynccontextmanager
async def interleavings(
    folder: Path, store: Database, seed: int
) -> AsyncIterator[Interleavings]:
    """Open three brokers behind lines of their own, and the one that is asked alone."""
    clock = ManualClock(datetime.now(UTC))
    # A reply that leaves before its record says so, and counts no more than it knows.
    patch = pytest.MonkeyPatch()
    patch.setattr(cuts, "_STORE_WAIT", PATIENT)
    async with AsyncExitStack() as stack:
        stack.callback(patch.undo)
        relays, settings = list[Relay](), list[Settings]()
        for name in "123":
            (folder / name).mkdir()
            relays.append(Relay(store.cluster.folder))
            await stack.enter_async_context(relays[-1].listening(folder / name))
            settings.append(store.settings_at(folder / name))
        (folder / "single").mkdir()
        alone = brokers_of(folder / "single", [clock], [Settings()])
        (oracle,) = await stack.enter_async_context(alone)
        team = await stack.enter_async_context(
            brokers_of(folder, [clock] * 3, settings)
        )
        yield Interleavings(team, relays, oracle, seed)
        for relay in relays:
            relay.delay = 0.0
