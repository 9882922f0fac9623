"""A relay before PostgreSQL that delays, cuts and loses what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

_PORT = ".s.PGSQL.5432"


class Relay:
    """Passes bytes on between brokers and a server's socket.

    Attributes:
        word: what a request has in it that is lost.
        lose: whether that request is lost, or its answer after the server committed.
        away: whether nobody is connected any more.
        silent: whether it takes connections and bytes, and passes none on.
        halve: whether an answer is cut in its middle, and its connection closed.
        delay: seconds by which each answer is late.
    """

    def __init__(self, server: Path) -> None:
        self._server = server / _PORT
        self._open: set[asyncio.StreamWriter] = set()
        self._serving = 0
        self.word = b"lose this"
        self.lose: Literal["", "request", "answer"] = ""
        self.away = False
        self.silent = False
        self.halve = False
        self.delay = 0.0
        self.lost = asyncio.Event()

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        """Listen on a socket in *folder*."""
        server = await asyncio.start_unix_server(self._serve, folder / _PORT)
        async with server:
            yield
            server.close()
            self.away = True
            self.cut()
            while self._serving:  # noqa: ASYNC110 - the last of them has no event
                await asyncio.sleep(0.001)

    def cut(self) -> None:
        """Close all connections."""
        for writer in tuple(self._open):
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.away:
            writer.close()
            return
        self._serving += 1
        theirs, ours = await asyncio.open_unix_connection(self._server)
        pair = {writer, ours}
        self._open |= pair
        losing = asyncio.Event()
        tasks = [
            asyncio.ensure_future(self._requests(reader, ours, losing)),
            asyncio.ensure_future(self._answers(theirs, writer, losing)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if losing.is_set():
            self.lose = ""
            self.lost.set()
        for one in pair:
            one.close()
        self._open -= pair
        self._serving -= 1

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        ours: asyncio.StreamWriter,
        losing: asyncio.Event,
    ) -> None:
        while data := await reader.read(65_536):
            if self.lose and self.word in data:
                losing.set()
                if self.lose == "request":
                    return
            await self._until_heard()
            ours.write(data)
            await ours.drain()

    async def _answers(
        self,
        theirs: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        losing: asyncio.Event,
    ) -> None:
        while data := await theirs.read(65_536):
            if losing.is_set():
                return
            await self._until_heard()
            await asyncio.sleep(self.delay)
            if self.halve:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()

    async def _until_heard(self) -> None:
        while self.silent:  # noqa: ASYNC110 - tests set it from outside the loop, too
            await asyncio.sleep(0.01)
