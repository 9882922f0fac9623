"""Send cases through a gateway to one server, with a tap between the two; compare all.

The tap keeps the bytes of each connection, so that they can be read a second time. A
request that the gateway did not count is found as a report without a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.gateway_stand import SECRET, Stand, standing

from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery
from differential.comparing import (
    Report,
    asked_and_wire,
    call_and_report,
    cut_and_row,
    decided_and_report,
    wire_and_row,
)
from differential.corpus import Case
from differential.reading import (
    Call,
    Message,
    UnruledError,
    call_of,
    messages,
    sha256,
)
from differential.servers import Running, Server

MARK = "x-case"
"""The header that the service lists, by which a report finds its case."""
POLICY = """@id("all")
@why("The corpus is about reading.")
@obligation("allow")
permit (principal, action, resource);
"""
SERVICE = """
headers = ["X-Case", "Stripe-Version"]
[credential]
kind = "bearer"
secret = "key"
"""
ROUTE = """
[[routes]]
method = "*"
path = "/{kind}/{{rest*}}"
scope = "write:calendar"
{body}
[routes.parameters]
{parameters}
"""
BODY = 'amount = "body:/amount"\nto = "body:/to"\n'
QUERY = 'amount = "query:amount"\nto = "query:to"\ncount = "query:count"\n'
ROUTES = {
    "json": ('body = "json"', BODY),
    "form": ('body = "form"', BODY),
    "multipart": ('body = "multipart"', BODY),
    "opaque": ('body = "opaque"\ntypes = ["image/*"]', 'to = "query:to"\n'),
    "any": ("", 'amount = "body:/amount"\nto = "query:to"\n'),
    "read": ("", QUERY),
}
PARAMETERS: Mapping[str, frozenset[str]] = {
    kind: frozenset(re.findall("^(\\w+) =", text, re.MULTILINE))
    for kind, (_, text) in ROUTES.items()
}
_DEADLINE_S = 10.0


@dataclass
class Connection:
    """One connection of the gateway to the server, and what the gateway wrote on it."""

    port: int
    """The port from which the server sees it come."""
    written: bytearray = field(default_factory=bytearray)
    messages: list[Message] = field(default_factory=list)
    """Those that `_sent` read in it."""


class Tap:
    """Relays connections to the server, and keeps the bytes of requests."""

    def __init__(self, port: int) -> None:
        self.connections: list[Connection] = []
        self.port = 0
        self._to = port
        self._relays: set[asyncio.Task[Any]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        """To the server."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Tap]:
        """Relay within the block, and until every connection has ended."""
        server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for relay in list(self._relays):
                relay.cancel()
            await asyncio.gather(*self._relays, return_exceptions=True)

    async def settled(self) -> None:
        """End each connection; wait until the server has read all that it holds."""
        for end in self._ends:
            with contextlib.suppress(OSError, RuntimeError):
                end.write_eof()
        if self._relays:
            await asyncio.wait(self._relays, timeout=_DEADLINE_S)

    def _taken(self, *streams: Any) -> None:
        relay = asyncio.ensure_future(self._relay(*streams))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            inner, outward = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        port = outward.get_extra_info("sockname")[1]
        self.connections.append(connection := Connection(port))
        self._ends.add(outward)
        there = asyncio.ensure_future(_pump(reader, outward, connection.written))
        try:
            await _pump(inner, writer)
            # A server that leaves bodies unread ends first: what is sent still counts.
            await asyncio.wait((there,), timeout=_DEADLINE_S)
        finally:
            there.cancel()
            self._ends.discard(outward)
            for end in (writer, outward):
                end.close()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    copy: bytearray | None = None,
) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            if copy is not None:
                copy += piece
            with contextlib.suppress(OSError):
                writer.write(piece)
                await writer.drain()
    # One that was reset has ended as well: uvloop calls its handle closed.
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


@dataclass(frozen=True)
class Answer:
    """What the agent got."""

    status: int
    fields: Mapping[str, str]


