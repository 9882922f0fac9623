"""Every event leaves for syslog, OTLP and files as OCSF, resumable and inert."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.alert_stand import AlertStand, answering
from support.bench import PAYMENT, Bench
from support.gateway_stand import Received
from support.ocsf_check import faults
from support.patience import PATIENT, until
from support.tls_front import trusted

from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import Action, Draft, EventType
from agentvault_tui.vault import Secret
from agentvault_tui.watch.config import SinkTable
from agentvault_tui.watch.exporters import SyslogExporter
from agentvault_tui.watch.senders import SinkError
from agentvault_tui.web import reach
from agentvault_tui.web.local_ca import CaFiles

ROUTES = 'sinks = ["hook"]\nevents = ["panic.on"]'
HEADER = re.compile(
    rb"<(\d{1,3})>1 (\S+Z) (\S+) agentvault (\d+) (\S{1,32})"
    rb' \[meta sequenceId="(\d+)"\] '
)


async def ask(bench: Bench, name: str = 'bot] "<13>1 fake') -> None:
    agent = await bench.agent(name)
    hostile = Action(
        PAYMENT.scopes, PAYMENT.action, 'a"]\\ \x1b', PAYMENT.parameters, "a\nb"
    )
    await request_token(bench.broker, agent, hostile, resource=None, details=None)


def sequences(records: list[dict[str, Any]]) -> list[int]:
    assert [faults(record) for record in records] == [[]] * len(records)
    return [record["metadata"]["sequence"] for record in records]


async def test_a_file_has_every_event_once(
    stand: AlertStand, bench: Bench, tmp_path: Path
) -> None:
    """From the first event on, over restarts, private, without parameters."""
    path = tmp_path / "events.jsonl"
    sink = f'[sinks.all]\nkind="file"\npath="{path}"\n'
    await ask(bench)
    await stand.start(ROUTES, sinks=sink)
    await stand.settle()
    async with stand.restarted() as later:
        await ask(later.bench, "other")
        await later.settle()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert sequences(records) == list(range(1, later.bench.ledger.head.seq + 1))
    assert path.stat().st_mode & 0o777 == 0o600
    assert '"amount"' not in path.read_text()
    assert path.read_bytes().isascii()


async def test_a_route_with_details_tells_parameters(
    stand: AlertStand, bench: Bench, tmp_path: Path
) -> None:
    """A sink that carries every event has parameters where a route says so."""
    path = tmp_path / "events.jsonl"
    sink = f'[sinks.all]\nkind="file"\npath="{path}"\n'
    await ask(bench)
    await stand.start('sinks = ["all"]\ndetails = true', sinks=sink)
    await stand.settle()
    assert "4200" in path.read_text()


async def test_a_line_cut_short_is_ended(
    stand: AlertStand, bench: Bench, tmp_path: Path
) -> None:
    """After a crash in the middle of a line the next record stands on its own."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"half')
    sink = f'[sinks.all]\nkind="file"\npath="{path}"\n'
    await stand.start(ROUTES, sinks=sink)
    await ask(bench)
    await stand.settle()
    first, *lines = path.read_text().splitlines()
    assert first == '{"half'
    assert sequences([json.loads(line) for line in lines])[0] == 1


async def test_a_file_that_is_gone_is_told(
    stand: AlertStand, bench: Bench, tmp_path: Path
) -> None:
    """No folder, no write: told in the status, and made good later."""
    path = tmp_path / "none" / "events.jsonl"
    sink = f'[sinks.all]\nkind="file"\npath="{path}"\n'
    await stand.start(ROUTES, sinks=sink)
    await stand.settle()
    assert "cannot be written" in stand.watch.warnings[0]
    path.parent.mkdir()
    bench.clock.advance(10)
    await stand.settle()
    assert len(path.read_text().splitlines()) == bench.ledger.head.seq


async def test_otlp_gets_log_records(stand: AlertStand, bench: Bench) -> None:
    """OTLP over HTTP in JSON, with the secret's headers; a failure is sent again."""
    stand.secrets["otel"] = "api-key=k1,x-team=sec"
    stand.server.answer = answering(503, 200)
    sink = (
        f'[sinks.otel]\nkind="otlp"\nendpoint="{stand.url}/"\nheaders_secret="otel"\n'
        "allow_private=true\n"
    )
    await ask(bench)
    await stand.start(ROUTES, sinks=sink)
    await stand.settle()
    bench.clock.advance(10)
    await stand.settle()
    refused, taken = (one for one in stand.server.received if one.target == "/v1/logs")
    assert refused.body == taken.body
    assert taken.header("api-key") == "k1"
    assert taken.header("x-team") == "sec"
    said = json.loads(taken.body)["resourceLogs"][0]
    logs = said["scopeLogs"][0]["logRecords"]
    records = [json.loads(one["body"]["stringValue"]) for one in logs]
    assert sequences(records) == list(range(1, bench.ledger.head.seq + 1))
    assert all(one["timeUnixNano"].isdigit() for one in logs)


