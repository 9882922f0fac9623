"""Brokers of a team notify each other, in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.patience import PATIENT
from support.postgres import TEAM, Database

from agentvault_tui.ledger import notifier as module
from agentvault_tui.ledger.notifier import FLOOD_BYTES, NotificationListener, Notifier
from agentvault_tui.store_connection import Connector


@asynccontextmanager
async def running(*several: Notifier | NotificationListener) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in several]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def listening(
    store: Database, name: str = "brk_1", version: str = ""
) -> NotificationListener:
    """Return the listener of a broker whose heartbeat is in the store."""
    made = NotificationListener(Connector(store.url, TEAM))
    doc = {"version": version} if version else {"channel": made.channel}
    store.run(
        "INSERT INTO agentvault.brokers VALUES (%s, clock_timestamp(), %s, 'run')",
        *(name, json.dumps(doc).encode()),
    )
    return made


async def arrived(listener: NotificationListener, seconds: float = PATIENT) -> bool:
    """Return whether something arrives in so many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await listener.wait(seconds)
    # uvloop counts in whole milliseconds: a wait to its end may seem shorter.
    return loop.time() - began < seconds - 0.01


async def test_an_announcement_notifies_each_broker(store: Database) -> None:
    """Each listens on a channel of its own; several announcements at once are one."""
    notifier = Notifier(Connector(store.url, TEAM))
    both = [await listening(store, name) for name in ("brk_1", "brk_2")]
    await listening(store, "brk_3", version="0.9.0")  # has no channel
    store.run("INSERT INTO agentvault.brokers VALUES ('work', now(), '{}', 'run')")
    assert both[0].channel != both[1].channel
    async with running(*both, notifier):
        for one in both:
            assert await arrived(one)  # it listens
        for _ in range(3):
            notifier.announce()
        for one in both:
            assert await arrived(one)
            assert not await arrived(one, 0.1)


async def test_a_server_that_takes_no_notification_is_asked_again(
    store: Database,
) -> None:
    """The next announcement is sent once the server takes it."""
    store.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify FROM PUBLIC")
    notifier = Notifier(Connector(store.url, TEAM))
    listener = await listening(store)
    async with running(listener, notifier):
        assert await arrived(listener)  # it listens
        notifier.announce()
        assert not await arrived(listener, 0.5)
        store.run("GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify TO PUBLIC")
        notifier.announce()
        assert await arrived(listener)


async def test_after_a_flood_a_broker_does_not_listen_for_a_while(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed; it listens again, and the flood counts as over."""
    monkeypatch.setattr(module, "FLOODED_SECONDS", 1.0)
    listener = await listening(store)
    there = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'agentvault'"
    )

    async def until(flooded: bool, connections: int) -> None:
        async with asyncio.timeout(PATIENT):
            wanted = flooded, [(connections,)]
            while (listener.flooded, store.run(there)) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with running(listener):
        assert await arrived(listener)
        flood = "SELECT count(pg_notify(%s, n || repeat('x', 4000)))"
        flood += " FROM generate_series(1, %s) AS n"
        store.run(flood, listener.channel, 2 * FLOOD_BYTES // 4000)
        await until(flooded=True, connections=0)
        await until(flooded=False, connections=1)
        await listener.wait(0)
        store.run("SELECT pg_notify(%s, '')", listener.channel)
        assert await arrived(listener)


async def test_a_listener_whose_connection_ends_listens_again(store: Database) -> None:
    """What another process wrote meanwhile is read: it counts as a notification."""
    listener = await listening(store)
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'agentvault'"
    )
    async with running(listener):
        assert await arrived(listener)
        assert store.run(end) == [(1,)]
        await listener.wait(0.1)  # the server's last words
        assert await arrived(listener)
        assert not listener.flooded
