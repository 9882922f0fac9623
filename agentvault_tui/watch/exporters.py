"""How events leave as OCSF records: to syslog, to an OTLP collector, into a file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentvault_tui import __version__
from agentvault_tui.clock import iso
from agentvault_tui.encoder import to_json
from agentvault_tui.model import Event, Outcome
from agentvault_tui.watch.config import parse_address
from agentvault_tui.watch.senders import SECONDS, HttpOutlet, Outlet, SinkError
from agentvault_tui.web.reach import connected_to, resolved, trust
from agentvault_tui.web.service_connection import UpstreamError

_AUDIT: Final = 13
"""The facility "log audit" (RFC 5424 section 6.2.1)."""
_NOTICE, _INFO, _WARNING = 5, 6, 4
_DATAGRAM: Final = 60_000
_SEQUENCES: Final = 2_147_483_647
_UNACKNOWLEDGED: Final = 0x5411
"""``SIOCOUTQ`` of Linux: bytes that the peer's kernel has not acknowledged."""
_LOOK: Final = 0.01


class OcsfRecord(NamedTuple):
    """One event, and its exported form."""

    event: Event
    ocsf: dict[str, Any]


class Exporter(Outlet, ABC):
    """Takes every event, in order; a taken one may be given again."""

    @abstractmethod
    def encode(self, record: OcsfRecord) -> bytes:
        """Return the bytes that leave for one event."""

    @abstractmethod
    async def export(self, messages: Sequence[bytes]) -> None:
        """Send a page of encoded events; with none, try whether the sink takes any.

        Raises:
            SinkError: they did not arrive, or that is not known.
        """


