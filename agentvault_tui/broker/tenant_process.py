"""The embedded tenant as a child process: started, watched, started again.

The broker knows only its issuer and client id, as it would of any other tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.model import new_id, new_secret
from agentvault_tui.vault.provider import Endpoints

log = logging.getLogger("agentvault.tenant_process")

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 3.0
_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class ManagementCredential:
    """A client of the Management API, made for one run, and in no file."""

    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the tenant says once it is ready."""

    issuer: str
    client_id: str
    management: ManagementCredential | None = None
    """With which we manage the embedded tenant; none of a tenant we did not start."""
    providers: Mapping[str, Endpoints] = field(default_factory=dict)
    """Where its own providers are, by connection."""


class TenantProcess:
    """Runs ``python -m agentvault_tui.tenant`` for as long as we live.

    The child ends when its stdin closes, so not even ``kill -9`` of the broker leaves
    it behind. Two things outlive a child, so that its successor is the same tenant:

    * its listening socket, which we hold: while it is started again nobody else can
      take the port and answer in its place, and who connects waits for it; with it
      the one that keeps the port on the other loopback address from others;
    * our client id, made for this run and known to us two alone: whoever else finds
      the port can start no device flow, and so fill nothing; and, as secret, the
      credential with which we manage it.

    Both go over a socket pair that the child inherits.
    """

    def __init__(self, home: Home) -> None:
        # A home in two folders is the platform's own, which the child finds by itself.
        one = home.data == home.config
        self._where = ("--home", str(home.data)) if one else ()
        self._client_id = new_id("app")
        self._management = ManagementCredential(new_id("app"), new_secret("av_m"))
        self._listening: list[socket.socket] = []
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> Announcement:
        """Start it and return where it is, now and after any restart.

        Raises:
            TenantUnreachableError: it did not come up.
        """
        announcement = await self._spawn()
        self._watch = asyncio.create_task(self._keep())
        return announcement

    async def stop(self) -> None:
        """End it."""
        if self._watch is not None:
            self._watch.cancel()
        await self._end()
        for held in self._listening:
            held.close()

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
        ours, theirs = socket.socketpair()
        with ours, theirs:
            held = [listening.fileno() for listening in self._listening[:1]]
            known = json.dumps(
                {"client_id": self._client_id, "management": asdict(self._management)}
            ).encode()
            socket.send_fds(ours, [known], held)
            # -P: a json.py in the folder we were started from must not be imported.
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "agentvault_tui.tenant", *self._where),
                *("--parent-fd", str(theirs.fileno())),
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            assert process.stdout is not None  # noqa: S101 - PIPE was asked for
            try:
                line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
                said = json.loads(line)
                if not self._listening:
                    # Sent before the line was, so this does not wait.
                    self._listening = _received(ours)
                # The secret comes from us: nobody says it back.
                return Announcement(
                    said["issuer"],
                    said["client_id"],
                    self._management,
                    _providers(said["providers"]),
                )
            except (TimeoutError, ValueError, KeyError, OSError) as error:
                await self._end()
                raise TenantUnreachableError(
                    "the embedded tenant did not start", "its log stands above"
                ) from error

    async def _keep(self) -> None:
        """Start it again whenever it ends."""
        while self._process is not None:
            code = await self._process.wait()
            log.error("the embedded tenant ended with %s; starting it again", code)
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TenantUnreachableError):
                await self._spawn()


def _providers(said: dict[str, dict[str, str]]) -> dict[str, Endpoints]:
    return {
        name: Endpoints(at["revocation_endpoint"], at["userinfo_endpoint"])
        for name, at in said.items()
    }


def _received(pair: socket.socket) -> list[socket.socket]:
    """Return the sockets the child has sent, the listening one first.

    Raises:
        OSError: it sent none.
    """
    pair.setblocking(False)
    _, descriptors, _, _ = socket.recv_fds(pair, 1, 2)
    if not descriptors:
        raise OSError("no socket came")
    received = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for one in received:
        one.set_inheritable(False)
    return received
