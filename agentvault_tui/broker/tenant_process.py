"""The embedded tenant as a child process: started, watched, started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from agentvault_tui import sealing
from agentvault_tui.errors import SealedError, TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import new_id, new_secret
from agentvault_tui.process import Child, start_tenant
from agentvault_tui.vault import ClientSecret, Secret, TenantClient
from agentvault_tui.vault.provider import Endpoints

log = logging.getLogger("agentvault.tenant_process")

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 3.0
_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """The tenant's first line, once it is ready."""

    issuer: str
    client_id: str
    local: str | None = None
    """Where on loopback it answers for its issuer; None where the issuer is asked."""
    management: ClientSecret | None = None
    """With which we manage the embedded tenant, made for one run and in no file; none
    of a tenant we did not start."""
    providers: Mapping[str, Endpoints] = field(default_factory=dict)
    """Where its own providers are, by connection."""


class TenantProcess:
    """Runs ``python -m agentvault_tui.tenant`` for as long as this process lives.

    The child ends when its stdin closes. Two things outlive it, so that its successor
    is the same tenant, and go over a socket pair that it inherits:

    * its listening socket, which we hold: no other process can take the port meanwhile,
      nor that of the other loopback address;
    * our client id, which nothing holds in clear: who finds the port can start no flow;
      and the credential with which we manage it, made for this run.
    """

    def __init__(self, home: Home, child: Child | None = None) -> None:
        """Run the tenant of *home*; in *child* at first, if it was started before."""
        self._home = home
        self._client_id = new_id("app")
        self._management = ClientSecret(new_id("app"), Secret(new_secret("av_m")))
        self._listening: list[socket.socket] = []
        self._child = child
        self._ordered = False
        """Whether the child has received its order to begin."""
        self._ended = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held while the child's output is read."""

    async def start(self, ledger: Ledger | None = None) -> Announcement:
        """Start it and return where it is, now and after any restart.

        Where *ledger* is a team's, other brokers serve this tenant as well.
        """
        if ledger is not None and ledger.shared is not None:
            self._client_id = await asyncio.to_thread(team_client_id, self._home)
        announcement = await self._spawn()
        self._watch = asyncio.create_task(self._keep())
        return announcement

    async def follow_key(self, client: TenantClient) -> None:
        """Give the running tenant another client id, if the team's key has changed.

        Approvals under way have to be begun again. The tenant goes on:
        its pages are answered meanwhile.

        Args:
            client: asks the tenant for this broker.
        """
        client_id = await asyncio.to_thread(team_client_id, self._home)
        if client_id == self._client_id:
            return
        async with self._turn:
            self._client_id, child = client_id, self._child
            if child is not None:
                log.info("the team's key has changed: the tenant gets a new client id")
                sending = asyncio.to_thread(_send_client_id, child, client_id)
                try:
                    await asyncio.wait_for(sending, _START_SECONDS)
                except (TimeoutError, OSError, ValueError):
                    log.warning("the tenant took no new client id: it is stopped")
                    child.close()  # the next one takes it
            client.client_id = client_id

    async def stop(self) -> None:
        """End it."""
        if self._watch is not None:
            self._watch.cancel()
        await self._end()
        for held in self._listening:
            held.close()

    async def _end(self) -> None:
        child = self._child
        if child is None:
            return
        child.close()
        if not self._ordered:
            return
        try:
            await asyncio.wait_for(self._ended.wait(), _STOP_SECONDS)
        except TimeoutError:
            child.process.kill()
            await self._ended.wait()
        child.close()

    async def _spawn(self) -> Announcement:
        async with self._turn:
            return await self._spawned()

    async def _spawned(self) -> Announcement:
        if self._child is None or self._ordered:
            self._child = start_tenant(self._home)
        self._ordered = True
        child = self._child
        self._ended = _ending(child)
        with child.pair:
            held = [listening.fileno() for listening in self._listening[:1]]
            management = {
                "client_id": self._management.client_id,
                "client_secret": self._management.secret.reveal(),
            }
            credentials = json.dumps(
                {"client_id": self._client_id, "management": management}
            ).encode()
            try:
                socket.send_fds(child.pair, [credentials], held)
                assert child.process.stdout is not None  # noqa: S101 - a pipe
                reading = asyncio.to_thread(child.process.stdout.readline)
                line = await asyncio.wait_for(reading, _START_SECONDS)
                announcement = json.loads(line)
                if not self._listening:
                    # Sent before the line was, so this does not wait.
                    self._listening = _received(child.pair)
                # The secret comes from us: nobody says it back.
                return Announcement(
                    announcement["issuer"],
                    announcement["client_id"],
                    announcement["local"],
                    self._management,
                    _providers(announcement["providers"]),
                )
            except (TimeoutError, ValueError, KeyError, OSError) as error:
                await self._end()
                raise TenantUnreachableError(
                    "the embedded tenant did not start", "its log stands above"
                ) from error

    async def _keep(self) -> None:
        """Start it again whenever it ends."""
        while self._child is not None:
            await self._ended.wait()
            code = self._child.process.returncode
            self._child.close()
            log.error("the embedded tenant ended with %s; starting it again", code)
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TenantUnreachableError):
                await self._spawn()


class _ClientSeal(sealing.Seal):
    """Derives the client id that a team's brokers share."""

    WHOSE: ClassVar[str] = "tenant client"


def team_client_id(home: Home) -> str:
    """Return the client id that a team's brokers share.

    Each goes on with a device code of another's then. It follows from the team's key:
    another key makes another id, once every broker has that key.
    """
    try:
        seal = _ClientSeal.of(home, shared=True)
    except SealedError:
        return new_id("app")  # nobody signs in without the key: it seals their factors
    return f"app_{seal.derive('console').hex()}"


def _send_client_id(child: Child, client_id: str) -> None:
    """Send the client id to the tenant, and wait until it serves that.

    Raises:
        OSError: it has ended.
        ValueError: its pipes are closed.
    """
    stdin, stdout = child.process.stdin, child.process.stdout
    assert stdin is not None and stdout is not None  # noqa: S101, PT018 - pipes
    stdin.write(json.dumps({"client_id": client_id}).encode() + b"\n")
    stdin.flush()
    if not stdout.readline():
        raise OSError("it has ended")


def _ending(child: Child) -> asyncio.Event:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        child.process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: we end too
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, name="tenant", daemon=True).start()
    return ended


def _providers(announcement: dict[str, dict[str, str]]) -> dict[str, Endpoints]:
    return {
        name: Endpoints(at["revocation_endpoint"], at["userinfo_endpoint"])
        for name, at in announcement.items()
    }


def _received(pair: socket.socket) -> list[socket.socket]:
    """Return the sockets the child has sent, the listening one first."""
    pair.setblocking(False)
    _, descriptors, _, _ = socket.recv_fds(pair, 1, 2)
    if not descriptors:
        raise OSError("no socket came")
    received = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for one in received:
        one.set_inheritable(False)
    return received
