"""Reads a home's ledger with its text index, which is built again where it changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, TypeVar

from agentvault_tui.home import Home
from agentvault_tui.ledger.opening import Opened
from agentvault_tui.ledger.schema import StoreConnection, storage_errors
from agentvault_tui.ledger.search import Indexer, open_searcher

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
Spawn = Callable[[Coroutine[object, object, None], str], None]


class Reading:
    """The connection that reads, and the indexer behind it."""

    def __init__(
        self,
        home: Home,
        ledger_id: str,
        spawn: Spawn,
        upto: Callable[[int], int],
        files: tuple[Indexer, StoreConnection],
    ) -> None:
        """Use `open` instead."""
        self._home, self._ledger_id = home, ledger_id
        self._indexer, self._db = files
        self._spawn, self._upto = spawn, upto
        self._renewing = asyncio.Lock()
        self._closed = False
        self._index()

    @classmethod
    async def open(
        cls, home: Home, opened: Opened, spawn: Spawn, upto: Callable[[int], int]
    ) -> Reading:
        """Open both; the index is built again if it is not as it was left.

        Args:
            home: the home.
            opened: the start's data about the ledger.
            spawn: starts a task under a name.
            upto: returns up to where to index, given how far that is.

        Raises:
            LedgerUnwritableError: the ledger cannot be read now.
        """
        async with contextlib.AsyncExitStack() as undo:
            indexer = await Indexer.open(home, opened.ledger_id, opened.index)
            undo.push_async_callback(indexer.close)
            with storage_errors(home.database):
                db = await StoreConnection.open(lambda: open_searcher(home))
            undo.push_async_callback(db.close)
            self = cls(home, opened.ledger_id, spawn, upto, (indexer, db))
            undo.pop_all()
            return self

    def _index(self) -> None:
        indexer = self._indexer
        head = lambda: self._upto(indexer.indexed)  # noqa: E731
        renew = lambda: self._spawn(self.renew(), "index")  # noqa: E731
        self._spawn(indexer.run(head, renew), "indexer")

    @property
    def indexed(self) -> int:
        """The last event that the index holds."""
        return self._indexer.indexed

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run *function* on the connection, in its thread.

        Raises:
            LedgerUnwritableError: the ledger cannot be read now.
        """
        with storage_errors(self._home.database):
            return await self._db.run(function, *args, **kwargs)

    async def renew(self, *, damaged: bool = False) -> None:
        """Build the text index again if another process changed it, or it is *damaged*.

        Until it is there, searches read the events themselves.
        """
        async with self._renewing:
            changed = damaged or await self._indexer.is_changed()
            if self._closed or not changed:
                return
            log.warning("another process changed the text index: it is built again")
            before, db = self._indexer, self._db
            before.stop()
            await before.close()
            self._indexer = await Indexer.open(self._home, self._ledger_id, None)
            with storage_errors(self._home.database):
                self._db = await StoreConnection.open(lambda: open_searcher(self._home))
            self._index()
            await db.close()

    async def close(self) -> bool:
        """Close both; return whether the index is as this process left it.

        The last writer of a file closes it last, and so empties its log.
        """
        async with self._renewing:
            self._closed = True
            self._indexer.stop()
            whole = not await self._indexer.is_changed(wait=True)
            await self._db.close()
            await self._indexer.close()
        return whole
