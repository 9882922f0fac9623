"""What a command tried to reach is read strictly, bounded and escaped."""

from __future__ import annotations

import ipaddress
import socket
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.confine.attempts import (
    MOST_BYTES,
    MOST_DESTINATIONS,
    AttemptLog,
    AttemptWatcher,
    ReachAttempt,
    parse_packet,
    parse_query,
)


def ipv4(protocol: int, rest: bytes, *, fragment: int = 0) -> bytes:
    """Return a packet to 93.184.216.34."""
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, 20 + len(rest), 0, fragment, 64, protocol, 0
    )
    return (
        head + socket.inet_aton("10.0.0.1") + socket.inet_aton("93.184.216.34") + rest
    )


def ipv6(protocol: int, rest: bytes) -> bytes:
    """Return a packet to 2001:db8::5."""
    addresses = ipaddress.ip_address("::1").packed
    addresses += ipaddress.ip_address("2001:db8::5").packed
    return struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64) + addresses + rest


def tcp(flags: int, port: int = 443) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 0, 0, 0x50, flags, 0, 0, 0)


UDP = struct.pack("!HHHH", 40000, 53, 8, 0)


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (ipv4(6, tcp(0x02)), ReachAttempt("tcp", "93.184.216.34", 443)),
        (ipv4(6, tcp(0x12)), None),
        (ipv4(6, tcp(0x14)), None),
        (ipv4(6, tcp(0x02), fragment=7), None),
        (ipv4(17, UDP), ReachAttempt("udp", "93.184.216.34", 53)),
        (ipv4(136, UDP), ReachAttempt("udp", "93.184.216.34", 53)),
        (ipv4(1, b"\x08\0\0\0"), ReachAttempt("icmp", "93.184.216.34", None)),
        (ipv4(1, b"\x03\x03\0\0"), None),
        (ipv4(132, b"\0" * 12), None),
        (ipv6(6, tcp(0x02)), ReachAttempt("tcp", "2001:db8::5", 443)),
        (ipv6(58, b"\x80\0\0\0"), ReachAttempt("icmp", "2001:db8::5", None)),
        (ipv6(58, b"\x8f\0\0\0"), None),
        (b"", None),
        (b"\x45", None),
    ],
)
def test_a_packet_that_begins_something_is_an_attempt(
    packet: bytes, found: ReachAttempt | None
) -> None:
    """An answer, a later fragment and the kernel's own messages begin nothing."""
    assert parse_packet(packet) == found


@given(st.binary(max_size=80))
def test_no_packet_makes_reading_fail(packet: bytes) -> None:
    """Whatever a command sends, nothing is raised and kinds are known."""
    found = parse_packet(packet)
    assert found is None or found.kind in {"tcp", "udp", "icmp"}


def query(*labels: bytes) -> bytes:
    name = b"".join(bytes([len(one)]) + one for one in labels) + b"\0"
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)


def test_a_name_is_read_and_escaped() -> None:
    """Bytes that are no printable ASCII, dots and backslashes become numbers."""
    assert parse_query(query(b"www", b"example", b"com")) == ("www.example.com", 33)
    found = parse_query(query(b"a.b\x1b[2J\\", b"\xff"))
    assert found is not None
    assert found[0] == r"a\046b\027[2J\092.\255"


def test_a_long_name_is_truncated() -> None:
    """Escapes make a name longer than DNS allows; the record has its beginning."""
    found = parse_query(query(*[b"\xff" * 63] * 4))
    assert found is not None
    assert len(found[0]) == MOST_BYTES


@given(st.binary(max_size=300))
def test_no_query_makes_reading_fail(raw: bytes) -> None:
    """Whatever is sent to the resolver, a name is bounded and printable."""
    found = parse_query(raw)
    if found is not None:
        assert len(found[0]) <= MOST_BYTES
        assert found[0].isascii()
        assert found[0].isprintable()
        assert found[1] <= len(raw)


@pytest.mark.parametrize("raw", [b"", query(b"a")[:11], query(b"a")[:-3], b"\0" * 11])
def test_a_broken_query_is_none(raw: bytes) -> None:
    """It is neither counted nor answered."""
    assert parse_query(raw) is None


def test_an_answer_is_no_query() -> None:
    """The bit QR says so (RFC 1035 section 4.1.1)."""
    raw = bytearray(query(b"a"))
    raw[2] |= 0x80
    assert parse_query(bytes(raw)) is None


def test_a_run_names_so_many_destinations_and_counts_the_rest() -> None:
    """Across all reports: a further destination never gets a name later."""
    log = AttemptLog()
    for number in range(MOST_DESTINATIONS + 10):
        log.add(ReachAttempt("tcp", f"10.0.{number // 256}.{number % 256}", 80))
    log.add(ReachAttempt("tcp", "10.0.0.1", 80))
    first = dict(log.take())
    assert len(first) == MOST_DESTINATIONS + 1
    assert first[None] == 10
    assert first[ReachAttempt("tcp", "10.0.0.1", 80)] == 2
    assert log.take() == []
    log.add(ReachAttempt("udp", "10.9.9.9", 1))
    log.add(ReachAttempt("tcp", "10.0.0.1", 80))
    assert dict(log.take()) == {None: 1, ReachAttempt("tcp", "10.0.0.1", 80): 1}
    assert log.total == MOST_DESTINATIONS + 13


def test_names_that_came_too_fast_are_counted() -> None:
    """If names come too fast, some are lost, and the record has their number."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        names.bind(("127.0.0.1", 0))
        names.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        packets: Any = SimpleNamespace(
            setblocking=lambda _: None,
            recvfrom=lambda _: (b"", ("", 0, 0)),
            getsockopt=lambda *_: bytes(8),
        )
        watcher = AttemptWatcher(packets, names)
        for _ in range(100):
            client.sendto(query(b"flood"), names.getsockname())
        watcher._drain()
        watcher._drain()
        watcher._ended.close()
        watcher._wake.close()
    assert watcher.log.total == 100
    assert dict(watcher.log.take())[None] > 0
