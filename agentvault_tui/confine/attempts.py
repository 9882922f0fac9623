"""The attempts of a confined command, read from its packets and DNS queries.

All of it is the command's own words, for a person to read: nothing is decided by it.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from typing import Final, NamedTuple

MOST_DESTINATIONS: Final = 256
"""Destinations of one run that are recorded by name; others are counted together."""
MOST_BYTES: Final = 253
"""Of a name, the length of the longest in DNS (RFC 1035 section 2.3.4)."""
_TCP, _UDP, _UDP_LITE, _ICMP, _ICMP6 = 6, 17, 136, 1, 58
_ECHO: Final = {(_ICMP, 8), (_ICMP6, 128)}
"""Protocol and type of an echo request; other messages are the kernel's."""
_SYN, _ACK = 0x02, 0x10
_SOL_PACKET, _STATISTICS = 263, 6
_MEMORY, _DROPS = 55, 8
"""SO_MEMINFO, and in its numbers SK_MEMINFO_DROPS, which only grows."""
_HEADER: Final = 12
_REFUSED: Final = 0x8005
_RECURSION: Final = 0x0100
_LONGEST_LABEL: Final = 63


class ReachAttempt(NamedTuple):
    """A destination that a command tried to reach."""

    kind: str
    """``dns``, ``tcp``, ``udp`` or ``icmp``."""
    destination: str
    """A name for ``dns``, else an address."""
    port: int | None


class AttemptLog:
    """Counts attempts, and hands out rows with those since the last time."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._named: set[ReachAttempt] = set()
        self._counts: Counter[ReachAttempt | None] = Counter()
        self.total = 0
        """All attempts of the run."""

    def add(self, attempt: ReachAttempt) -> None:
        """Count one attempt."""
        with self._lock:
            self.total += 1
            listed = attempt in self._named
            if not listed and len(self._named) < MOST_DESTINATIONS:
                self._named.add(attempt)
                listed = True
            self._counts[attempt if listed else None] += 1

    def add_lost(self, count: int) -> None:
        """Count attempts of which nothing else is known."""
        with self._lock:
            if count:
                self.total += count
                self._counts[None] += count

    def take(self) -> list[tuple[ReachAttempt | None, int]]:
        """Return the attempts since the last time with their counts.

        Returns:
            one pair a destination; None is for all destinations that came after the
            first `MOST_DESTINATIONS`, and for packets that came too fast to be read.
        """
        with self._lock:
            taken, self._counts = list(self._counts.items()), Counter()
        return taken


class AttemptWatcher:
    """Reads packets and queries in a thread, and answers the queries with REFUSED."""

    def __init__(self, packets: socket.socket, names: socket.socket) -> None:
        """Read *packets* and *names*, both of `InsideSockets`."""
        self.log = AttemptLog()
        self._packets, self._names = packets, names
        self._lost_names = 0
        self._ended, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        for one in (packets, names):
            one.setblocking(False)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Read all earlier packets and queries, and stop."""
        self._wake.close()
        self._thread.join()
        self._drain()
        self._ended.close()

    def _watch(self) -> None:
        sockets = (self._packets, self._names, self._ended)
        while self._ended not in select.select(sockets, (), ())[0]:
            self._drain()

    def _drain(self) -> None:
        """Read packets and queries, at most as many as the sockets hold at once."""
        for opened, read in (
            (self._packets, self._read_packet),
            (self._names, self._read_query),
        ):
            with suppress(OSError):  # such as that nothing is there
                for _ in range(1024):
                    read(*opened.recvfrom(2048))
        # Read and set to 0 (packet(7)). Loopback has each packet twice.
        counters = self._packets.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        if lost := struct.unpack("=II", counters)[1]:
            self.log.add_lost((lost + 1) // 2)
        memory = self._names.getsockopt(socket.SOL_SOCKET, _MEMORY, 4 * (_DROPS + 1))
        drops = struct.unpack_from("=I", memory, 4 * _DROPS)[0]
        self.log.add_lost(drops - self._lost_names)
        self._lost_names = drops

    def _read_packet(self, packet: bytes, sender: tuple[object, ...]) -> None:
        # Loopback shows each packet twice: as it leaves, and as it arrives.
        if sender[2] == socket.PACKET_OUTGOING and (attempt := parse_packet(packet)):
            self.log.add(attempt)

    def _read_query(self, query: bytes, sender: tuple[object, ...]) -> None:
        parsed = parse_query(query)
        if parsed is None:
            return
        name, end = parsed
        self.log.add(ReachAttempt("dns", name, None))
        flags = struct.unpack_from("!H", query, 2)[0] & _RECURSION
        head = query[:2] + struct.pack("!5H", _REFUSED | flags, 1, 0, 0, 0)
        with suppress(OSError):
            self._names.sendto(head + query[_HEADER:end], sender)


def parse_packet(packet: bytes) -> ReachAttempt | None:
    """Return the attempt that an IP packet begins.

    Args:
        packet: from the IP header on (RFC 791, RFC 8200).

    Returns:
        None for a packet that begins nothing, such as an answer, and for other
        protocols.
    """
    try:
        if packet[0] >> 4 == 4:
            size, protocol = (packet[0] & 0xF) * 4, packet[9]
            address: str = str(ipaddress.IPv4Address(packet[16:20]))
            if struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
                return None  # a later fragment
        else:
            size, protocol = 40, packet[6]
            address = str(ipaddress.IPv6Address(packet[24:40]))
        rest = packet[size:]
        if protocol == _TCP:
            begins = rest[13] & _SYN and not rest[13] & _ACK
            port = struct.unpack_from("!H", rest, 2)[0]
            return ReachAttempt("tcp", address, port) if begins else None
        if protocol in {_UDP, _UDP_LITE}:
            return ReachAttempt("udp", address, struct.unpack_from("!H", rest, 2)[0])
        if (protocol, rest[0]) in _ECHO:
            return ReachAttempt("icmp", address, None)
    except (IndexError, struct.error, ValueError):
        return None
    return None


def parse_query(query: bytes) -> tuple[str, int] | None:
    r"""Return the name that a DNS query asks for (RFC 1035 section 4.1.2).

    Returns:
        the name, with each byte that is not printable ASCII as ``\DDD``, truncated to
        `MOST_BYTES`, and where its question ends; None if it is no query.
    """
    if len(query) < _HEADER or query[2] & 0x80:
        return None
    labels, at = list[str](), _HEADER
    while at < len(query) and (size := query[at]):
        label = query[at + 1 : at + 1 + size]
        if size > _LONGEST_LABEL or len(label) != size:
            return None
        labels.append("".join(map(_escaped, label)))
        at += 1 + size
    end = at + 5
    return (".".join(labels)[:MOST_BYTES], end) if end <= len(query) else None


def _escaped(byte: int) -> str:
    plain = 0x21 <= byte <= 0x7E and byte not in b".\\"
    return chr(byte) if plain else f"\\{byte:03d}"
