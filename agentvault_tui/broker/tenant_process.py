"""The embedded tenant as a child process: started, watched, started again.

The broker knows only its issuer and client id, as it would of any other tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.home import Home

log = logging.getLogger("agentvault.tenant_process")

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 3.0
_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the tenant says once it is ready."""

    issuer: str
    client_id: str


class TenantProcess:
    """Runs ``python -m agentvault_tui.tenant`` for as long as we live.

    The child ends when its stdin closes, so not even ``kill -9`` of the broker leaves
    it behind.
    """

    def __init__(self, home: Home) -> None:
        # A home in two folders is the platform's own, which the child finds by itself.
        one = home.data == home.config
        self._where = ("--home", str(home.data)) if one else ()
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self, moved: Callable[[Announcement], None]) -> Announcement:
        """Start it and return where it is; *moved* is told of later restarts.

        Raises:
            TenantUnreachableError: it did not come up.
        """
        announcement = await self._spawn()
        self._watch = asyncio.create_task(self._keep(moved))
        return announcement

    async def stop(self) -> None:
        """End it."""
        if self._watch is not None:
            self._watch.cancel()
        await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> Announcement:
        # -P: a json.py in the folder we were started from must not be imported.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "agentvault_tui.tenant", *self._where),
            stdin=PIPE,
            stdout=PIPE,
        )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
            said = json.loads(line)
            return Announcement(said["issuer"], said["client_id"])
        except (TimeoutError, ValueError, KeyError) as error:
            await self._end()
            raise TenantUnreachableError(
                "the embedded tenant did not start", "its log stands above"
            ) from error

    async def _keep(self, moved: Callable[[Announcement], None]) -> None:
        """Start it again whenever it ends."""
        while self._process is not None:
            code = await self._process.wait()
            log.error("the embedded tenant ended with %s; starting it again", code)
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TenantUnreachableError):
                moved(await self._spawn())
