"""What consoles are sent as it happens: the state a commit leaves behind."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.team_brokers import brokers_of

from agentvault_tui.broker import feed
from agentvault_tui.broker.usecases import revoke
from agentvault_tui.ledger import DropAgentTokens, EventQuery
from agentvault_tui.ledger.notifier import Notifier
from agentvault_tui.model import AgentStatus
from agentvault_tui.model.event import LOOSENED, EventType


async def test_a_restored_agent_is_sent_as_active(bench: Bench) -> None:
    """A frame for another change of the commit does not put the revoked agent back."""
    agent = await bench.agent()
    await revoke.revoke_agent(bench.broker, agent.id, "drill", OPERATOR)
    revoked = bench.broker.registry.agent(agent.id)
    assert revoked.status is AgentStatus.REVOKED
    stream = bench.feed.stream(None)
    await anext(stream)
    active = replace(revoked, status=AgentStatus.ACTIVE, revoked_at=None)
    bench.feed.publish([], [active, DropAgentTokens(agent.id)])
    told = await anext(stream)
    await stream.aclose()
    states = [
        json.loads(line.removeprefix("data: "))["status"]
        for line in told.splitlines()
        if line.startswith("data: ")
    ]
    assert states == ["active"]


async def test_a_console_that_joins_is_sent_the_recent_loosenings(bench: Bench) -> None:
    """However many events followed: the header shows a loosening for 60 seconds."""
    by = {"kinds": ["agents"], "summary": "grant payer", "by": [{"sub": "auth0|1"}]}
    await bench.agent()
    [event] = (await bench.ledger.events(EventQuery(limit=1))).events
    applied = event._replace(type=EventType.CHANGE_APPLIED, detail={LOOSENED: by})
    bench.feed.publish([applied], [])
    bench.feed.publish([event] * 2000, [])
    stream = bench.feed.stream(None)
    await anext(stream)
    frames = await anext(stream)
    await stream.aclose()
    kind, data = frames.splitlines()[:2]
    assert kind == "event: loosened"
    told = json.loads(data.removeprefix("data: "))["event"]
    assert (told["seq"], told["detail"][LOOSENED]) == (event.seq, by)


@pytest.mark.parametrize(
    "kind",
    [
        *(EventType.PANIC_ON, EventType.AGENT_REVOKED, EventType.STEPUP_REQUESTED),
        *(EventType.AUDIT_AMBIGUOUS, EventType.TENANT_AWAY),
    ],
)
async def test_what_matters_waits_for_no_routine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: EventType
) -> None:
    """It is sent at once, behind the routine that was gathered until then."""
    monkeypatch.setattr(feed, "_ROUTINE_S", 3600.0)
    await bench.agent()
    [event] = (await bench.ledger.events(EventQuery(limit=1))).events
    stream = bench.feed.stream(None)
    await anext(stream)
    routine = event._replace(type=EventType.TOKEN_USED, seq=event.seq + 1)
    bench.feed.publish([routine], [])
    waits = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    bench.feed.publish([event._replace(type=kind, seq=event.seq + 2)], [])
    async with asyncio.timeout(PATIENT):
        told = await waits
    await stream.aclose()
    numbers = re.findall(r"^id: (\d+)$", told, re.MULTILINE)
    assert numbers == [str(event.seq + 1), str(event.seq + 2)]


async def test_a_feed_tells_in_order_what_other_brokers_record(
    short: Path, store: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event once, though no notification of the store arrives."""
    monkeypatch.setattr(Notifier, "announce", lambda _: None)
    every = [clock] * 3, [store.settings] * 3
    async with brokers_of(short, *every) as (first, second, told):
        agent = await first.agent("one", "read:calendar")
        seen = list[int]()
        async with asyncio.timeout(PATIENT):
            await told.bench.ledger.confirm()
            stream = told.bench.feed.stream(told.bench.ledger.head.seq)
            before = told.bench.ledger.head.seq
            await anext(stream)
            asked = [one.token(agent, "read:calendar") for one in (first, second) * 10]
            await asyncio.gather(*asked)
            while len(seen) < 20:
                frames = re.findall(r"^id: (\d+)$", await anext(stream), re.MULTILINE)
                seen += map(int, frames)
            await stream.aclose()
        assert seen == list(range(before + 1, before + 21))
