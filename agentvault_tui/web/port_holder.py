"""Find the process of this machine that listens at a port."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agentvault_tui.text import visible

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
"""``TCP_LISTEN`` as proc_pid_net(5) writes a socket's state."""
_MOST_PROCESSES: Final = 100_000
_SOCKET: Final = re.compile(r"socket:\[([0-9]+)\]")


class _Socket(NamedTuple):
    inode: str
    uid: int


def port_holder(port: int, proc: Path = _PROC) -> str:
    """Name the process that listens at a TCP port, as far as this user may know.

    The files of another user's processes are not readable (proc_pid_fd(5)): then only
    the user is named. A socket that is bound but does not listen is not found.

    Args:
        port: the port, at any address of this machine.
        proc: the mounted proc file system.

    Returns:
        such as ``nginx (pid 812)``; a sentence part, safe to show.
    """
    sockets = list(_listening(port, proc))
    for process in _processes(proc):
        with suppress(OSError):
            held = {_inode(file) for file in (process / "fd").iterdir()}
            if any(one.inode in held for one in sockets):
                name = (process / "comm").read_text("utf-8", "replace").strip()
                return f"{visible(name, 40)} (pid {process.name})"
    if sockets:
        return f"a process of the user {_user(sockets[0].uid)}, not readable from here"
    return "an unknown process"


def _listening(port: int, proc: Path) -> Iterator[_Socket]:
    """Yield the sockets that listen at a port (proc_pid_net(5))."""
    for table in ("tcp", "tcp6"):
        lines: list[str] = []
        with suppress(OSError):
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        for line in lines:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTENS:
                continue
            if int(fields[1].rpartition(":")[2], 16) == port:
                yield _Socket(fields[9], int(fields[7]))


def _processes(proc: Path) -> Iterator[Path]:
    with suppress(OSError):
        for number, entry in enumerate(proc.iterdir()):
            if number > _MOST_PROCESSES:
                return
            if entry.name.isdecimal():
                yield entry


def _inode(file: Path) -> str:
    with suppress(OSError):
        if match := _SOCKET.fullmatch(str(file.readlink())):
            return match[1]
    return ""


def _user(uid: int) -> str:
    try:
        return str(visible(pwd.getpwuid(uid).pw_name, 40))
    except KeyError:
        return str(uid)
