"""aiosqlite, with one more method: a whole function in its thread, in one hop."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

import aiosqlite

# At debug level it would log every statement with its values, agents' texts among them.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Connection(aiosqlite.Connection):
    """A connection whose thread can run a function of ours.

    A batch of statements then costs one hop to the thread and back instead of three
    or more, and the loop's thread is asked for the GIL once instead of once a row.
    """

    @classmethod
    async def open(cls, connector: Callable[[], sqlite3.Connection]) -> Connection:
        """Start the thread and connect in it."""
        connection = cls(connector, iter_chunk_size=64)
        try:
            await connection
        except BaseException:
            # aiosqlite has told its thread to stop; see that it has, before the loop
            # it would report to is gone.
            await asyncio.to_thread(connection._thread.join)
            raise
        return connection

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run *function* in the thread, with the sqlite3 connection first."""
        result = await self._execute(  # type: ignore[no-untyped-call]
            function, self._conn, *args, **kwargs
        )
        return cast("_T", result)
