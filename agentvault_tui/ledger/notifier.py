"""Notifications between the brokers of a team, apart from every transaction.

PostgreSQL has no right to notify: each role that may connect to the database notifies
every channel whose name it knows (PostgreSQL documentation, NOTIFY). So each broker
listens on a channel with a random name, which is in its row of ``agentvault.brokers``:
only roles with rights to the store read it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from typing import Final

from agentvault_tui.errors import LedgerUnwritableError, RefusedError
from agentvault_tui.store_connection import Connection, Connector, ask, close, shut

_NOTIFY: Final = """
SELECT pg_notify(channel, '') FROM agentvault.brokers,
  LATERAL (SELECT convert_from(doc, 'UTF8')::json ->> 'channel') AS own(channel)
  WHERE channel <> '' AND seen > clock_timestamp() - interval '10 seconds'
"""
"""Brokers without a channel poll: they are of an earlier version."""
_NAME: Final = "SELECT set_config('agentvault.channel', %s, false)"
_LISTEN: Final = """
DO $$ BEGIN
  EXECUTE format('LISTEN %I', current_setting('agentvault.channel'));
END $$"""
"""Apart from the name: roles that monitor the server read the text of statements."""
_REST_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 2.0
"""Between a lost listening connection and the next one; meanwhile the broker polls."""
_PART_BYTES: Final = 65_536
_PAUSE_SECONDS: Final = 0.005
"""Between two parts: so many turns of the event loop are for anything else."""
FLOOD_BYTES: Final = 512 * 1024
"""A second's bytes that are a flood: about 8,000 notifications, each empty."""
FLOODED_SECONDS: Final = 60.0
"""For so long a broker does not listen after a flood."""
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
                    await ask(db, _NOTIFY)
                except (LedgerUnwritableError, RefusedError) as error:
                    log.debug("the other brokers were not notified: %s", error)
                    await asyncio.sleep(_REST_SECONDS)
        finally:
            if db is not None:
                await close(db)


class NotificationListener:
    """Listens for notifications, on a connection of its own.

    It discards the bytes that arrive without parsing them: each means the same, that
    there may be something to read. After a flood it closes the connection for a while.
    """

    def __init__(self, connector: Connector) -> None:
        """Listen to nothing until `run`."""
        self.channel: Final = f"agentvault_{secrets.token_hex(16)}"
        """Random, of this process; the other brokers read it in the store."""
        self.flooded = False
        """Whether too many notifications arrived, so that this broker only polls."""
        self._connector = connector
        self._arrived = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until something arrives, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        self._arrived.clear()

    async def run(self) -> None:
        """Listen, again after each flood and lost connection, until cancelled."""
        while True:
            try:
                await self._listen()
            except (LedgerUnwritableError, RefusedError, OSError) as error:
                log.debug("this broker polls, and does not listen: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                log.warning("notifications flood this broker: it polls for a while")
                await asyncio.sleep(FLOODED_SECONDS)

    async def _listen(self) -> None:
        """Listen until more than `FLOOD_BYTES` arrive in a second."""
        loop, db = asyncio.get_running_loop(), await self._connector.connect()
        calm = None
        try:
            await ask(db, _NAME, (self.channel,))
            await ask(db, _LISTEN)
            self._arrived.set()  # something may have been written before
            calm = loop.call_later(1.0, setattr, self, "flooded", False)
            with socket.socket(fileno=os.dup(db.fileno())) as raw:
                raw.setblocking(False)
                began, received = loop.time(), 0
                while part := await loop.sock_recv(raw, _PART_BYTES):
                    self._arrived.set()
                    if loop.time() - began >= 1.0:
                        began, received = loop.time(), 0
                    received += len(part)
                    if received > FLOOD_BYTES:
                        self.flooded = True
                        return
                    await asyncio.sleep(_PAUSE_SECONDS)
            raise LedgerUnwritableError("the store closed the connection")
        finally:
            if calm is not None:
                calm.cancel()
            shut(db)  # its server process may wait until these bytes are read
            await close(db)
