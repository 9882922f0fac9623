"""The sockets of a confined command's network namespace, made from outside of it.

A socket belongs to the namespace in which it was made, so one that is made there and
passed out (unix(7), SCM_RIGHTS) accepts the command's connections here: no code of ours
runs inside. Loopback is all that this namespace has, so no packet leaves it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from agentvault_tui.errors import NotConfinedError

LOOPBACK: Final = "127.0.0.1"
_NS_GET_USERNS: Final = 0xB701
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PATIENCE_S: Final = 10.0
"""How long bubblewrap may take to give the namespace its loopback device."""
_GET_FLAGS, _UP = 0x8913, 0x1
"""SIOCGIFFLAGS and IFF_UP (netdevice(7))."""
_BACKLOG: Final = 128
_DNS: Final = (LOOPBACK, 53)
_MOST_SOCKETS: Final = 8
_ALL_PROTOCOLS: Final = 0x0003  # ETH_P_ALL
_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER
_ELSEWHERE: Final = (
    # (code, if true, if false, value) of struct sock_filter; packets begin with IP.
    (0x30, 0, 0, 0),  # A = the first byte
    (0x74, 0, 0, 4),  # A >>= 4, the version
    (0x15, 0, 2, 4),  # IPv4?
    (0x30, 0, 0, 16),  # A = the first byte of the destination
    (0x15, 7, 8, 127),  # loopback: drop; else take
    (0x15, 0, 6, 6),  # IPv6? else drop
    (0x20, 0, 0, 24),  # A = the first quarter of the destination
    (0x15, 0, 5, 0),  # not ::…: take
    (0x20, 0, 0, 28),
    (0x15, 0, 3, 0),
    (0x20, 0, 0, 36),
    (0x15, 0, 1, 1),  # ::1: drop
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 512),  # take this many bytes
)
"""Takes packets to other addresses than loopback: proxied bytes cost nothing here."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and port outside that the command reaches at the same URL."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Return the endpoint of a URL with a port."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise NotConfinedError(f"{url} has no host and port")
        return cls(parts.hostname, parts.port)

    @property
    def name(self) -> str:
        """Return the host if it is a name; empty if it is an address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return self.host
        return ""


class InsideSockets(NamedTuple):
    """Sockets that belong to the network namespace of a command."""

    listeners: tuple[socket.socket, ...]
    """One for each endpoint, in their order."""
    packets: socket.socket | None
    """Each packet to another address than loopback; None if that cannot be watched."""
    names: socket.socket | None
    """Queries to the command's resolver; None as above."""

    def close(self) -> None:
        """Close all of them."""
        for one in (*self.listeners, self.packets, self.names):
            if one is not None:
                one.close()


def open_inside(pid: int, endpoints: Sequence[Endpoint]) -> InsideSockets:
    """Open the sockets of the network namespace that the process *pid* is in.

    Args:
        pid: a process that a program of this user put into new namespaces.
        endpoints: all that it reaches.

    Raises:
        NotConfinedError: the namespace cannot be joined, or has no loopback.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = os.fork()  # setns(2) takes a process of one thread, and moves all of it
    if child == 0:
        try:
            ours.close()
            _send_sockets(theirs, pid, endpoints)
        finally:
            os._exit(0)
    theirs.close()
    with closing(ours):
        data, descriptors, _, _ = socket.recv_fds(ours, 65_536, _MOST_SOCKETS)
    os.waitpid(child, 0)
    message = json.loads(data or b'{"error": "it broke off"}')
    if "error" in message:
        raise NotConfinedError(
            f"the network namespace cannot be joined ({message['error']})",
            "see docs/confine.md, where it works",
        )
    sockets = [socket.socket(fileno=one) for one in descriptors]
    watched = bool(message["watched"])
    return InsideSockets(
        tuple(sockets[: len(endpoints)]),
        sockets[-2] if watched else None,
        sockets[-1] if watched else None,
    )


def _send_sockets(
    channel: socket.socket, pid: int, endpoints: Sequence[Endpoint]
) -> None:
    """Join the namespaces, make the sockets and send them; runs in a child."""
    try:
        _join(pid)
        _wait_for_loopback(pid)
        sockets = [_listen(endpoint) for endpoint in endpoints]
    except OSError as error:
        channel.sendall(json.dumps({"error": str(error)}).encode())
        return
    watching = list[socket.socket]()
    with suppress(OSError):
        _take_every_address()
        watching = [_packets(), _resolver()]
    message = json.dumps({"watched": bool(watching)}).encode()
    every = [one.fileno() for one in (*sockets, *watching)]
    socket.send_fds(channel, [message], every)


def _join(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    # First the user namespace: it gives the capabilities that the second one takes.
    for namespace, kind in ((owner, _CLONE_NEWUSER), (network, _CLONE_NEWNET)):
        if libc.setns(namespace, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _wait_for_loopback(pid: int) -> None:
    """Wait until bubblewrap has brought the device up, after giving it an address."""
    request = struct.pack("16sH14x", b"lo", 0)
    ends = time.monotonic() + _PATIENCE_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        while True:
            answer = fcntl.ioctl(opened, _GET_FLAGS, request)
            if struct.unpack_from("H", answer, 16)[0] & _UP:
                return
            if time.monotonic() > ends or not Path(f"/proc/{pid}").exists():
                raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
            time.sleep(0.0005)


def _listen(endpoint: Endpoint) -> socket.socket:
    host = LOOPBACK if endpoint.name else endpoint.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, endpoint.port))
    listener.listen(_BACKLOG)
    return listener


def _take_every_address() -> None:
    """Add a route by which each address is this namespace's own (rtnetlink(7))."""
    index = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct rtmsg: table local, protocol static, scope host, type local.
            route = struct.pack("=8BI", family, 0, 0, 0, 255, 4, 254, 2, 0)
            route += struct.pack("=HHI", 8, 4, index)  # RTA_OIF
            # RTM_NEWROUTE with REQUEST, ACK, EXCL and CREATE.
            head = struct.pack("=IHHII", 16 + len(route), 24, 0x605, 1, 0)
            netlink.send(head + route)
            code = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
            if code and family == socket.AF_INET:
                raise OSError(-code, os.strerror(-code))


def _packets() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    instructions = b"".join(struct.pack("=HBBI", *one) for one in _ELSEWHERE)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("@HP", len(_ELSEWHERE), ctypes.addressof(buffer))
    opened.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    opened.bind(("lo", _ALL_PROTOCOLS))
    return opened


def _resolver() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(_DNS)
    return opened
