"""A broker in process: real ledger and policy, clock and person under control."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from support import forked
from support.manual_clock import ManualClock
from support.patience import until
from support.scripted_tenant import ScriptedTenant

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.follow import follow, listen_to
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.recovery import take_over
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.serve import _record_start_or_stop
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.usecases.policy_change import keep_policy, policy_at_start
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.gateway import workers
from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger
from agentvault_tui.ledger.schema import open_reader
from agentvault_tui.model import Action, Actor, ActorKind, Agent, Event, EventType
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.policy import Policy
from agentvault_tui.settings import Settings

OPERATOR = Actor(ActorKind.OPERATOR, "uid:1000", "olga")
PAYMENT = Action(
    scopes=("send:payment",),
    action="send:payment",
    resource="stripe:acct_42",
    parameters={"amount": 4200, "currency": "USD"},
    reason="Invoice 1881",
)
workers.subprocess = SimpleNamespace(  # type: ignore[assignment]
    Popen=forked.worker, DEVNULL=subprocess.DEVNULL
)


class Bench:
    """The broker under test, and short words for what tests do with it."""

    def __init__(
        self,
        home: Home,
        clock: ManualClock,
        ledger: Ledger,
        policy: Policy,
        *,
        issuer: str = "",
        settings: Settings | None = None,
    ) -> None:
        self.home, self.clock, self.ledger = home, clock, ledger
        self.tenant = ScriptedTenant(clock, issuer)
        self.broker = Broker(
            home=home,
            settings=settings or Settings(),
            clock=clock,
            ledger=ledger,
            policy=policy,
            tenant=self.tenant,  # type: ignore[arg-type]
            registry=Registry(clock),
        )
        self.feed = Feed(ledger, self.broker.registry, lambda: status_info(self.broker))

        def written(events: tuple[Event, ...], changes: Sequence[Any]) -> None:
            self.feed.publish(events, changes)
            self.broker.extensions.committed(events)

        ledger.listeners.written.append(written)

        async def followed(events: tuple[Event, ...], changes: Sequence[Any]) -> None:
            await follow(self.broker, events, changes)
            written(events, changes)

        ledger.listeners.followed.append(followed)

    def listen_as_served(self) -> None:
        """Listen to the ledger with the functions of the program instead."""
        self.ledger.listeners.written.clear()
        self.ledger.listeners.followed.clear()
        listen_to(self.ledger, self.broker, self.feed)

    @classmethod
    async def open(
        cls,
        home: Home,
        clock: ManualClock,
        issuer: str = "",
        settings: Settings | None = None,
    ) -> Bench:
        home.prepare()
        ledger = await Ledger.open(home, clock=clock, settings=settings)
        try:
            policy, problem = await policy_at_start(home, ledger)
        except BaseException:
            await ledger.close()
            raise
        bench = cls(home, clock, ledger, policy, issuer=issuer, settings=settings)
        bench.broker.deciding.state.problem = problem
        await take_over(bench.broker)
        if ledger.shared is not None:
            await keep_policy(bench.broker)  # as the record of a start does
        return bench

    @asynccontextmanager
    async def restarted(
        self,
        settings: Settings | None = None,
        edit: Callable[[], object] = lambda: None,
    ) -> AsyncIterator[Bench]:
        """Close it, call *edit*, and give its home to another."""
        await self.close()
        edit()
        again = await Bench.open(self.home, self.clock, settings=settings)
        try:
            yield again
        finally:
            await again.close()

    async def agent(self, name: str = "agent", *scopes: str, **more: Any) -> Agent:
        scopes = scopes or ("send:payment", "write:calendar")
        registered = await register(
            self.broker,
            AgentRequest(
                name=name, owner="olga", purpose="tests", scopes=scopes, **more
            ),
            OPERATOR,
        )
        return registered.agent

    async def made_from(self, **asked: Any) -> Agent:
        """Register an agent from a template."""
        request = msgspec.convert(asked, AgentRequest)
        return (await register(self.broker, request, OPERATOR)).agent

    async def events(self, kind: str | None = None) -> list[Event]:
        page = await self.ledger.events(EventQuery(after=0, limit=1000))
        return [e for e in page.events if kind in {None, e.type.value}]

    def reading(self) -> closing[sqlite3.Connection]:
        """Open a connection that reads beside the broker."""
        return closing(open_reader(self.home.database))

    async def record_start(self) -> str:
        """Record a start, as `serve` does; return the active policy's version."""
        await _record_start_or_stop(self.broker, EventType.BROKER_STARTED)
        return self.broker.deciding.policy.version

    async def read(self, path: str) -> httpx.Response:
        """Read *path* of the operators' HTTP."""
        served = operators_app(self.broker, self.feed, Sessions(self.broker))

        async def seated(scope: Any, receive: Any, send: Any) -> None:
            await served({**scope, "state": {"operator": OPERATOR}}, receive, send)

        app = httpx.ASGITransport(seated)
        async with httpx.AsyncClient(transport=app, base_url="http://b") as client:
            return await client.get(path)

    async def until(self, done: Callable[[], bool]) -> None:
        """Let the loop turn until *done*, which something already started makes so."""
        await until(done)

    async def close(self) -> None:
        begun = self.broker.stepups.flows.values()
        for one in [one for each in begun for one in each.values()]:
            one.task.cancel()
        await self.ledger.close()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock(datetime(2026, 11, 24, 10, 0, tzinfo=UTC))


@pytest.fixture
async def bench(short: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    """A broker in process; a folder's conftest imports this and `clock`."""
    bench = await Bench.open(Home.locate(short / "home"), clock)
    yield bench
    await bench.close()
