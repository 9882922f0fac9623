"""One broker of a team sends alerts; when it is gone another goes on, once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.alert_stand import AlertStand
from support.gateway_stand import Received, Upstream, endless
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.broker.follow import join_team
from agentvault_tui.model import Draft, EventType
from agentvault_tui.watch.outbox import PLACE

pytestmark = pytest.mark.slow

ROUTE = 'sinks = ["hook"]\nevents = ["tenant.away"]'


@pytest.fixture
async def brokers(short: Path, store: Database) -> AsyncIterator[list[Broker]]:
    """Two brokers with clocks of their own, of which the first does the team's work."""
    clocks = [ManualClock(datetime.now(UTC)) for _ in range(2)]
    async with brokers_of(short, clocks, [store.settings] * 2) as made:
        for one in made:
            await join_team(one.bench.broker, one.bench.ledger.shared)  # type: ignore[arg-type]
        assert [one.bench.broker.team.brokers.works() for one in made] == [True, False]
        yield made


@pytest.fixture
async def stands(
    brokers: list[Broker], server: Upstream
) -> AsyncIterator[list[AlertStand]]:
    made = [AlertStand(one.bench, server) for one in brokers]
    for stand in made:
        await stand.start(ROUTE)
        await known(brokers)
    yield made
    for stand in made:
        await stand.watch.aclose()


async def takes_over(broker: Broker, store: Database) -> None:
    """Let the lease of who worked run out, and this broker say that it lives."""
    sql = "UPDATE agentvault.brokers SET seen = seen - interval '8 s' WHERE id = 'work'"
    store.run(sql)
    team = broker.bench.broker.team.brokers
    assert team is not None
    await team.join()
    assert broker.bench.broker.team.brokers.works()


async def away(broker: Broker) -> None:
    await broker.bench.broker.record(Draft(EventType.TENANT_AWAY, SYSTEM, reason="."))


async def test_what_a_dead_broker_had_sent_and_not_recorded_is_sent_again_once(
    brokers: list[Broker],
    stands: list[AlertStand],
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the same `webhook-id`, so that the sink knows; what it recorded is not."""
    (first, second), (dies, lives) = brokers, stands
    await away(first)
    await dies.settle()
    kept, sent = first.bench.broker.recording.meta, first.bench.ledger.head.seq
    place = f"{PLACE}hook"
    await first.bench.until(lambda: f'"seq":{sent},' in kept[place])

    async def lost() -> None:
        """Be killed before the place is kept."""

    monkeypatch.setattr(
        dies.alerts.destinations.followers("hook")[-1].stored, "save", lost
    )
    await away(first)
    await dies.settle()
    await known(brokers)
    await lives.settle()
    assert len(dies.received) == 2
    await takes_over(second, store)
    await lives.settle()
    # Whoever was stopped, and goes on, has no lease any more.
    first.bench.clock.advance(6)
    await away(first)
    await dies.watch.look()
    await known(brokers)
    await lives.settle()
    ids = [one.header("webhook-id") for one in lives.server.received]
    assert len(ids) == 4
    assert ids[1] == ids[2]
    assert len(set(ids)) == 3


async def test_a_sending_ends_with_the_lease_under_which_it_began(
    brokers: list[Broker], stands: list[AlertStand], server: Upstream
) -> None:
    """Two seconds before another broker may begin with the same."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
        begun.set()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await endless(writer, b"1\r\n.\r\n")
        ended.set()

    server.answer = hang
    await away(brokers[0])
    async with asyncio.timeout(PATIENT):
        await stands[0].watch.look()
        await begun.wait()
        brokers[0].bench.clock.advance(6)
        assert not brokers[0].bench.broker.team.brokers.works()
        await ended.wait()
    assert stands[0].alerts.destinations.followers("hook")[-1].problem is None


@pytest.mark.parametrize("dies", [False, True])
async def test_the_event_of_an_edit_elsewhere_goes_by_the_replaced_file(
    brokers: list[Broker], stands: list[AlertStand], store: Database, *, dies: bool
) -> None:
    """Once, from the broker that works, or the one that works after it."""
    (first, second), (works, edits) = brokers, stands
    edits.bench.home.alerts_file.write_text("")
    await second.bench.broker.team.look_at_files()
    await known(brokers)
    await edits.watch.look()
    assert edits.received == []
    sends = edits if dies else works
    if dies:
        await takes_over(second, store)
        first.bench.clock.advance(6)
    key = "alerts_replaced:"
    meta = sends.bench.broker.recording.meta
    await sends.until(lambda: not any(one.startswith(key) for one in meta))
    await known(brokers)
    for one in stands:
        await one.watch.look()
        assert list(one.alerts.destinations) == []
    assert sends.kinds == ["loosened"]
    event = (await sends.bench.events("service.changed"))[-1]
    assert sends.received[0]["data"]["seq"] == event.seq
