"""Alerts and exports of one broker: ``alerts.toml`` in force, and a follower a sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

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
from agentvault_tui.broker.team import while_working
from agentvault_tui.broker.team_authorities import TeamAuthorities
from agentvault_tui.broker.team_files import Loosens, file_draft
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.clock import Clock, iso
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
from agentvault_tui.model import Actor, ActorKind, Draft, Event, EventType, sha256_hex
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
    AlertFollower,
    CallsFollower,
    DeadAlert,
    HighRiskFollower,
)
from agentvault_tui.watch.chain import Chain
from agentvault_tui.watch.config import (
    LEDGER_FAULT,
    AlertsFile,
    SinkTable,
    parse_alerts,
    sink_uses,
)
from agentvault_tui.watch.exporters import EXPORTERS, Exporter
from agentvault_tui.watch.messages import (
    calls_people,
    fault_message,
    trial_message,
)
from agentvault_tui.watch.outbox import (
    PLACE,
    ExportFollower,
    Follower,
    HeldAlerts,
    KeptPlace,
    SinkPlace,
)
from agentvault_tui.watch.senders import SENDERS, Sender, SinkError

log = logging.getLogger("agentvault.alerts")

RECORDED_FILE: Final = "alerts_file"
"""The key of the stored active text: a start with a broken file uses it."""
_DEAD: Final = "alert_dead:"
_EDIT: Final = "EDIT alerts"
"""Names the function that carries an approved edit of the file out."""
_BY_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")
_Lane = TypeVar("_Lane", bound=AlertFollower)


class Alerts:
    """The content of ``alerts.toml``, carried out."""

    def __init__(self, broker: Broker, secret: OpenSecret) -> None:
        """Read nothing yet; *secret* opens a sealed one by its name."""
        self.broker = broker
        self.problem: str | None = None
        """Why the present file is not in effect, if so."""
        self.file = AlertsFile()
        self._secret = secret
        self._chain = Chain(broker)
        self._authorities = TeamAuthorities(broker, "alerts")
        self._seen: tuple[object, ...] | None = None
        self._named: tuple[Path, ...] = ()
        """Each ``ca_file`` that the file names."""
        self._followers: dict[str, Follower[Any]] = {}
        """By the sink's name; alerts that go ahead of others have separate places."""
        self._callers: dict[str, CallsFollower] = {}
        self._high: dict[str, HighRiskFollower] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
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
            f"Alerts do not reach {name}: {problem}"
            for name in self._followers
            if (problem := self._problem_of(name))
        ]

    def _all_of(self, sink: str) -> list[Follower[Any]]:
        """Return the followers of a sink, the one that calls people first."""
        ahead = (self._callers.get(sink), self._high.get(sink))
        return [*(one for one in ahead if one), self._followers[sink]]

    def _problem_of(self, sink: str) -> str | None:
        tried = (one.problem for one in self._all_of(sink) if one.problem)
        # A secret that is missing is known before the first alert needs it.
        return next(tried, None) or self._followers[sink].outlet.secret_problem()

    def committed(self, events: Sequence[Event]) -> None:
        """Take events that have just become durable; see `WatchRoom.committed`."""
        if self._followers:
            self._chain.take(events)
        if self._callers and any(calls_people(self.broker, one) for one in events):
            for ahead in (*self._callers.values(), *self._high.values()):
                ahead.wake()

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
        await self._follow()

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
                await self._follow()
                self.broker.health.changed()
        self._look_at_ledger()
        for name in self._followers:
            for follower in self._all_of(name):
                follower.wake()

    def _look_at_ledger(self) -> None:
        """Report a fault that no event can report now."""
        ledger = self.broker.ledger
        fault = None if ledger.writable else ledger.problem or "it cannot be written"
        before, self._fault = self._fault, fault
        if fault is None or before is not None:
            return  # told once a fault, however its words change
        for name, caller in self._callers.items():
            if any(LEDGER_FAULT in one.events for one in caller.routes):
                caller.tell(fault_message(self.broker, name, fault))

    async def _put_in_force(self) -> None:
        """Read the file, and record that it is another.

        Raises:
            ServiceError: it is broken.
        """
        if self.broker.team.files is not None:
            # Whoever changed it has recorded it.
            self.file = AlertsFile()  # the one before is in force nowhere else
            source = self._source()
            self.file = parse_alerts(source, self.broker.home)
            await self._authorities.look({self._path.name: source})
            return
        try:
            text = self._source()
        except PolicyError as error:
            raise ServiceError(error.what, error.remedy) from None
        record = json.loads(self.broker.recording.meta.get(RECORDED_FILE, "{}"))
        before, after = record.get("text", ""), sha256_hex(text) if text else None
        edited = parse_alerts(text, self.broker.home)
        loses = self._loses(before, edited)
        if loses and await self._has_to_wait(before, text):
            self.file = parse_alerts(before, self.broker.home)
            return
        # An approved edit is in effect once its proof is on record.
        if before == text or (rider := riding()) is None:
            self.file, rider = edited, None
        if before == text:
            return
        actor = rider.actor if rider else SYSTEM
        draft = file_draft(self._path.name, record.get("sha256"), after, actor)
        if not loses:
            draft.detail.pop(LOOSENED, None)
        encoded = json.dumps({"sha256": after, "text": text})
        try:
            await self.broker.record(draft, changes=[Meta(RECORDED_FILE, encoded)])
        except LedgerError as error:
            self._seen = None  # recorded with a later look
            if rider is not None:
                raise
            log.warning("a changed alerts.toml is recorded later: %s", error.what)
        else:
            self.broker.recording.meta[RECORDED_FILE], self.file = encoded, edited

    def _loses(self, before: str, edited: AlertsFile) -> bool:
        """Check whether an edit takes routes away, or puts one in front of others."""
        try:
            return edited.lacks(parse_alerts(before, self.broker.home))
        except ServiceError:
            return True  # Unknown makes an answer stricter.

    def _judge(self, _: str, before: str | None, after: str | None) -> Loosens | None:
        """Judge an edit of a team's file."""
        edited = parse_alerts(after or "", self.broker.home)
        return Loosens(("alerts",)) if self._loses(before or "", edited) else None

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

    async def _follow(self) -> None:
        """Work for exactly the sinks of the file."""
        for name, follower in list(self._followers.items()):
            sink = self.file.sinks.get(name)
            same = sink == follower.outlet.sink and (
                self.file.routes_to(name) == follower.routes
            )
            if not same:
                await self._stop(name)
        for name, sink in self.file.sinks.items():
            if name not in self._followers:
                await self._begin(name, sink)
        # Alerts of a time without the sink are old news; exports go on where they were.
        for key in [key for key in self.broker.recording.meta if key.startswith(PLACE)]:
            name = key.removeprefix(PLACE)
            place = msgspec.json.decode(self.broker.recording.meta[key], type=SinkPlace)
            if name not in self.file.sinks and not place.exports:
                await self._keep(key, None)

    async def _begin(self, name: str, sink: SinkTable) -> None:
        key, head = f"{PLACE}{name}", self.broker.ledger.head.seq
        if stored := self.broker.recording.meta.get(key):
            place = msgspec.json.decode(stored, type=SinkPlace)
        if not stored or place.exports != sink.exports:
            place = SinkPlace(0 if sink.exports else head, sink.exports)
            await self._keep(key, msgspec.json.encode(place).decode())
        place.seq = min(place.seq, head)
        where = name, self._chain, KeptPlace(self.broker, name, place)
        routes = self.file.routes_to(name)
        if sink.exports:
            outlet = EXPORTERS[sink.kind](*self._reached(sink))
            exports = ExportFollower(*where, routes=routes, outlet=outlet)
            self._followers[name] = exports
        else:
            # Three, each with a connection of its own: none waits for another.
            def made(kind: type[_Lane]) -> _Lane:
                outlet = SENDERS[sink.kind](*self._reached(sink))
                return kind(*where, routes=routes, outlet=outlet, bury=self._bury)

            self._callers[name] = made(CallsFollower)
            self._high[name] = made(HighRiskFollower)
            self._followers[name] = follower = made(AlertFollower)
            self._callers[name].passed = self._high[name].passed = follower.wake
        # What is under way ends with the lease, before another broker may begin it.
        self._tasks[name] = [
            asyncio.create_task(
                while_working(self.broker.team.brokers.works, one.run),
                name=f"sink {name}",
            )
            for one in self._all_of(name)
        ]

    def _reached(self, sink: SinkTable) -> tuple[SinkTable, OpenSecret, Clock]:
        return sink, self._secret, self.broker.clock

    async def _stop(self, name: str) -> None:
        tasks = self._tasks.pop(name)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for follower in self._all_of(name):
            await follower.save()
            await follower.outlet.aclose()
        del self._followers[name]
        for ahead in (self._callers, self._high):
            ahead.pop(name, None)

    async def _keep(self, key: str, text: str | None) -> None:
        """Store a small value, or forget it; if that fails, a later look does."""
        with contextlib.suppress(LedgerError):
            await self.broker.record(changes=[Meta(key, text)])
        if text is None:
            self.broker.recording.meta.pop(key, None)
        else:
            self.broker.recording.meta[key] = text

    async def _bury(self, dead: DeadAlert) -> None:
        """Record that an alert is given up, and store it to be sent by hand.

        Raises:
            LedgerError: that cannot be recorded now.
        """
        draft = Draft(
            EventType.ALERT_DEAD,
            SYSTEM,
            resource=dead.sink,
            reason=dead.problem,
            detail={
                "alert": dead.id,
                "kind": dead.kind,
                "since": iso(dead.at),
                "events": [seq for _, seq in dead.entries[:20]],
            },
        )
        text = msgspec.json.encode(dead).decode()
        await self.broker.record(draft, changes=[Meta(f"{_DEAD}{dead.id}", text)])
        self._dead[dead.id] = dead
        self._count_dead()

    def _count_dead(self) -> None:
        self.broker.health.alerts_dead = len(self._dead)
        self.broker.health.changed()

    async def aclose(self) -> None:
        """Stop all work, and store its place."""
        for name in list(self._tasks):
            await self._stop(name)

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
            outlet = EXPORTERS[sink.kind](*self._reached(sink))
            sends = outlet.export(())
        else:
            outlet = SENDERS[sink.kind](*self._reached(sink))
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
        follower = self._callers.get(dead.sink)
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
            sinks=tuple(
                self._sink_info(name, self._followers[name])
                for name in sorted(self._followers)
            ),
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

    def _sink_info(self, name: str, follower: Follower[Any]) -> SinkInfo:
        events = [word for one in follower.routes for word in one.events]
        every = self._all_of(name)
        tries = [one.next_at for one in every if one.next_at is not None]
        sent = [one.sent_at for one in every if one.sent_at is not None]
        return SinkInfo(
            name=name,
            kind=follower.outlet.sink.kind,
            events=() if follower.place.exports else tuple(dict.fromkeys(events)),
            seq=follower.place.seq,
            behind=max(self.broker.ledger.head.seq - follower.place.seq, 0),
            held=sum(one.count for one in follower.place.held.values()),
            dead=sum(one.sink == name for one in self._dead.values()),
            problem=self._problem_of(name),
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
