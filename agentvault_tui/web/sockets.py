"""Bind sockets, and ask the kernel who is at the other end of one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import logging
import os
import socket
import stat
import struct
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from agentvault_tui.errors import ConflictError, SettingsError
from agentvault_tui.home import check_socket_path, private_folder
from agentvault_tui.web.shares import classes_of

_UCRED: Final = struct.Struct("=iII")
"""``struct ucred`` of unix(7): pid, uid, gid."""
_XUCRED: Final = struct.Struct("=II")
"""The head of ``struct xucred`` on macOS: version, uid."""
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_ESTABLISHED: Final = 1
_NLM_F_REQUEST: Final = 1
_ALL_STATES: Final = 0xFFFF_FFFF
_ANY_INTERFACE_OR_COOKIE: Final = b"\0\0\0\0" + b"\xff" * 8
_SEQUENCE: Final = struct.Struct("=8xI")
_DIAG_ASKED: Final = struct.Struct("=IHHIIBBxxI")
"""``struct nlmsghdr`` and the head of ``struct inet_diag_req_v2``."""
_DIAG_ENDS: Final = struct.Struct("!HH16s16s12s")
"""``struct inet_diag_sockid``."""
_DIAG_TOLD: Final = struct.Struct("=16xxB2x48x12xII")
"""Of ``struct inet_diag_msg``: state, uid and inode."""
_numbers: Final = itertools.count(1)
_PROBE_SECONDS: Final = 1.0
_TWINS: Final = {"127.0.0.1": "::1", "::1": "127.0.0.1"}
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_PORTS_TRIED: Final = 32
_SUBUIDS = Path("/etc/subuid")
_log = logging.getLogger("agentvault.web")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a Unix socket, as the kernel names it."""

    uid: int
    pid: int | None


def tcp_socket(host: str, port: int) -> socket.socket:
    """Bind an address of 127.0.0.0/8, or ::1; port 0 picks one.

    Raises:
        SettingsError: *host* is not a loopback address of this machine.
        ConflictError: the port is taken.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(f"'{host}' is not an IP address") from None
    if not address.is_loopback:
        raise SettingsError(f"{host} is not a loopback address", "use 127.0.0.1 or ::1")
    return _bound(
        *(host, port),
        f"--listen, or by [broker] listen in config.toml: {host}:0 takes any free port",
    )


def public_socket(host: str, port: int) -> socket.socket:
    """Bind an address that other machines reach; the caller's app must expect them.

    Args:
        host: an address of this machine, or 0.0.0.0 or ::.
        port: 1 to 65535.

    Returns:
        a socket that listens.

    Raises:
        SettingsError: *host* is no address of this machine, or we may not bind it.
        ConflictError: the port is taken.
    """
    return _bound(host, port, "listen of its section in config.toml")


def _bound(host: str, port: int, setting: str) -> socket.socket:
    address = ipaddress.ip_address(host)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    # The protocol is named because asyncio sets TCP_NODELAY only where it is, and a
    # two-part answer would otherwise wait 40 ms for a delayed acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} on {host} is in use",
                f"stop what listens there, or name another by {setting}",
            ) from error
        raise SettingsError(f"cannot listen on {host} ({error.strerror})") from error
    return bound


def loopback_pair(host: str, port: int) -> tuple[socket.socket, socket.socket | None]:
    """Bind a loopback address, and reserve its port on the other loopback.

    A client of ``localhost`` tries 127.0.0.1 and ::1 in an order of its own (RFC 6761
    section 6.3): another user's program on the one left free would get our requests.
    The second socket never listens, so such a client is refused there at once and tries
    the first.

    Args:
        host: where to listen.
        port: 0 picks one that is free on both.

    Returns:
        the socket to listen on, and the reserving one; None if the machine has no such
        address, or *host* is neither of the two.

    Raises:
        SettingsError: *host* is not a loopback address of this machine.
        ConflictError: the port is taken on either.
    """
    for left in reversed(range(_PORTS_TRIED if port == 0 else 1)):
        bound = tcp_socket(host, port)
        try:
            # Listening, nobody else can bind the port, not even with SO_REUSEADDR.
            bound.listen()
            return bound, _held(host, int(bound.getsockname()[1]))
        except BaseException as error:
            bound.close()
            if left == 0 or not isinstance(error, ConflictError):
                raise
    raise AssertionError("unreachable")


def _held(host: str, port: int) -> socket.socket | None:
    """Bind *port* on the other loopback than *host*, and do not listen."""
    twin = _TWINS.get(host)
    if twin is None:
        return None
    held: socket.socket | None = None
    try:
        held = socket.socket(socket.AF_INET6 if ":" in twin else socket.AF_INET)
        if ":" in twin:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Not SO_REUSEADDR: with that, whoever sets it too could bind and listen.
        held.bind((twin, port))
    except OSError as error:
        if held is not None:
            held.close()
        if error.errno in _NO_FAMILY:
            _log.info("this machine has no %s; %s alone is held", twin, host)
            return None
        raise ConflictError(
            f"port {port} on {twin} is in use: a client that says localhost could "
            "reach that program instead of this one",
            "stop what listens there, or name another as [broker] listen in "
            "config.toml; port 0 takes any free one",
        ) from error
    return held


def unix_socket(path: Path) -> socket.socket:
    """Bind *path* with mode 0600 from its first moment, removing a dead one.

    Its folder has mode 0700.

    Raises:
        SettingsError: the path is too long, not a socket, or its folder is unsafe.
        ConflictError: someone listens there already.
    """
    check_socket_path(path)
    _check_folder(path.parent)
    _remove_dead(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind(2) makes the file with 0777 less the umask: no moment with a wider mode.
    umask = os.umask(0o177)
    try:
        bound.bind(str(path))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise SettingsError(f"cannot make {path} ({error.strerror})") from error
    finally:
        os.umask(umask)
    return bound


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Ask the kernel who connected (``SO_PEERCRED``: fixed at connect time)."""
    connected: socket.socket = transport.get_extra_info("socket")
    if sys.platform == "darwin":
        local_peercred = 1
        raw = connected.getsockopt(0, local_peercred, 76)
        return Peer(_XUCRED.unpack_from(raw)[1], None)
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return Peer(uid, pid)


