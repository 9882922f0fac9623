"""Assemble the broker, serve it on its two listeners, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from agentvault_tui import __version__
from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.announce import announce
from agentvault_tui.broker.approval_pages import ApprovalPageOffers
from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.extensions import ChangePerson, DataPlane, WatchRoom
from agentvault_tui.broker.feed import Feed
from agentvault_tui.broker.follow import join_team, listen_to
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.operators_api.remote import CONNECTIONS, RemoteGuard
from agentvault_tui.broker.operators_api.streams import is_urgent
from agentvault_tui.broker.recovery import record_missed, take_over
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.settings_record import settings_record
from agentvault_tui.broker.status import status_info
from agentvault_tui.broker.stop_order import order_watch
from agentvault_tui.broker.team import while_working
from agentvault_tui.broker.tenant_process import Announcement, TenantProcess
from agentvault_tui.broker.upstream.tenant_log import MARK, TenantLog
from agentvault_tui.broker.usecases.approvals import check_rules, end_gathered_before
from agentvault_tui.broker.usecases.disconnect import join_accounts
from agentvault_tui.broker.usecases.policy_change import (
    keep_policy,
    kept_texts,
    policy_at_start,
    policy_is_recorded,
    policy_record,
    recheck,
    reload_policy,
)
from agentvault_tui.broker.usecases.revoke import revoke_ended
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.broker.usecases.timed_grants import end_due, ends_as_set_now
from agentvault_tui.broker.verification import keep_verified
from agentvault_tui.clock import Clock, SharedClock, SystemClock
from agentvault_tui.errors import LedgerError, SettingsError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import Draft, EventType
from agentvault_tui.model.ids import holder_of
from agentvault_tui.operator_api.shapes import WireShape
from agentvault_tui.process import (
    Child,
    harden,
    log_json_lines,
    notify,
    watchdog_seconds,
)
from agentvault_tui.settings import Settings
from agentvault_tui.vault import TenantClient
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provider import endpoints
from agentvault_tui.web.guard import RequestGuard, loopback_hosts
from agentvault_tui.web.local_ca import chosen_files
from agentvault_tui.web.places import Limits
from agentvault_tui.web.public import PublicAddress
from agentvault_tui.web.reply import App, problem
from agentvault_tui.web.server import Listener, Server
from agentvault_tui.web.server import run as run_loop
from agentvault_tui.web.sockets import loopback_pair, public_socket, unix_socket
from agentvault_tui.web.tls import ServerTls, server_context

log = logging.getLogger("agentvault.serve")
Tell = Callable[[str, Callable[[], WireShape]], None]
"""Sends events that are in no ledger to the listening consoles."""

_BODY_CAP: Final = 4_194_304
"""Of operators' requests, so that one may hold a policy of the largest size."""
_TICK: Final = 0.5
_ENDS: Final = 0.2
"""Seconds between two looks for agents whose time is over."""
_FILES: Final = 0.2
"""Seconds between two looks at a team's files: edits hold for all within a second."""
_LATE: Final = 0.6
_PULSE: Final = 10.0
"""Seconds between an answer of the tenant and the next question."""
_SWEEP_EVERY: Final = 60
_JUMP: Final = 2.0
"""Seconds the wall clock may move against the boot clock between two looks."""


async def upkeep(broker: Broker) -> None:
    """Look after the broker until cancelled; no fault of one look ends the next."""
    # Of a team's brokers one comes first, and the others follow before their turn.
    late = random.uniform(0.0, _LATE) if broker.settings.store.url else 0.0  # noqa: S311
    works = [
        _repeat("upkeep", _looking(broker), _TICK),
        _repeat("ending agents", partial(revoke_ended, broker, late), _ENDS),
        _repeat("looking for an order to stop", order_watch(broker), _ENDS),
        _repeat("asking the tenant", _probing(broker), _PULSE),
    ]
    if broker.team.files is not None:
        works.append(_repeat("comparing files", broker.team.files.look, _FILES))
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


async def _repeat(
    what: str, work: Callable[[], Awaitable[object]], pause: float
) -> None:
    while True:
        try:
            await work()
        except LedgerError as error:
            log.warning("%s waits for the ledger: %s", what, error.what)
        except Exception:
            log.exception("%s failed", what)
        await asyncio.sleep(pause)