def frames(data: bytes) -> list[bytes]:
    """Split a stream by octet counting (RFC 6587 section 3.4.1)."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        data = rest[int(length) :]
    return found


def read_syslog(messages: list[bytes]) -> list[int]:
    records = []
    for message in messages:
        head = HEADER.match(message)
        assert head is not None, message[:120]
        assert 104 <= int(head[1]) <= 111  # facility 13
        assert all(32 <= byte < 127 for byte in message)
        record = json.loads(message[head.end() :])
        assert int(head[6]) == record["metadata"]["sequence"]
        records.append(record)
    return sequences(records)


async def test_syslog_over_udp(stand: AlertStand, bench: Bench) -> None:
    """A datagram an event, no control byte in any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        port = receiver.getsockname()[1]
        sink = (
            f'[sinks.siem]\nkind="syslog"\naddress="udp://127.0.0.1:{port}"\n'
            "allow_private=true\n"
        )
        await ask(bench)
        await stand.start(ROUTES, sinks=sink)
        await stand.settle()
        loop = asyncio.get_running_loop()
        count = bench.ledger.head.seq
        messages = [await loop.sock_recv(receiver, 65_536) for _ in range(count)]
    assert read_syslog(messages) == list(range(1, count + 1))


@pytest.mark.parametrize("secure", [False, True])
async def test_syslog_over_a_stream_resumes(
    stand: AlertStand, bench: Bench, *, secure: bool
) -> None:
    """Over TCP and TLS all arrive; what a broken connection lost is sent again."""
    received: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        received.append(b"")
        at = len(received) - 1
        while data := await reader.read(65_536):
            received[at] += data
        writer.close()

    context = None
    tls, _, _ = trusted(bench.home)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.files.cert, tls.files.key)
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    kind, ca = "tls" if secure else "tcp", CaFiles.of(bench.home).ca
    sink = (
        f'[sinks.siem]\nkind="syslog"\naddress="{kind}://localhost:{port}"\n'
        f'allow_private=true\nca_file="{ca}"\n'
    )
    await ask(bench)
    await stand.start(ROUTES, sinks=sink)
    await stand.settle()
    await stand.until(lambda: len(frames(b"".join(received))) >= bench.ledger.head.seq)
    writers[0].transport.abort()
    await ask(bench, "other")
    await stand.settle()
    bench.clock.advance(10)
    await stand.settle()
    count = bench.ledger.head.seq
    await stand.until(
        lambda: len(received) > 1 and len(frames(b"".join(received))) >= count
    )
    messages = [one for part in received for one in frames(part)]
    assert sorted(set(read_syslog(messages))) == list(range(1, count + 1))
    listening.close()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_connection_to_a_server_that_does_not_read_is_closed(
    bench: Bench, kind: str
) -> None:
    """It does not get the rest later, next to the connection that replaces it."""
    tls, _, _ = trusted(bench.home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.files.cert, tls.files.key)
    message = b"x" * 16_000_000  # more than the kernel's buffers take
    reads = threading.Event()
    bound = socket.create_server(("127.0.0.1", 0))
    bound.settimeout(PATIENT)

    def serve() -> int:
        connected, _ = bound.accept()
        connected.settimeout(PATIENT)
        if kind == "tls":
            connected = context.wrap_socket(connected, server_side=True)
        assert reads.wait(PATIENT)
        count = 0
        with connected, suppress(OSError):
            while data := connected.recv(65_536):
                count += len(data)
        return count

    serving = asyncio.create_task(asyncio.to_thread(serve))
    sink = SinkTable(
        "syslog",
        address=f"{kind}://localhost:{bound.getsockname()[1]}",
        allow_private=True,
        authorities=CaFiles.of(bench.home).ca.read_text(),
    )
    exporter = SyslogExporter(sink, lambda *_: Secret(""), bench.clock)
    exporting = asyncio.create_task(exporter.export([message]))
    await until(lambda: exporter._writer and exporter._waiting(exporter._writer))
    await exporter.aclose()
    reads.set()
    assert 0 < await serving < len(message)
    with pytest.raises(SinkError, match="broke off"):
        await exporting
    bound.close()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_name_that_changes_to_a_private_address_is_not_followed(
    stand: AlertStand, bench: Bench, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """Nothing goes there, and all arrives in order once the name is as before."""
    there, judge = ["127.0.0.1"], reach.may_reach
    tried: list[str] = []

    async def resolve(host: str, *_: object, **__: object) -> list[object]:
        if host == there[0]:  # uvloop's sock_connect passes the checked address
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        assert host == "logs.example.com"
        tried.append(there[0])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (there[0], 0))]

    def may_reach(address: str, *, private: bool) -> bool:
        # This machine stands for the public address that the name has at first.
        return address == "127.0.0.1" or judge(address, private=private)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(reach, "may_reach", may_reach)
    messages: list[bytes] = []
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        received = b""
        while data := await reader.read(65_536):
            received += data
        messages.extend(frames(received))
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _: object) -> None:
            messages.append(data)

    loop = asyncio.get_running_loop()
    if transport == "udp":
        bound, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        port = bound.get_extra_info("sockname")[1]
    else:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]

    sink = f'[sinks.siem]\nkind="syslog"\naddress="{transport}://logs.example.com:{port}"\n'
    await ask(bench)
    await stand.start(ROUTES, sinks=sink)
    await stand.settle()
    first, there[0] = bench.ledger.head.seq, "169.254.169.254"
    async with asyncio.timeout(PATIENT):
        while tried[-1] != there[0]:  # the old connection may take some until it ends
            while connections:
                connections.pop().write_eof()
            await ask(bench, f"other-{bench.ledger.head.seq}")
            await stand.settle()
            bench.clock.advance(10)  # an end that is read late fails the export
    assert any("siem" in one for one in stand.watch.warnings)
    there[0] = "127.0.0.1"
    bench.clock.advance(600)
    count = bench.ledger.head.seq
    assert count > first
    await stand.settle()
    await stand.watch.aclose()
    await bench.until(lambda: len(messages) >= count)
    assert list(dict.fromkeys(read_syslog(messages))) == list(range(1, count + 1))
    (bound if transport == "udp" else listening).close()


