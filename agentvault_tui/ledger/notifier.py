"""Notifications between the brokers of a team, apart from every transaction."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agentvault_tui.errors import LedgerUnwritableError, RefusedError
from agentvault_tui.ledger.store_schema import CHANNEL
from agentvault_tui.store_connection import Connection, Connector, ask, close

_REST_SECONDS: Final = 0.2
log = logging.getLogger("agentvault.store")


class Notifier:
    """Notifies the other brokers, on a connection of its own.

    PostgreSQL has one queue of notifications for the whole server, and each role of it
    can fill the queue. The commit of a transaction that notifies then fails (PostgreSQL
    documentation, NOTIFY, notes), so that no other transaction may notify: without
    notifications the brokers poll.
    """

    def __init__(self, connector: Connector) -> None:
        """Connect to nothing until there is something to announce."""
        self._connector = connector
        self._due = asyncio.Event()

    def announce(self) -> None:
        """Have the other brokers notified that there is something to read."""
        self._due.set()

    async def run(self) -> None:
        """Notify after each `announce`, until cancelled."""
        db: Connection | None = None
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                try:
                    if db is None or db.closed:
                        db = await self._connector.connect()
                    await ask(db, "SELECT pg_notify(%s, '')", (CHANNEL,))
                except (LedgerUnwritableError, RefusedError) as error:
                    log.debug("the other brokers were not notified: %s", error)
                    await asyncio.sleep(_REST_SECONDS)
        finally:
            if db is not None:
                await close(db)