def _looking(broker: Broker) -> Callable[[], Awaitable[None]]:
    looks, drift = itertools.count(), _drift(broker)
    registry = broker.registry

    async def look() -> None:
        """Do the due work; now and then sweep expired entries out of memory."""
        nonlocal drift
        swept = next(looks) % _SWEEP_EVERY == 0
        drift = await _clock(broker, drift)
        await expire_due(broker)
        await reload_policy(broker)
        for chore in broker.extensions.chores:
            await chore()
        if swept:
            broker.deciding.limits.sweep()
        for _ in registry.sweep() if swept else registry.forget_cut():
            await asyncio.sleep(0)
        # What needs the ledger comes last: while it cannot write, the rest goes on.
        show_repeated(broker)
        await _floods(broker)
        await broker.recording.uses.record()
        missed = broker.recording.cuts.unfinished or broker.admitting.replays.unsaved
        if missed and broker.ledger.takes_cuts:
            await record_missed(broker)
        await keep_policy(broker)

    return look


def _probing(broker: Broker) -> Callable[[], Awaitable[None]]:
    answers: bool | None = None

    async def probe() -> None:
        nonlocal answers
        answers = await probe_tenant(broker, answers)

    return probe


async def probe_tenant(broker: Broker, before: bool | None) -> bool:
    """Ask the tenant how it is; record it when that is not as *before*."""
    answers = await broker.reaching.tenant.probe()
    if answers == before:
        return answers
    broker.health.changed()
    if answers and before is None:
        return answers  # at our start: nothing to tell
    kind = EventType.TENANT_BACK if answers else EventType.TENANT_AWAY
    reason = (
        "the tenant answers again"
        if answers
        else "the tenant does not answer: nothing that needs a person is granted"
    )
    detail = {"issuer": broker.reaching.tenant.issuer}
    await broker.record_cut(Draft(kind, SYSTEM, reason=reason, detail=detail))
    return answers


async def _floods(broker: Broker) -> None:
    """Record which agents flood, and how often each was refused."""
    admitting = broker.admitting
    for requester, count in admitting.floods.due():
        text = f"refused {count} times: answered 429 until it pauses"
        later = admitting.floods.tell_later
        await _record_flood(broker, requester, count, text, later)
    for requester, count, rate in admitting.rates.due():
        text = f"permitted {rate} times a second: answered 429 {count} times more"
        later = admitting.rates.notice_later
        await _record_flood(broker, requester, count, text, later)


async def _record_flood(
    broker: Broker,
    requester: str,
    count: int,
    text: str,
    later: Callable[[str, int], None],
) -> None:
    agent_id = holder_of(requester)
    chain = {} if requester == agent_id else {"chain": requester}
    draft = Draft(
        EventType.AGENT_FLOODING,
        SYSTEM,
        agent_id=agent_id,
        reason=text,
        detail={"count": count} | chain,
    )
    try:
        await broker.record(draft)
    except LedgerError:
        later(requester, count)
        raise


def _drift(broker: Broker) -> float:
    return broker.clock.now().timestamp() - broker.clock.boot()


async def _clock(broker: Broker, before: float) -> float:
    """Record a jump of the wall clock.

    A passed deadline stays passed, also when the clock is set back: in memory now, and
    at any later start by this event.
    """
    now = _drift(broker)
    if abs(now - before) > _JUMP:
        broker.registry.end_expired()
        ending = broker.registry.lifetimes.as_set_now()
        for agent in ending:
            broker.registry.put_agent(agent)
        await broker.record_cut(
            Draft(
                EventType.CLOCK_JUMP,
                SYSTEM,
                reason=f"the wall clock moved by {now - before:+.1f} s",
                detail={"seconds": str(round(now - before, 3))},
            ),
            changes=[*ending, *ends_as_set_now(broker)],
        )
    return now


def show_repeated(broker: Broker) -> None:
    """Show consoles the step-ups that were asked for again since the last time."""
    if repeated := broker.stepups.take_repeated():
        broker.ledger.listeners.announce_commit((), repeated)