@dataclass
class Tally:
    """The outcome of one server's cases."""

    server: str
    cases: int = 0
    refused: int = 0
    forwarded: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """By the code of the answer."""
    unread: int = 0
    """Forwarded ones that the server itself refused."""
    kinds: set[str] = field(default_factory=set)
    """Kinds of body that the server read."""
    differences: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Return the line of the table that is printed."""
        return (
            f"{self.server:18}{self.cases:7}{self.refused:9}{self.forwarded:11}"
            f"{self.unread:8}{len(self.differences):13}"
        )


HEADING = (
    f"{'server':18}{'cases':>7}{'refused':>9}{'forwarded':>11}{'unread':>8}"
    f"{'differences':>13}"
)


async def drive(server: Server, cases: Sequence[Case]) -> Tally:
    """Send *cases* through a gateway of their own to *server*; compare each reading."""
    with tempfile.TemporaryDirectory(prefix="d-") as folder:
        home = Home.locate(Path(folder) / "home")
        home.prepare()
        home.policy_file.write_text(POLICY)
        async with server.running() as running, Tap(running.port).listening() as tap:
            async with standing(Path(folder)) as stand:
                driven = await _driven(stand, tap, cases)
            await tap.settled()
        return _compared(server, cases, driven, tap, running)


@dataclass
class _Driven:
    answers: list[Answer]
    rows: dict[int, dict[str, Any]]
    """The attempt's details and the result's, by the number of the case."""


async def _driven(stand: Stand, tap: Tap, cases: Sequence[Case]) -> _Driven:
    await put_service(stand, tap)
    agents = [await stand.agent("write:calendar", name=name) for name in ("one", "two")]
    tokens = [await stand.token(agent, "write:calendar") for agent in agents]
    answers = []
    for number, case in enumerate(cases):
        try:
            async with asyncio.timeout(_DEADLINE_S):
                answers.append(await ask(stand, case, tokens[number % 2], number))
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            answers.append(Answer(0, {"failed": repr(error)}))
    await stand.settled()
    return _Driven(answers, await _rows(stand, answers))


async def put_service(stand: Stand, tap: Tap) -> None:
    """Let a service be behind the tap, with a route for each kind of body."""
    routes = "".join(
        ROUTE.format(kind=kind, body=body, parameters=parameters)
        for kind, (body, parameters) in ROUTES.items()
    )
    origin = f"http://127.0.0.1:{tap.port}"
    await stand.secret("key", SECRET, origin)
    await stand.service(SERVICE + routes, origin=origin)


async def ask(stand: Stand, case: Case, token: str, number: int) -> Answer:
    """Send one case; return the answer of the gateway."""
    host, port = "127.0.0.1", int(stand.url.rpartition(":")[2])
    extra = (
        (b"Host", f"{host}:{port}".encode()),
        (b"Authorization", b"Bearer " + token.encode()),
        (b"X-Case", b"%d" % number),
        (b"Connection", b"close"),
    )
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(case.request(b"/gw/api", *extra))
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            status = int(first.split(" ")[1])
            fields = dict(line.lower().split(": ", 1) for line in lines)
            if status >= 200:
                break
        if case.method != b"HEAD" and "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
    finally:
        writer.close()
    return Answer(status, fields)


async def _rows(stand: Stand, answers: Sequence[Answer]) -> dict[int, dict[str, Any]]:
    numbers = {a.fields.get("agentvault-decision"): n for n, a in enumerate(answers)}
    found: dict[int, dict[str, Any]] = {}
    after = 0
    while True:
        page = await stand.bench.ledger.events(EventQuery(after=after, limit=500))
        for event in page.events:
            if event.type.value in {"gateway.attempt", "gateway.result"}:
                number = numbers.get(event.decision_id, -1)
                details = {k: v for k, v in event.detail.items() if v is not None}
                found.setdefault(number, {}).update(details)
        if not page.events:
            return found
        after = page.events[-1].seq


def _compared(
    server: Server, cases: Sequence[Case], driven: _Driven, tap: Tap, running: Running
) -> Tally:
    tally = Tally(server.name, cases=len(cases))
    reports: dict[int, list[Report]] = {}
    for report in running.reports:
        reports.setdefault(_number(report.get("headers") or {}), []).append(report)
    sent = _sent(tap, tally)
    for number, case in enumerate(cases):
        answer = driven.answers[number]
        arrived, read = sent.pop(number, []), reports.pop(number, [])
        row = driven.rows.pop(number, None)
        tally.forwarded += bool(arrived)
        if not arrived:
            tally.refused += 1
            code = answer.fields.get("agentvault-error", str(answer.status))
            tally.refusals[code] += 1
        known = _Case(case, answer, arrived, row, read)
        for text in known.differences(server, tally):
            tally.differences.append(f"{text}\n    {number}: {case}\n    {answer}")
    if server.rules.lazy:
        _forget_leftovers(reports, tap)
    for what, rest in (("wire", sent), ("report", reports), ("ledger", driven.rows)):
        tally.differences.extend(
            f"a request of no case, in the {what}: {one}" for one in rest.items()
        )
    return tally


def _sent(tap: Tap, tally: Tally) -> dict[int, list[tuple[Connection, Message]]]:
    """Return what arrived on each connection, by the number of its case."""
    sent: dict[int, list[tuple[Connection, Message]]] = {}
    for connection in tap.connections:
        agents = set()
        try:
            for message in messages(bytes(connection.written), may_end=True):
                number = _number(dict(message.fields))
                agents.add(number % 2)
                connection.messages.append(message)
                sent.setdefault(number, []).append((connection, message))
        except UnruledError as error:
            tally.differences.append(f"on the wire: {error}")
        if len(agents) > 1:
            tally.differences.append("a connection was used for two agents")
    return sent


def _forget_leftovers(reports: dict[int, list[Report]], tap: Tap) -> None:
    """Leave out what a lazy server took for requests, where it can do no harm.

    A server that leaves a body unread takes it for the next request of a connection.
    That has no credential, and where the gateway sends nothing after it, it alters no
    call and nobody gets its answer.
    """
    ended = {
        one.port for one in tap.connections if one.messages and one.messages[-1].body
    }
    left = [
        report
        for report in reports.pop(-1, [])
        if report["port"] not in ended or "authorization" in report.get("headers", ())
    ]
    if left:
        reports[-1] = left


def _number(fields: Mapping[str, str]) -> int:
    text = fields.get(MARK, "")
    return int(text) if text.isdecimal() else -1


@dataclass(frozen=True)
class _Case:
    """All that is known of one case."""

    case: Case
    answer: Answer
    arrived: Sequence[tuple[Connection, Message]]
    row: Mapping[str, Any] | None
    read: Sequence[Report]

    def differences(self, server: Server, tally: Tally) -> Iterator[str]:
        """Yield the differences of one case."""
        row, status = self.row, self.answer.status
        if not self.arrived:
            refused = 400 <= status < 500 or status == 501
            if row is not None or self.read or not refused:
                yield f"nothing arrived, and yet: {row} {self.read}"
            return
        if len(self.arrived) > 1 or row is None:
            yield f"it arrived {len(self.arrived)} times, its row is {row}"
            return
        ((connection, message),) = self.arrived
        if not message.is_whole:
            body = self.case.body
            yield from cut_and_row(message, row, body, server.rules)
            message = replace(message, body=body)
            digest = {"body_bytes": len(body), "body_sha256": sha256(body)}
            row = {**row, **digest, "request_whole": None}
        yield from wire_and_row(message, row, self.case.names())
        try:
            call = call_of(message)
        except UnruledError as error:
            yield f"not as the rules encode: {error}"
            return
        yield from self._asked(call)
        if len(self.read) > 1 or any(r["port"] != connection.port for r in self.read):
            yield f"it was read on other connections or several times: {self.read}"
        if not self.read or self.read[0].get("error"):
            if status < 400:
                yield f"the server gave no report and did not refuse: {self.read}"
            tally.unread += 1
            return
        report = self.read[0]
        tally.kinds.add(report["kind"] or "none")
        yield from call_and_report(call, message, report, server.rules)
        declared = PARAMETERS.get(call.segments[0], frozenset())
        yield from decided_and_report(row.get("parameters") or {}, declared, report)

    def _asked(self, call: Call) -> Iterator[str]:
        if (asked := self.case.asked()) is None:
            return
        try:
            yield from asked_and_wire(call_of(asked, strict=False), call)
        except UnruledError as error:
            # A library reads more of multipart than this parser: what it read is sent.
            if call.kind != "multipart":
                yield f"the agent's own request cannot be read: {error}"