class FileExporter(Exporter):
    """A file of JSON Lines, mode 0600; another program may rotate it."""

    def encode(self, record: OcsfRecord) -> bytes:
        """Return a line."""
        return to_json(record.ocsf).encode() + b"\n"

    async def export(self, messages: Sequence[bytes]) -> None:
        """Append the lines, durably."""
        try:
            await asyncio.to_thread(self._append, b"".join(messages))
        except OSError as error:
            raise SinkError(f"it cannot be written ({error.strerror})") from None

    def _append(self, content: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(Path(self.sink.path), flags | os.O_NONBLOCK, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                content = b"\n" + content  # a line that a crash cut short
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class OtlpExporter(HttpOutlet, Exporter):
    """An OpenTelemetry collector: log records over HTTP in JSON (OTLP 1.x)."""

    def encode(self, record: OcsfRecord) -> bytes:
        """Return a log record."""
        return to_json(_log_record(record)).encode()

    async def export(self, messages: Sequence[bytes]) -> None:
        """Post the log records as one request."""
        body = _REQUEST.replace(b"[]", b"[%b]" % b",".join(messages))
        if not messages:
            body = b'{"resourceLogs":[]}'
        url = f"{self.sink.endpoint.removesuffix('/').removesuffix('/v1/logs')}/v1/logs"
        headers = [("Content-Type", "application/json"), *self._headers()]
        await self.post(url, headers, body)

    def _headers(self) -> list[tuple[str, str]]:
        """Read the secret: ``name=value`` pairs, as OTEL_EXPORTER_OTLP_HEADERS has."""
        if not self.sink.headers_secret:
            return []
        secret = self.reveal(self.sink.headers_secret)
        pairs = [one.partition("=") for one in secret.split(",")]
        return [(name.strip(), value.strip()) for name, _, value in pairs]


_SCOPE: Final = {"name": "agentvault", "version": __version__}
_SERVICE: Final = {"key": "service.name", "value": {"stringValue": "agentvault"}}
_LOGS: Final = {
    "resource": {"attributes": [_SERVICE]},
    "scopeLogs": [{"scope": _SCOPE, "logRecords": []}],
}
_REQUEST: Final = to_json({"resourceLogs": [_LOGS]}).encode()
"""A request, as far as it is the same for all; its one empty list takes the records."""


def _log_record(record: OcsfRecord) -> dict[str, Any]:
    event = record.event
    stamp = str(int(event.time.timestamp() * 1_000_000) * 1000)
    denied = event.outcome is Outcome.DENIED
    attributes = {"agentvault.seq": str(event.seq), "agentvault.hash": event.hash}
    return {
        "timeUnixNano": stamp,
        "observedTimeUnixNano": stamp,
        "severityNumber": 13 if denied else 9,
        "severityText": "WARN" if denied else "INFO",
        "eventName": event.type.value,
        "body": {"stringValue": to_json(record.ocsf)},
        "attributes": [
            {"key": key, "value": {"stringValue": value}}
            for key, value in attributes.items()
        ],
    }


class SyslogExporter(Exporter):
    """A syslog server: RFC 5424 over UDP (5426), TCP (6587 octet counting), TLS (5425).

    No such protocol confirms a message. Over TCP and TLS records count as taken once
    the peer's kernel has acknowledged their last byte, where ours tells (Linux).
    """

    _writer: asyncio.StreamWriter | None = None
    _reader: asyncio.StreamReader | None = None
    _tcp: asyncio.WriteTransport
    """Below TLS: it may hold all messages when TLS has none left."""

    def encode(self, record: OcsfRecord) -> bytes:
        """Return a message, which over UDP fits into a datagram."""
        message = syslog_message(record)
        if len(message) > _DATAGRAM and self.sink.address.startswith("udp:"):
            rest = {n: v for n, v in record.ocsf.items() if n != "unmapped"}
            message = syslog_message(OcsfRecord(record.event, rest))
        return message

    async def export(self, messages: Sequence[bytes]) -> None:
        """Send the messages, one after another."""
        address = parse_address(self.sink.address, private=self.sink.allow_private)
        transport, host, port = address
        try:
            async with asyncio.timeout(SECONDS):
                if transport == "udp":
                    await self._datagrams(messages, host, port)
                else:
                    await self._stream(messages, transport, host, port)
        except TimeoutError:
            await self.aclose()
            raise SinkError("it does not take messages in time") from None
        except (UpstreamError, OSError):
            await self.aclose()
            raise SinkError("it cannot be reached, or broke off") from None

    async def _datagrams(self, messages: Sequence[bytes], host: str, port: int) -> None:
        family, address = (await resolved(host, private=self.sink.allow_private))[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect((address, port))
            for message in messages:
                await asyncio.get_running_loop().sock_sendall(sender, message)

    async def _stream(
        self, messages: Sequence[bytes], transport: str, host: str, port: int
    ) -> None:
        reader, writer = await self._connected(transport, host, port)
        for message in messages:
            writer.write(b"%d %b" % (len(message), message))
        await writer.drain()
        while self._unacknowledged(writer):  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(_LOOK)
        if reader.at_eof() or writer.is_closing():
            raise ConnectionResetError

    async def _connected(
        self, transport: str, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = self._reader, self._writer
        if reader is not None and writer is not None:
            await asyncio.sleep(0)  # what the peer has closed is told by now
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            await self.aclose()
        connected = await connected_to(host, port, private=self.sink.allow_private)
        context = trust(self.sink.authorities) if transport == "tls" else None
        if context is not None:
            context.set_alpn_protocols([])  # it is not HTTP
        try:
            reader, writer = await asyncio.open_connection(sock=connected, limit=1024)
        except BaseException:
            connected.close()
            raise
        self._reader, self._writer, self._tcp = reader, writer, writer.transport
        if context is not None:
            await writer.start_tls(context, server_hostname=host)
        return reader, writer

    async def aclose(self) -> None:
        """Close the connection; messages that have not left are not sent any more."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            return
        # A peer that does not read would hold the connection open for the rest, which
        # the next connection sends again.
        if not self._waiting(writer):
            writer.close()
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1)
        self._tcp.abort()

    def _waiting(self, writer: asyncio.StreamWriter) -> int:
        """Return how many bytes have not left this process, at the least."""
        layers = {writer.transport, self._tcp}
        return sum(one.get_write_buffer_size() for one in layers)

    def _unacknowledged(self, writer: asyncio.StreamWriter) -> int:
        """Return how many bytes the peer's kernel lacks, as far as known."""
        if writer.transport.is_closing():
            return 0
        waiting = self._waiting(writer)
        connected = writer.get_extra_info("socket")
        if waiting or connected is None or sys.platform != "linux":
            return waiting
        buffer = fcntl.ioctl(connected.fileno(), _UNACKNOWLEDGED, bytes(4))
        (unsent,) = struct.unpack("i", buffer)
        return int(unsent)


def syslog_message(record: OcsfRecord) -> bytes:
    """Return one message of RFC 5424: the record in JSON, in ASCII on one line.

    An agent's own words are in its JSON alone.
    """
    event = record.event
    severity = {Outcome.DENIED: _WARNING, Outcome.ESCALATED: _NOTICE}.get(
        event.outcome or Outcome.ALLOWED, _INFO
    )
    host = re.sub("[^!-~]", "", socket.gethostname())[:255] or "-"
    number = (event.seq - 1) % _SEQUENCES + 1
    head = (
        f"<{_AUDIT * 8 + severity}>1 {iso(event.time)} {host} agentvault {os.getpid()}"
        f' {event.type.value[:32]} [meta sequenceId="{number}"] '
    )
    return head.encode() + to_json(record.ocsf).encode()


EXPORTERS: Final[dict[str, type[Exporter]]] = {
    "syslog": SyslogExporter,
    "otlp": OtlpExporter,
    "file": FileExporter,
}