def run(
    home: Home,
    settings: Settings,
    *,
    socket: Path | None = None,
    tenant: Child | None = None,
    clock: Clock | None = None,
    again: bool = False,
    notices: Sequence[str] = (),
    gateway: Callable[[Broker, Tell], DataPlane] | None = None,
    watch: Callable[[Broker], WatchRoom] | None = None,
    change_person: ChangePerson | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; print one JSON line on stdout when ready.

    Args:
        home: the vault's folders.
        settings: the settings.
        socket: where operators connect, if not at the home's usual place.
        tenant: the embedded tenant's process, if it was started already.
        clock: the clock, if not the machine's.
        again: whether to use a store that was copied elsewhere.
        notices: warnings for the log.
        gateway: makes the data plane; without one the broker only issues tokens.
        watch: makes the reader of the ledger for alerts and exports.
        change_person: see `Extensions.change_person`.

    Returns:
        the exit code.

    Raises:
        AgentVaultError: it cannot start, with the remedy.
    """
    harden()
    log_json_lines()
    for notice in notices:
        log.warning("%s", notice)
    path = socket or home.socket
    home.prepare(path)
    process = None if settings.tenant.issuer else TenantProcess(home, tenant)
    clock = clock or SystemClock()
    if settings.store.url:
        clock = SharedClock(clock)
    composed = _serve(
        *(home, settings, path, process, clock),
        again=again,
        gateway=gateway,
        watch=watch,
        change_person=change_person,
    )
    return run_loop(composed)


async def _serve(
    home: Home,
    settings: Settings,
    socket: Path,
    tenant: TenantProcess | None,
    clock: Clock,
    *,
    again: bool,
    gateway: Callable[[Broker, Tell], DataPlane] | None,
    watch: Callable[[Broker], WatchRoom] | None,
    change_person: ChangePerson | None,
) -> int:
    if files := chosen_files(home, settings.broker):
        server_context(files)  # now, before anything is opened
    _check_public(home, settings, clock)
    for name, connection in settings.connections.items():
        endpoints(name, connection.revocation_endpoint, connection.userinfo_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    ledger = await Ledger.open(home, clock=clock, settings=settings, again=again)
    try:
        broker, feed = await _open(home, settings, clock, ledger, tenant)
        try:
            broker.extensions.change_person = change_person
            if gateway is not None:
                broker.extensions.gateway = gateway(broker, feed.tell)
            if watch is not None:
                broker.extensions.watch = watch(broker)
            for extension in broker.extensions.rooms:
                await extension.start()
                broker.extensions.chores.append(extension.look)
            await _until(stop, broker, feed, socket)
        finally:
            await _close(broker)
        if broker.team.brokers.replaced:
            return 1
    finally:
        if tenant is not None:
            await tenant.stop()
        await ledger.close()
    return 0


def _check_public(home: Home, settings: Settings, clock: Clock) -> None:
    """Check that listeners for other machines can be served."""
    phones = PublicAddress.of(home, settings.tenant)
    operators = PublicAddress.of(home, settings.operators)
    for public in (phones, operators):
        if public is not None:
            public.tls(clock)
    if operators and not (phones or settings.tenant.issuer):
        raise SettingsError(
            "operators.listen needs a tenant that other machines reach",
            "give [tenant] listen and url, or another issuer",
        )


def _client_id(home: Home, settings: Settings) -> str:
    tenant = settings.tenant
    return tenant.client_id or ClientSecretsFile(home, tenant.issuer).client_id(
        "console"
    )


def tenant_client(
    home: Home, announcement: Announcement, clock: Clock, *, embedded: bool
) -> TenantClient:
    """Return how operators are asked, at the tenant *found*.

    Where the tenant is ours, or `auth0 apply` set it up, the claim of our own Action
    alone says that there was a second factor, and when. Elsewhere ``amr`` must say so
    (RFC 8176 section 2). Where that cannot be known, both are required.
    """
    try:
        ours = embedded or (
            ClientSecretsFile(home, announcement.issuer).client_id("console")
            == announcement.client_id
        )
        stamped, amr = ours, not ours
    except SettingsError:
        stamped, amr = True, True
    return TenantClient(
        announcement.issuer,
        announcement.client_id,
        clock,
        mfa_at_required=stamped,
        amr_required=amr,
        local=announcement.local,
    )


async def _open(
    home: Home,
    settings: Settings,
    clock: Clock,
    ledger: Ledger,
    tenant: TenantProcess | None,
) -> tuple[Broker, Feed]:
    policy, problem = await policy_at_start(home, ledger)
    policy.catalogue.check_connections(settings.connection_scopes)
    announcement = (
        await tenant.start(ledger)
        if tenant
        else Announcement(settings.tenant.issuer, _client_id(home, settings))
    )
    broker = Broker(
        home=home,
        settings=settings,
        clock=clock,
        ledger=ledger,
        policy=policy,
        tenant=tenant_client(home, announcement, clock, embedded=tenant is not None),
        registry=Registry(clock),
        tenant_kind="embedded" if tenant else "auth0",
        problem=problem,
    )
    broker.reaching.access.given = announcement.management
    for name, at in announcement.providers.items():
        broker.reaching.outlook.give(name, at)
    if ledger.shared is not None:
        await join_team(broker, ledger.shared, tenant)
    join_accounts(broker)
    broker.extensions.chores.append(partial(end_due, broker))
    check_rules(broker)
    feed = Feed(ledger, broker.registry, lambda: status_info(broker))
    broker.health.listeners.append(feed.publish_status)
    await take_over(broker, lambda: listen_to(ledger, broker, feed))
    await end_gathered_before(broker)
    await order_watch(broker)()
    return broker, feed


def freeze_objects() -> None:
    """Freeze the process's lasting objects: collecting them costs latency."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


async def _until(stop: asyncio.Event, broker: Broker, feed: Feed, socket: Path) -> None:
    server = Server(broker.clock)
    async with server:
        agents = await _agents_listener(server, broker)
        sessions = Sessions(broker)
        api = operators_app(broker, feed, sessions)
        operators = RequestGuard(api, hosts=None, shape=problem, body_cap=_BODY_CAP)
        await server.listen(
            operators, unix_socket(socket), shape=problem, urgent=is_urgent
        )
        more = await _operators_elsewhere(server, broker, sessions, api)
        for extension in broker.extensions.rooms:
            more |= await extension.listen(server, agents)
        await _record_start_or_stop(broker, EventType.BROKER_STARTED)
        announce(broker, agents.url, socket, more)
        notify("READY=1")
        freeze_objects()
        tasks = [
            asyncio.create_task(work)
            for work in (
                _beat_watchdog(),
                upkeep(broker),
                recheck(broker),
                keep_verified(broker),
                while_working(broker.team.brokers.works, broker.reaching.outbox.run),
                while_working(
                    broker.team.brokers.works, lambda: _tenant_log(broker).run()
                ),
                broker.team.brokers.run(stop.set),
                ApprovalPageOffers(broker).run(),
            )
        ]
        try:
            await stop.wait()
            notify("STOPPING=1")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            feed.cut()


async def _operators_elsewhere(
    server: Server, broker: Broker, sessions: Sessions, api: App
) -> dict[str, object]:
    """Listen for operators on other machines, where a setting says so."""
    public = PublicAddress.of(broker.home, broker.settings.operators)
    if public is None:
        return {}
    host = public.url.removeprefix("https://").removesuffix("/").encode()
    guarded = RequestGuard(
        api, hosts=frozenset({host}), shape=problem, body_cap=_BODY_CAP
    )
    await server.listen(
        # Before anything reads a body: a stranger's is never kept.
        RemoteGuard(guarded, broker, sessions, public.url),
        public_socket(public.address, public.port),
        limits=Limits(connections=CONNECTIONS),
        urgent=is_urgent,
        shape=problem,
        tls=public.tls(broker.clock),
    )
    return {"operators_url": public.url}


async def _beat_watchdog() -> None:
    """Notify the service manager twice in its time limit that the event loop turns."""
    while (limit := watchdog_seconds()) is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(limit / 2)


def _tenant_log(broker: Broker) -> TenantLog:
    tenant, access = broker.reaching.tenant, broker.reaching.access
    return TenantLog(
        *(broker.clock, tenant.issuer, access, broker.record),
        console=lambda: tenant.client_id,
        mark=broker.recording.meta.get(MARK, ""),
        on_problem=broker.health.report_log,
    )


async def _agents_listener(server: Server, broker: Broker) -> Listener:
    host, port = broker.settings.broker.address
    files = chosen_files(broker.home, broker.settings.broker)
    tls = ServerTls(files) if files else None
    bound, held = loopback_pair(host, port)
    port = bound.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    issuer = f"{'https' if tls else 'http'}://{shown}:{port}"
    gateway = broker.extensions.gateway
    streaming = gateway.streaming_apps() if gateway else {}
    app = RequestGuard(
        AgentsApi(broker, issuer),
        hosts=loopback_hosts(port, host),
        streaming=streaming,
    )
    limits = Limits(streamed=tuple(streaming))
    return await server.listen(app, bound, limits=limits, tls=tls, held=held)


async def _close(broker: Broker) -> None:
    for extension in broker.extensions.rooms:
        await extension.aclose()
    flows = [f.task for own in broker.stepups.flows.values() for f in own.values()]
    for task in flows:
        task.cancel()
    await asyncio.gather(*flows, return_exceptions=True)
    with contextlib.suppress(LedgerError):
        await record_missed(broker)
        await broker.recording.uses.record(ending=True)
        await _record_start_or_stop(broker, EventType.BROKER_STOPPED)
        await broker.team.brokers.leave()
    broker.deciding.callouts.aclose()
    await broker.reaching.aclose()


async def _record_start_or_stop(broker: Broker, kind: EventType) -> None:
    drafts, changes = policy_record(broker)
    if kind is EventType.BROKER_STARTED:
        record, rows = settings_record(broker)
        drafts, changes = [*drafts, *record], [*changes, *rows]
    texts, named = kept_texts(broker.deciding.policy)
    # A ledger that cannot write must not keep a broker with kept cuts from serving.
    await broker.record_cut(
        *drafts,
        Draft(
            kind,
            SYSTEM,
            detail={
                "version": __version__,
                "pid": os.getpid(),
                "policy_version": broker.deciding.policy.version,
                **named,
                "boot_id": broker.clock.boot_id,
                # From here on its absence is noticed.
                "cut_journal": broker.home.cut_journal.name,
            },
        ),
        changes=[*changes, *texts],
    )
    policy_is_recorded(broker, changes)
