"""Assemble the broker, serve it on its two listeners, and take it down again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentvault_tui import __version__
from agentvault_tui.broker.agents_api import agents_app
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.recovery import record_missed, recover, take_over
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.tenant_process import Announcement, TenantProcess
from agentvault_tui.broker.upkeep import upkeep
from agentvault_tui.broker.upstream.tenant_log import MARK, TenantLog
from agentvault_tui.broker.usecases.disconnect import join_accounts
from agentvault_tui.broker.usecases.policy_change import (
    policy_at_start,
    policy_is_recorded,
    policy_record,
    recheck,
)
from agentvault_tui.broker.usecases.uses import record_uses
from agentvault_tui.broker.verification import keep_verified
from agentvault_tui.clock import Clock, SystemClock
from agentvault_tui.errors import LedgerError, SettingsError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, Meta, Recovery
from agentvault_tui.model import Draft, EventType
from agentvault_tui.process import Child, harden, log_json_lines
from agentvault_tui.settings import Settings
from agentvault_tui.vault import ClientSecret, Secret, TenantClient
from agentvault_tui.vault.kept_clients import KeptClients
from agentvault_tui.vault.provider import endpoints
from agentvault_tui.web.guard import RequestGuard, loopback_hosts
from agentvault_tui.web.local_ca import chosen_files
from agentvault_tui.web.reply import problem
from agentvault_tui.web.server import Listener, Server
from agentvault_tui.web.server import run as run_loop
from agentvault_tui.web.sockets import loopback_pair, unix_socket
from agentvault_tui.web.tls import ServerTls, server_context

log = logging.getLogger("agentvault.serve")


def run(
    home: Home,
    settings: Settings,
    *,
    socket: Path | None = None,
    tenant: Child | None = None,
    clock: Clock | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT.

    Prints one JSON line on stdout when ready.

    Args:
        home: the vault's folders.
        settings: what to serve with.
        socket: where operators connect, if not at the home's usual place.
        tenant: the embedded tenant's process, if it was started already.
        clock: what tells the time, if not the machine.

    Raises:
        AgentVaultError: it cannot start, with the remedy.
    """
    harden()
    log_json_lines()
    path = socket or home.socket
    home.prepare(path)
    process = None if settings.tenant.issuer else TenantProcess(home, tenant)
    return run_loop(_serve(home, settings, path, process, clock or SystemClock()))


@dataclass
class _Rooms:
    """What was opened, in the order it is to be closed."""

    ledger: Ledger
    broker: Broker
    feed: Feed


