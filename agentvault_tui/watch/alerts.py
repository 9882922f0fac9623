"""Alerts and exports of one broker: ``alerts.toml`` in force, and a follower a sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.authorities import named_files, read_source, render_source
from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.broker.policy_files import read_text
from agentvault_tui.broker.riders import riding, text_change
from agentvault_tui.broker.secret_uses import OpenSecret, SecretUse
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.team_authorities import TeamAuthorities
from agentvault_tui.broker.team_files import Loosens, file_draft
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerError,
    NotFoundError,
    PolicyError,
    SealedError,
    ServiceError,
)
from agentvault_tui.home import file_stamp
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, ActorKind, Event, EventType, sha256_hex
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.alerts import (
    AlertList,
    AlertSentInfo,
    DeadAlertInfo,
    RetryAlertRequest,
    SinkInfo,
    TestSinkRequest,
)
from agentvault_tui.watch.alert_followers import (
    DeadAlert,
)
from agentvault_tui.watch.config import (
    LEDGER_FAULT,
    AlertsFile,
    parse_alerts,
    sink_uses,
)
from agentvault_tui.watch.destinations import Destinations, dead_draft
from agentvault_tui.watch.exporters import EXPORTERS, Exporter
from agentvault_tui.watch.messages import (
    fault_message,
    trial_message,
)
from agentvault_tui.watch.outbox import (
    HeldAlerts,
)
from agentvault_tui.watch.senders import SENDERS, Sender, SinkError

log = logging.getLogger("agentvault.alerts")

RECORDED_FILE: Final = "alerts_file"
"""The key of the stored active text: a start with a broken file uses it."""
_DEAD: Final = "alert_dead:"
_EDIT: Final = "EDIT alerts"
"""Names the function that carries an approved edit of the file out."""
_BY_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")


class Alerts:
    """The content of ``alerts.toml``, carried out."""

    def __init__(self, broker: Broker, secret: OpenSecret) -> None:
        """Read nothing yet; *secret* opens a sealed one by its name."""
        self.broker = broker
        self.problem: str | None = None
        """Why the present file is not in effect, if so."""
        self.file = AlertsFile()
        self.destinations = Destinations(broker, secret, self._bury)
        self._authorities = TeamAuthorities(broker, "alerts")
        self._seen: tuple[object, ...] | None = None
        self._named: tuple[Path, ...] = ()
        """Each ``ca_file`` that the file names."""
        self._replacing: Sequence[Meta] = ()
        """The rows of an edit that is to be recorded."""
        self._dead: dict[str, DeadAlert] = {}
        self._fault: str | None = None
        self._looking = asyncio.Lock()
        self._approved: set[str] = set()
        """An edited text while its approved change is carried out."""
        self._path = broker.home.alerts_file
        broker.extensions.states[_EDIT], broker.extensions.carriers[_EDIT] = (
            self._now,
            self._carry,
        )
        if broker.team.files is not None:
            broker.team.files.copies.track(self._path.name, self._path, self._check)
            broker.team.files.in_force.append(
                lambda: [(self._path.name, self.file.sha256)]
            )
            broker.team.files.judges[self._path.name] = self._judge
            broker.team.files.replacing[self._path.name] = self._replace

    def _check(self, _: str, text: str) -> None:
        parse_alerts(text, self.broker.home)

    def _stamp(self) -> tuple[object, ...]:
        """Return a value that differs once the file, or a ``ca_file``, was changed."""
        files = self.broker.team.files
        own = files.text(self._path.name) if files else file_stamp(self._path)
        return own, *map(file_stamp, self._named)

    def _source(self) -> str:
        """Read the file, with each ``ca_file`` that it names (`authorities`)."""
        base = self.broker.home.config
        if self.broker.team.files is not None:
            text = self.broker.team.files.text(self._path.name) or ""
        else:
            text = read_text(self._path, base) or ""
        self._named = tuple(named_files(text, base).values())
        return read_source(text, base)

    @property
    def warnings(self) -> list[str]:
        """Warn of the file's inactive parts, and of failing sinks."""
        problems = []
        if self.problem:
            now = (
                "the one before" if self.broker.team.files is None else "nothing of it"
            )
            problems.append(
                f"alerts.toml cannot be put in force, {now} is: {self.problem}"
            )
        return problems + [
            f"Alerts do not reach {_shown(key)}: {problem}"
            for key in self.destinations
            if (problem := self.destinations.problem_of(key))
        ]

    def committed(self, events: Sequence[Event]) -> None:
        """Take events that have just become durable; see `WatchRoom.committed`."""
        edited = any(map(self._is_own, events))
        if edited:
            self._take(self._replacing)  # before a follower sees the event
        # After an edit others work for a destination: none is to begin now, and be
        # stopped while it sends.
        self.destinations.committed(events, wake=not edited)

    def _is_own(self, event: Event) -> bool:
        """Check whether an event records an edit of the file."""
        edited = event.type is EventType.SERVICE_CHANGED
        return edited and event.resource == self._path.name

    def _take(self, rows: Sequence[Meta]) -> None:
        """Note the rows of replaced destinations, which are recorded now."""
        self.broker.recording.meta.update({one.key: str(one.value) for one in rows})
        self._replacing = ()
        self.destinations.replaced.load()

    def name_uses(self, name: str) -> Iterator[str]:
        """Yield the file if a route of it names an agent so, and not by its id."""
        if any(name in route.agents for route in self.file.routes):
            yield self._path.name

    def secret_uses(self) -> Iterator[SecretUse]:
        """Return which sinks name secrets, from the file itself before `start`."""
        file, text = self.file, self.broker.recording.meta.get(RECORDED_FILE, "{}")
        if self._seen is None:
            with contextlib.suppress(PolicyError, ServiceError):
                file = parse_alerts(json.loads(text).get("text", ""), self.broker.home)
                file = parse_alerts(self._source(), self.broker.home)
        return sink_uses(file)

    async def start(self) -> None:
        """Put the file in effect, and go on where the last process stopped.

        Raises:
            ServiceError: it is broken, and none was in effect before.
        """
        for key, text in self.broker.recording.meta.items():
            if key.startswith(_DEAD):
                dead = msgspec.json.decode(text, type=DeadAlert)
                self._dead[dead.id] = dead
        self.broker.health.alerts_dead = len(self._dead)
        record = json.loads(self.broker.recording.meta.get(RECORDED_FILE, "{}"))
        await self.broker.team.look_at_files()
        self._seen = self._stamp()
        try:
            await self._put_in_force()
        except ServiceError as error:
            self.problem = error.diagnosis()
            if self.broker.team.files is None:
                if not record.get("text"):
                    what = f"{self._path}: {error.what}"
                    raise ServiceError(what, error.remedy) from None
                self.file = parse_alerts(record["text"], self.broker.home)
        await self.destinations.follow(self.file)

    async def look(self) -> None:
        """Activate a changed file, report ledger faults, and wake the followers."""
        async with self._looking:  # a test of a sink looks too, beside upkeep
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                try:
                    await self._put_in_force()
                    self.problem = None
                except ServiceError as error:
                    self.problem = error.diagnosis()
                    log.warning("alerts.toml: %s", self.problem)
                await self.destinations.follow(self.file)
                self.broker.health.changed()
            await self.destinations.settle()
        self._look_at_ledger()
        self.destinations.wake()

    def _look_at_ledger(self) -> None:
        """Report a fault that no event can report now."""
        ledger = self.broker.ledger
        fault = None if ledger.writable else ledger.problem or "it cannot be written"
        before, self._fault = self._fault, fault
        if fault is None or before is not None:
            return  # told once a fault, however its words change
        for name, caller in self.destinations.callers.items():
            if any(LEDGER_FAULT in one.events for one in caller.routes):
                caller.tell(fault_message(self.broker, name, fault))

    async def _put_in_force(self) -> None:
        """Read the file, and record that it is another.

        Raises:
            ServiceError: it is broken.
        """
        if self.broker.team.files is not None:
            await self._put_teams_file_in_force()
        else:
            await self._put_own_file_in_force()

    async def _put_own_file_in_force(self) -> None:
        """Read the home directory's file, and record an edit; see `_put_in_force`."""
        try:
            text = self._source()
        except PolicyError as error:
            raise ServiceError(error.what, error.remedy) from None
        record = json.loads(self.broker.recording.meta.get(RECORDED_FILE, "{}"))
        recorded, sha256 = record.get("text", ""), sha256_hex(text) if text else None
        edited, was = parse_alerts(text, self.broker.home), self._parsed(recorded)
        if recorded == text:
            self.file = edited
            return
        loses, rider = was is None or edited.lacks(was), riding()
        if loses:
            self.file = was or self.file
            if await self._has_to_wait(recorded, text):
                return
        elif rider is None:
            self.file = edited
        # Any other edit is in effect once it is on record, with its proof.
        actor = rider.actor if rider else SYSTEM
        digests = record.get("sha256"), sha256
        draft = file_draft(self._path.name, *digests, actor, opens=loses)
        if not loses:
            draft.detail.pop(LOOSENED, None)
        rows = self.destinations.replaced.changes(was or AlertsFile(), edited)
        row = Meta(RECORDED_FILE, json.dumps({"sha256": sha256, "text": text}))
        self._replacing = row, *rows
        try:
            await self.broker.record(draft, changes=self._replacing)
        except LedgerError as error:
            self._seen, self._replacing = None, ()  # recorded with a later look
            if rider is not None:
                raise
            log.warning("a changed alerts.toml is recorded later: %s", error.what)
        else:
            self._take(self._replacing)
            self.file = edited

    async def _put_teams_file_in_force(self) -> None:
        """Read a team's file, which is recorded, and record another ``ca_file``.

        Raises:
            ServiceError: it is broken.
        """
        before, self.file = self.file, AlertsFile()
        source = self._source()
        self.file = parse_alerts(source, self.broker.home)
        same_text = before.sha256 == self.file.sha256
        works = same_text and self.broker.team.brokers.works()
        rows = self.destinations.replaced.changes(before, self.file) if works else ()
        await self._authorities.look({self._path.name: source})
        if rows:
            with contextlib.suppress(LedgerError):
                await self.broker.record(changes=rows)
            self._take(rows)

    def _parsed(self, text: str) -> AlertsFile | None:
        """Return an earlier text's content; None if this version does not read it."""
        try:
            return parse_alerts(text, self.broker.home)
        except ServiceError:
            return None

    def _replace(self, before: str | None, after: str | None) -> Sequence[Meta]:
        """Return the rows that an edit of a team's file is recorded with."""
        was, edited = self._parsed(before or ""), self._parsed(after or "")
        self._replacing = ()
        if was is not None and edited is not None:
            self._replacing = self.destinations.replaced.changes(was, edited)
        return self._replacing

    def _judge(self, _: str, before: str | None, after: str | None) -> Loosens | None:
        """Judge an edit of a team's file."""
        edited = parse_alerts(after or "", self.broker.home)
        was = self._parsed(before or "")
        return Loosens(("alerts",)) if was is None or edited.lacks(was) else None

    async def _has_to_wait(self, before: str, text: str) -> bool:
        """Check whether an edit that takes routes away needs an approver's factor."""
        broker, name = self.broker, self._path.name
        if text in self._approved or not await asks_factor(broker):
            return False
        wanted = Wanted(
            ("alerts",),
            f"edited on the broker's machine: {name}",
            name,
            (_EDIT,),
            (text_change(name, render_source(before), render_source(text)),),
        )
        request = {"path": {}, "body": {"text": text}}
        try:
            await ask(broker, _EDIT, request, wanted, Asker(_BY_FILE, _BY_FILE))
        except AgentVaultError as error:
            self._seen = None  # the next look asks again
            log.warning("an edit of alerts.toml waits: %s", error.what)
        return True

    async def _carry(self, request: Mapping[str, Any], _: Actor) -> bytes:
        """Put an approved edit in effect, as it is on the disk."""
        text = str(request["body"]["text"])
        self._approved.add(text)
        self._seen = None
        try:
            await self.look()
        finally:
            # Once: a text that is replaced and comes back is another change.
            self._approved.discard(text)
        return b"{}"

    def _now(self, _: str) -> str:
        """Identify the file's state: as recorded, and as it is on disk."""
        return f"{self.broker.recording.meta.get(RECORDED_FILE)} {self._source()}"

    async def _bury(self, dead: DeadAlert) -> None:
        """Record that an alert is given up, and store it to be sent by hand.

        Raises:
            LedgerError: that cannot be recorded now.
        """
        text = msgspec.json.encode(dead).decode()
        row = Meta(f"{_DEAD}{dead.id}", text)
        await self.broker.record(dead_draft(dead), changes=[row])
        self._dead[dead.id] = dead
        self._count_dead()

    def _count_dead(self) -> None:
        self.broker.health.alerts_dead = len(self._dead)
        self.broker.health.changed()

    async def aclose(self) -> None:
        """Stop all work, and store its place."""
        await self.destinations.aclose()

    async def try_sink(self, name: str) -> AlertSentInfo:
        """Send a test to a sink, now and once.

        Raises:
            NotFoundError: there is no such sink.
            SealedError: the key that opens its secrets is not here.
        """
        sink = self.file.sinks.get(name)
        if sink is None:
            names = ", ".join(self.file.sinks) or "none is in alerts.toml"
            raise NotFoundError(f"there is no sink {name}", f"known: {names}")
        outlet: Sender | Exporter
        if sink.exports:
            outlet = EXPORTERS[sink.kind](*self.destinations.reached(sink))
            sends = outlet.export(())
        else:
            outlet = SENDERS[sink.kind](*self.destinations.reached(sink))
            sends = outlet.send(trial_message(self.broker, name))
        try:
            return await self._sent(name, sends)
        finally:
            await outlet.aclose()

    async def _sent(self, sink: str, sends: Coroutine[Any, Any, None]) -> AlertSentInfo:
        """Send something once; return how that went."""
        began, problem = self.broker.clock.boot(), None
        try:
            await sends
        except SinkError as error:
            if isinstance(error.__cause__, SealedError):
                raise error.__cause__ from None
            problem = str(error)
        ms = (self.broker.clock.boot() - began) * 1000
        return AlertSentInfo(
            sink=sink, ok=problem is None, ms=round(ms, 1), problem=problem
        )

    async def retry(self, alert_id: str) -> AlertSentInfo:
        """Send an alert that was given up, now and once.

        Raises:
            NotFoundError: there is no such alert, or its sink is gone.
            SealedError: the key that opens the sink's secrets is not here.
            LedgerError: it was sent, and that cannot be recorded now.
        """
        dead = self._dead.get(alert_id)
        if dead is None:
            raise NotFoundError(
                "no alert of that id was given up", "agentvault alerts dead"
            )
        follower = self.destinations.callers.get(dead.sink)
        if follower is None:
            raise NotFoundError(
                f"the sink {dead.sink} is not in alerts.toml any more", "put it back"
            )
        count = max(len(dead.entries), 1)
        held = HeldAlerts(dead.at, dead.at, dead.details, count, list(dead.entries))
        message = await follower.rebuild(held, requested=True)
        if message is None:
            notice = f"{dead.title}: {dead.problem}"
            message = fault_message(self.broker, dead.sink, notice)
        sent = await self._sent(dead.sink, follower.outlet.send(message))
        if sent.ok:
            key = f"{_DEAD}{alert_id}"
            await self.broker.record(changes=[Meta(key, None)])
            self.broker.recording.meta.pop(key, None)
            self._dead.pop(alert_id, None)
            self._count_dead()
        return sent

    def listing(self) -> AlertList:
        """Return the sinks and the alerts given up."""
        dead = sorted(self._dead.values(), key=lambda one: one.died_at)
        return AlertList(
            sinks=tuple(self._sink_info(key) for key in sorted(self.destinations)),
            dead=tuple(
                DeadAlertInfo(
                    id=one.id,
                    sink=one.sink,
                    kind=one.kind,
                    title=one.title,
                    events=tuple(seq for _, seq in one.entries),
                    at=iso(one.at),
                    died_at=iso(one.died_at),
                    problem=one.problem,
                )
                for one in dead
            ),
        )

    def _sink_info(self, key: str) -> SinkInfo:
        every = self.destinations.followers(key)
        follower = every[-1]
        events = [word for one in follower.routes for word in one.events]
        tries = [one.next_at for one in every if one.next_at is not None]
        sent = [one.sent_at for one in every if one.sent_at is not None]
        return SinkInfo(
            name=_shown(key),
            kind=follower.outlet.sink.kind,
            events=() if follower.place.exports else tuple(dict.fromkeys(events)),
            seq=follower.place.seq,
            behind=max(follower.head - follower.place.seq, 0),
            held=sum(one.count for one in follower.place.held.values()),
            dead=sum(one.sink == key for one in self._dead.values()),
            problem=self.destinations.problem_of(key),
            next_at=iso(min(tries)) if tries else None,
            sent_at=iso(max(sent)) if sent else None,
        )

    def routes(self, authority: Authority) -> list[Route]:
        """Return the operators' routes about alerts."""

        async def listing(_: Request) -> AlertList:
            return self.listing()

        async def attempt(request: Request) -> AlertSentInfo:
            body = await body_of(request, TestSinkRequest)
            about = f"sink {body.sink}"
            await authority.actor(operator_of(request), Need.REVOKE, about)
            await self.broker.team.look_at_files()
            await self.look()  # the file may have been written just now
            return await self.try_sink(body.sink)

        async def again(request: Request) -> AlertSentInfo:
            body = await body_of(request, RetryAlertRequest)
            about = f"alert {body.id}"
            await authority.actor(operator_of(request), Need.REVOKE, about)
            return await self.retry(body.id)

        return [
            route(calls.ALERTS, listing),
            route(calls.TEST_SINK, attempt),
            route(calls.RETRY_ALERT, again),
        ]


def _shown(key: str) -> str:
    """Name a destination by its key in `Destinations`."""
    name, _, replaced = key.partition("!")
    return f"{name} (replaced)" if replaced else name