def tcp_peer_uid(connected: socket.socket) -> int | None:
    """Return the user at the other end of a TCP connection, as `tcp_user` does."""
    try:
        return tcp_user(connected.getpeername(), connected.getsockname())
    except OSError:
        return None


def machine_of(connected: socket.socket | asyncio.Transport) -> str | None:
    """Return the outermost class of another machine's address.

    None for a process of this machine, and for a peer that has left.
    """
    try:
        peername = (
            connected.getpeername()
            if isinstance(connected, socket.socket)
            else connected.get_extra_info("peername")
        )
    except OSError:
        return None
    if not isinstance(peername, tuple):
        return None  # a Unix socket
    address = ipaddress.ip_address(peername[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return None if mapped.is_loopback else classes_of(peername[0])[0]


def tcp_user(peer: Sequence[Any], local: Sequence[Any]) -> int | None:
    """Return the user at the other end of a local TCP connection (``sock_diag(7)``).

    None if the kernel does not report it, or no process holds that end open any more.
    Of uids lent to one user the first.
    """
    diagnostics = _diagnostics()
    if diagnostics is None:
        return None
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    ends, number = (peer, local), next(_numbers) & 0xFFFF_FFFF
    try:
        # Seen from the other end: its own address first, then ours.
        ours = _DIAG_ENDS.pack(
            *(end[1] for end in ends),
            *(socket.inet_pton(family, end[0]) for end in ends),
            _ANY_INTERFACE_OR_COOKIE,
        )
        length = _DIAG_ASKED.size + len(ours)
        os.write(
            diagnostics,
            _DIAG_ASKED.pack(
                *(length, _BY_FAMILY, _NLM_F_REQUEST, number, 0),
                *(family, socket.IPPROTO_TCP, _ALL_STATES),
            )
            + ours,
        )
        reply = b""
        # The answer is there when it is asked; an older one may be before it.
        while len(reply) < _DIAG_TOLD.size or _SEQUENCE.unpack_from(reply)[0] != number:
            reply = os.read(diagnostics, 8192)
            if _SEQUENCE.unpack_from(reply) == (number,) and reply[4] != _BY_FAMILY:
                return None
    except (OSError, struct.error):
        return None
    state, uid, inode = _DIAG_TOLD.unpack_from(reply)
    return _first_lent(uid) if inode and state == _ESTABLISHED else None


def _first_lent(uid: int) -> int:
    """Return *uid*, or the first of all that ``subuid(5)`` lends to the same user."""
    try:
        status = _SUBUIDS.stat()
        firsts, ranges = _lent(_SUBUIDS, status.st_mtime_ns, status.st_size)
    except (OSError, UnicodeError):
        return uid
    place = bisect_right(firsts, uid) - 1
    if place < 0 or uid >= ranges[place][1]:
        return uid
    return ranges[place][2]


@lru_cache(maxsize=1)
def _lent(
    path: Path, _changed: int, _size: int
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Read the ranges: where each begins; its begin, end, and its user."""
    first_of: dict[str, int] = {}
    ranges = []
    for line in path.read_text().splitlines():
        user, *numbers = line.split(":")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            first, count = map(int, numbers)
            first_of.setdefault(user, first)
            ranges.append((first, first + count, first_of[user]))
    ranges.sort()
    return [one[0] for one in ranges], ranges


@lru_cache(maxsize=1)
def _diagnostics() -> int | None:
    """Return a descriptor to ask by, which lives as long as the process."""
    if sys.platform != "linux":
        return None
    try:
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
    except OSError:
        return None
    asking.setblocking(False)
    return asking.detach()


def _check_folder(folder: Path) -> None:
    """Insist on a folder in which no other party can replace our socket."""
    if not folder.exists():
        private_folder(folder)
    status = folder.stat()
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid not in {os.geteuid(), 0} or (
        open_to_others and not status.st_mode & stat.S_ISVTX
    ):
        raise SettingsError(
            f"others can write in the folder {folder}",
            "put the socket in one that only you can write",
        )


def _remove_dead(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"{path} exists and is not a socket", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            pass
        except OSError as error:
            raise ConflictError(f"{path} cannot be probed ({error.strerror})") from None
        else:
            raise ConflictError(f"a process already listens on {path}", "stop it first")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"cannot remove the dead socket {path} ({error.strerror})", "remove it"
        ) from error


_NO_LINGER: Final = struct.pack("ii", 1, 0)


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a connection at once; the kernel's unsent bytes are dropped.

    One that is closed already is left: uvloop says ValueError of its socket.
    """
    connected = transport.get_extra_info("socket")
    if connected is not None:
        with contextlib.suppress(OSError, ValueError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