async def _serve(
    home: Home,
    settings: Settings,
    socket: Path,
    tenant: TenantProcess | None,
    clock: Clock,
) -> int:
    if files := chosen_files(home, settings.broker):
        server_context(files)  # now, before anything is opened
    for name, known in settings.connections.items():
        endpoints(name, known.revocation_endpoint, known.userinfo_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    ledger = await Ledger.open(home, clock=clock)
    try:
        rooms = await _open(home, settings, clock, ledger, tenant)
        try:
            await _until(stop, rooms, socket)
        finally:
            await _close(rooms)
    finally:
        if tenant is not None:
            await tenant.stop()
        await ledger.close()
    return 0


def _client_id(home: Home, settings: Settings) -> str:
    """Return the console's client: the one named, else the one provisioned."""
    tenant = settings.tenant
    return tenant.client_id or KeptClients(home, tenant.issuer).client_id("console")


def tenant_client(
    home: Home, found: Announcement, clock: Clock, *, embedded: bool
) -> TenantClient:
    """Return how operators are asked, at the tenant *found*.

    Where the tenant is ours, or `auth0 apply` set it up, the claim of our own Action
    alone says that there was a second factor, and when. Elsewhere ``amr`` must say so
    (RFC 8176 section 2). Where that cannot be known, both are required.
    """
    try:
        ours = embedded or (
            KeptClients(home, found.issuer).client_id("console") == found.client_id
        )
        stamped, amr = ours, not ours
    except SettingsError:
        stamped, amr = True, True
    return TenantClient(
        found.issuer,
        found.client_id,
        clock,
        mfa_at_required=stamped,
        amr_required=amr,
    )


async def _open(
    home: Home,
    settings: Settings,
    clock: Clock,
    ledger: Ledger,
    tenant: TenantProcess | None,
) -> _Rooms:
    policy, problem = await policy_at_start(home, ledger)
    policy.catalogue.check_connections(settings.connection_scopes)
    found = (
        await tenant.start()
        if tenant
        else Announcement(settings.tenant.issuer, _client_id(home, settings))
    )
    broker = Broker(
        home=home,
        settings=settings,
        clock=clock,
        ledger=ledger,
        policy=policy,
        policy_problem=problem,
        tenant=tenant_client(home, found, clock, embedded=tenant is not None),
        registry=Registry(clock),
        tenant_kind="embedded" if tenant else "auth0",
    )
    if found.management is not None:
        known = found.management
        secret = Secret(known.client_secret)
        broker.access.give(ClientSecret(known.client_id, secret))
    for name, at in found.providers.items():
        broker.outlook.give(name, at)
    join_accounts(broker)
    await take_over(broker)
    feed = Feed(ledger, broker.registry, lambda: status_info(broker))
    broker.on_status = feed.publish_status
    _listen_to(ledger, broker, feed)
    return _Rooms(ledger, broker, feed)


def _listen_to(ledger: Ledger, broker: Broker, feed: Feed) -> None:
    """Let consoles and memory follow what the ledger wrote, lost and found."""

    async def recovered(recovery: Recovery) -> None:
        log.warning("the ledger writes again; last batch found: %s", recovery.found)
        await recover(broker, recovery)

    ledger.on_written = feed.publish
    ledger.on_state = feed.publish_status
    ledger.on_recovered = recovered


def _spare_the_collector() -> None:
    """Let the collector leave alone what lives as long as the process.

    The working set is plain data without cycles; full collections over hundreds of
    thousands of tokens cost latency and find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


async def _until(stop: asyncio.Event, rooms: _Rooms, socket: Path) -> None:
    """Serve both faces until told to stop."""
    broker = rooms.broker
    server = Server(broker.clock)
    async with server:
        agents = await _agents_listener(server, broker)
        operators = RequestGuard(
            operators_app(broker, rooms.feed), hosts=None, shape=problem
        )
        await server.listen(operators, unix_socket(socket), shape=problem)
        await _mark(broker, EventType.BROKER_STARTED)
        _announce(agents, socket, broker)
        _spare_the_collector()
        follower = _tenant_log(broker)
        tasks = [
            asyncio.create_task(work)
            for work in (
                upkeep(broker),
                recheck(broker),
                keep_verified(broker),
                broker.outbox.run(),
                follower.run(),
            )
        ]
        try:
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rooms.feed.cut()


def _tenant_log(broker: Broker) -> TenantLog:
    async def record(drafts: Iterable[Draft], mark: Meta) -> None:
        await broker.record(*drafts, changes=[mark])

    def on_problem(problem: str | None) -> None:
        broker.log_problem = problem
        broker.on_status()

    return TenantLog(
        broker.clock,
        broker.tenant.issuer,
        broker.access,
        record,
        console=broker.tenant.client_id,
        mark=broker.kept.get(MARK, ""),
        on_problem=on_problem,
    )


async def _agents_listener(server: Server, broker: Broker) -> Listener:
    host, port = broker.settings.broker.address
    files = chosen_files(broker.home, broker.settings.broker)
    tls = ServerTls(files) if files else None
    bound, held = loopback_pair(host, port)
    port = bound.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    issuer = f"{'https' if tls else 'http'}://{shown}:{port}"
    app = RequestGuard(agents_app(broker, issuer), hosts=loopback_hosts(port, host))
    return await server.listen(app, bound, tls=tls, held=held)


async def _close(rooms: _Rooms) -> None:
    broker = rooms.broker
    flows = list(broker.stepups.flows.values())
    for task in flows:
        task.cancel()
    await asyncio.gather(*flows, return_exceptions=True)
    with contextlib.suppress(LedgerError):
        await record_missed(broker)
        await record_uses(broker, ending=True)
        await _mark(broker, EventType.BROKER_STOPPED)
    await broker.tenant.aclose()
    await broker.vault.aclose()
    await broker.providers.aclose()


async def _mark(broker: Broker, kind: EventType) -> None:
    drafts, changes = policy_record(broker)
    # A ledger that cannot write must not keep a broker with kept cuts from serving.
    await broker.record_cut(
        *drafts,
        Draft(
            kind,
            SYSTEM,
            detail={
                "version": __version__,
                "pid": os.getpid(),
                "policy_version": broker.policy.version,
                "policy_sha256": broker.policy.texts.digest(),
                "boot_id": broker.clock.boot_id,
                # From here on its absence is noticed.
                "cut_journal": broker.home.cut_journal.name,
            },
        ),
        changes=changes,
    )
    policy_is_recorded(broker, changes)


def _announce(agents: Listener, socket: Path, broker: Broker) -> None:
    line: dict[str, Any] = {
        "agents_url": agents.url,
        "operator_socket": str(socket),
        "tenant": broker.tenant.issuer,
        "pid": os.getpid(),
    }
    print(json.dumps(line), flush=True)  # noqa: T201 - the contract's first line
