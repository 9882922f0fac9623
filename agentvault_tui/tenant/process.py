"""The tenant's process: it prints that it is ready, and ends with its parent."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from agentvault_tui.clock import Clock, SharedClock, SystemClock
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    HomeInUseError,
    SettingsError,
)
from agentvault_tui.home import (
    Home,
    file_stamp,
    private_file,
    private_folder,
    put_private,
)
from agentvault_tui.process import harden, log_json_lines
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.accounts import where
from agentvault_tui.tenant.app import Opening, Surface, is_urgent
from agentvault_tui.tenant.file_store import FileStore, open_store
from agentvault_tui.tenant.parts import HOST, PORT_FILE, Parts, Run, issuer_of
from agentvault_tui.tenant.store import Store, TenantSeal
from agentvault_tui.web import (
    PublicAddress,
    Server,
    loopback_pair,
    public_socket,
    run,
)
from agentvault_tui.web.places import Limits

LIMITS: Final = Limits(unread_bytes=2**20)
"""A client that sends more than the tenant takes still reads its 413."""
_LOCK_TRIES: Final = 30
_LOCK_PAUSE: Final = 0.1
_LONGEST_WORD: Final = 4096
_log = logging.getLogger("agentvault.tenant")


def main(argv: list[str] | None = None) -> int:
    """Run until stdin ends or a signal comes; return the exit code."""
    harden()  # a core file would hold the signing key
    parser = argparse.ArgumentParser(
        prog="python -m agentvault_tui.tenant",
        description="The embedded tenant; ends when its standard input does.",
    )
    parser.add_argument("--home", help="the vault's folder")
    parser.add_argument("--parent-fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        log_json_lines("info")
        home = Home.locate(options.home)
        settings = Settings.load(home)
        given = ParentOrders.of(options)
        return run(_serve(home, settings, given, SharedClock(SystemClock())))
    except AgentVaultError as error:
        sys.stderr.write(f"agentvault tenant: {error.diagnosis()}\n")
        return error.exit_code


@dataclass(frozen=True, slots=True)
class ParentOrders:
    """The broker's orders, with which a restarted tenant is the same one."""

    run: Run
    listening: socket.socket | None = None
    """The socket of the tenant before this one, if there was one."""
    parent: socket.socket | None = None
    """Where a socket that we make is handed to, to be held while we restart."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Read it from the socket the parent left us, or make it up without one.

        Raises:
            SettingsError: the descriptor is no such socket, or its message is invalid.
        """
        if options.parent_fd is None:
            return cls(Run())
        try:
            parent = socket.socket(fileno=options.parent_fd)
            parent.set_inheritable(False)
            # It says nothing until it holds the home, and nothing if it may not.
            raw, descriptors, _, _ = socket.recv_fds(parent, _LONGEST_WORD, 1)
            if not raw:
                sys.exit(0)
            # Its clients' ids, and the management secret.
            order = json.loads(raw)
            management = order["management"]
            run = Run(
                client_id=str(order["client_id"]),
                management_id=str(management["client_id"]),
                management_secret=str(management["client_secret"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                "--parent-fd is not the socket of a parent", "leave it out"
            ) from error
        listening = socket.socket(fileno=descriptors[0]) if descriptors else None
        return cls(run, listening, parent)

    def bind(
        self, port_file: Path, store: Store
    ) -> tuple[socket.socket, socket.socket | None]:
        """Return the socket to serve on, and the one that holds the other loopback.

        The parent then holds both as well.
        """
        if self.listening is not None:
            self.listening.set_inheritable(False)
            return self.listening, None
        bound, held = _bind(port_file, store)
        if self.parent is not None:
            sent = [bound.fileno(), *([held.fileno()] if held else [])]
            socket.send_fds(self.parent, [b"\0"], sent)
            self.parent.close()
        return bound, held


async def _serve(
    home: Home, settings: Settings, given: ParentOrders, clock: Clock
) -> int:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_only_one(home))
        store = open_store(home, settings, clock, checkpoints=True)
        stack.callback(store.close)
        port_file = home.tenant / PORT_FILE
        bound, held = given.bind(port_file, store)
        stack.callback(bound.close)
        port = int(bound.getsockname()[1])
        public = PublicAddress.of(home, settings.tenant)

        running = RunningAs(given.run)

        def make() -> Surface:
            seal = TenantSeal.of(home, shared=bool(settings.store.url))
            parts = Parts(
                *(store, seal, port, clock),
                run=running.run,
                public=public,
                localhost=True,  # `loopback_pair` holds both, here or in our parent
            )
            return Surface.of(parts, settings.stepup)

        opening = Opening(make, lambda: (file_stamp(home.team_key), running.run))
        if not settings.store.url:
            opening.surface()  # it says now what is wrong with its store
        server = await stack.enter_async_context(Server(clock))
        if public is not None:
            tls = public.tls(clock)
            outside = public_socket(public.address, public.port)
            app = opening.app(Surface.public_app)
            await server.listen(app, outside, tls=tls, limits=LIMITS, urgent=is_urgent)
        await server.listen(
            *(opening.app(Surface.app), bound),
            held=held,
            limits=LIMITS,
            urgent=is_urgent,
        )
        put_private(port_file, str(port).encode(), replace=True)
        stopped = _stop_requested(stack, running.read)
        local = f"http://{HOST}:{port}/"
        # The management secret is never said: whoever may have it has sent it.
        ready = {
            "issuer": issuer_of(local, public),
            "local": local,
            "client_id": given.run.client_id,
            "pid": os.getpid(),
            "providers": where(local),
        }
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
        _log.info("tenant started on port %s", port)
        await stopped.wait()
        _log.info("tenant stops")
    return 0


def _bind(port_file: Path, store: Store) -> tuple[socket.socket, socket.socket | None]:
    """Bind the last port, which keeps the issuer, else any."""
    remembered = None
    if port_file.exists():
        remembered = port_file.read_text("ascii", "replace")
    elif isinstance(store, FileStore):
        remembered = store.fact("port")  # where earlier versions kept it
    if remembered is not None and remembered.isdigit() and 0 < int(remembered) < 65_536:
        try:
            return loopback_pair(HOST, int(remembered))
        except (ConflictError, SettingsError):
            _log.warning("the port of last time is taken: %s", remembered)
    return loopback_pair(HOST, 0)


@dataclass(slots=True)
class RunningAs:
    """The clients of this run, which change with the team's key."""

    run: Run

    def read(self, line: bytes) -> None:
        """Take the client id that a line of the parent's names, and confirm it."""
        try:
            client_id = json.loads(line)["client_id"]
        except (ValueError, KeyError, TypeError):
            _log.warning("what the parent says cannot be read")
            return
        self.run = replace(self.run, client_id=str(client_id))
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write("{}\n")
            sys.stdout.flush()


def _stop_requested(
    stack: contextlib.AsyncExitStack, read: Callable[[bytes], None]
) -> asyncio.Event:
    """Return the event that is set by a signal, or when stdin, the parent's pipe, ends.

    Args:
        stack: removes the handlers of signals.
        read: called with each line that comes on stdin.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
        stack.callback(loop.remove_signal_handler, number)

    def watch() -> None:
        # os.read, not sys.stdin: its lock would be held when the interpreter ends.
        with contextlib.suppress(OSError, RuntimeError):
            left = b""
            while came := os.read(0, _LONGEST_WORD):
                *lines, left = (left + came)[-_LONGEST_WORD:].split(b"\n")
                for line in lines:
                    loop.call_soon_threadsafe(read, line)
        with contextlib.suppress(RuntimeError):  # the loop is closed: we stop anyway
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return stopped


@contextlib.asynccontextmanager
async def _only_one(home: Home) -> AsyncIterator[None]:
    """Hold the home's tenant lock; wait a little for one that is just ending."""
    private_folder(home.data)
    private_folder(home.tenant)
    path = home.tenant / "tenant.lock"
    private_file(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_PAUSE)
        else:
            raise HomeInUseError(
                f"a tenant runs on {home.data} already", "stop it, or use another home"
            )
        yield
    finally:
        os.close(descriptor)
