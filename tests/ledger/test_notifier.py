"""Brokers of a team notify each other, in a real PostgreSQL."""

from __future__ import annotations

import asyncio

from support.patience import PATIENT
from support.postgres import TEAM, Database

from agentvault_tui.ledger.notifier import Notifier
from agentvault_tui.store_connection import Connector


async def test_an_announcement_notifies_who_listens(store: Database) -> None:
    """It comes from a connection of its own; several at once are one."""
    connector = Connector(store.url, TEAM)
    listening = await connector.connect()
    await listening.execute("LISTEN agentvault")
    notifier = Notifier(connector)
    for _ in range(3):
        notifier.announce()
    running = asyncio.create_task(notifier.run())
    assert [one async for one in listening.notifies(timeout=PATIENT, stop_after=1)]
    assert [one async for one in listening.notifies(timeout=0.1)] == []
    running.cancel()
    await asyncio.wait([running])
    await listening.close()


async def test_a_server_that_takes_no_notification_is_asked_again(
    store: Database,
) -> None:
    """The next announcement is sent once the server takes it."""
    store.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify FROM PUBLIC")
    connector = Connector(store.url, TEAM)
    listening = await connector.connect()
    await listening.execute("LISTEN agentvault")
    notifier = Notifier(connector)
    notifier.announce()
    running = asyncio.create_task(notifier.run())
    assert [one async for one in listening.notifies(timeout=0.5)] == []
    assert not running.done()
    store.run("GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify TO PUBLIC")
    notifier.announce()
    assert [one async for one in listening.notifies(timeout=PATIENT, stop_after=1)]
    running.cancel()
    await asyncio.wait([running])
    await listening.close()