async def test_exports_never_die(stand: AlertStand, bench: Bench) -> None:
    """A collector that is away for days gets all of it; nothing is given up."""
    stand.server.answer = answering(500)
    sink = f'[sinks.otel]\nkind="otlp"\nendpoint="{stand.url}"\nallow_private=true\n'
    await ask(bench)
    await stand.start(ROUTES, sinks=sink)
    for _ in range(3):
        await stand.settle()
        bench.clock.advance(90_000)
    assert bench.broker.health.alerts_dead == 0
    stand.server.answer = answering(200)
    await stand.settle()
    otel = next(one for one in stand.alerts.listing().sinks if one.name == "otel")
    assert (otel.behind, otel.problem) == (0, None)


def otlp(stand: AlertStand) -> str:
    return f'[sinks.otel]\nkind="otlp"\nendpoint="{stand.url}/"\nallow_private=true\n'


def logged(received: Received) -> list[dict[str, Any]]:
    """Return the OCSF records of a request."""
    (said,) = json.loads(received.body)["resourceLogs"]
    logs = said["scopeLogs"][0]["logRecords"]
    return [json.loads(one["body"]["stringValue"]) for one in logs]


async def fill(bench: Bench, count: int, size: int = 0) -> None:
    """Record events, each of about so many bytes."""
    detail = {"path": "x" * size}  # which the ledger holds whole
    drafts = [Draft(EventType.TENANT_AWAY, SYSTEM, detail=detail) for _ in range(count)]
    await bench.broker.record(*drafts)


@pytest.mark.parametrize("status", [413, 400])
async def test_a_refused_page_is_halved_down_to_one_event_that_is_skipped(
    stand: AlertStand, bench: Bench, status: int
) -> None:
    """The collector gets all others, in order, and a row says which it did not."""
    taken: list[dict[str, Any]] = []

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        records = logged(received)
        refused = any(one["metadata"]["sequence"] == 42 for one in records)
        if not refused:
            taken.extend(records)
        await answering(status if refused else 200)(received, writer)

    stand.server.answer = answer
    await fill(bench, 150)
    await stand.start(ROUTES, sinks=otlp(stand))
    await stand.settle()
    numbers = [record["metadata"]["sequence"] for record in taken]
    head = bench.ledger.head.seq
    assert numbers == [number for number in range(1, head + 1) if number != 42]
    (row,) = [one for one in taken if one["message"] == "export.skipped"]
    assert row["unmapped"]["resource"] == "otel"
    assert row["unmapped"]["detail"]["event"] == 42
    assert row["status_detail"] == f"it answered {status}"


async def test_a_collector_that_refuses_everything_does_not_empty_the_outbox(
    stand: AlertStand, bench: Bench
) -> None:
    """Skipping pauses longer each time, and the row of a skip makes no other row."""
    stand.server.answer = answering(400)
    await fill(bench, 50)
    await stand.start(ROUTES, sinks=otlp(stand))
    for _ in range(20):
        await stand.settle()
        bench.clock.advance(10)
    query = EventQuery(type=EventType.EXPORT_SKIPPED)
    skipped = (await bench.ledger.events(query)).events
    assert 2 <= len(skipped) <= 10
    assert "400" in stand.watch.warnings[0]


async def test_pages_are_bounded_by_bytes(stand: AlertStand, bench: Bench) -> None:
    """No request is larger than 512 KiB, unless one event alone is."""
    await fill(bench, 150, size=8_000)
    await stand.start('sinks = ["otel"]\ndetails = true', sinks=otlp(stand))
    await stand.settle()
    bodies = [one.body for one in stand.server.received]
    assert 400 * 1024 < max(len(body) for body in bodies) <= 512 * 1024
    numbers = [
        record["metadata"]["sequence"]
        for one in stand.server.received
        for record in logged(one)
    ]
    assert numbers == list(range(1, bench.ledger.head.seq + 1))
