"""Confines a command without namespaces, by Landlock and seccomp: weaker, and said so.

Landlock is three system calls with structures that the kernel promises not to change
(landlock(7)); the libraries for Python that were there had two releases each.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agentvault_tui.confine.paths import open_unlinked
from agentvault_tui.confine.view import View, system_paths
from agentvault_tui.errors import NotConfinedError

LEAST: Final = 4
"""The first ABI with rules for TCP (Linux 6.7)."""
_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of the system calls, on every processor."""
_VERSION: Final = 1
_SCOPES: Final = 6
"""The ABI with scopes for signals and abstract sockets."""
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_CONNECT_TCP: Final = 2
_ALL_TCP: Final = 3
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_NO_NEW_PRIVILEGES, _SECCOMP, _DEATH_SIGNAL = 38, 22, 1
"""Options of prctl(2)."""
_DROP_CAPABILITY, _MOST_CAPABILITIES = 24, 64
"""PR_CAPBSET_DROP: a program that root starts gets no capability that is not there."""


class PathAccess(NamedTuple):
    """The access below a path."""

    path: str
    access: int
    followed: bool = False
    """Whether it may be a link: one of the system, which no command can change."""


def abi() -> int:
    """Return the version of Landlock here; 0 if there is none."""
    version = _call(_CREATE, None, 0, _VERSION)
    return max(version, 0)


def weaker_than_promised(version: int, ports: Iterable[int]) -> tuple[str, ...]:
    """Return each promise that does not hold with this version, in a sentence."""
    numbers = " and ".join(map(str, ports))
    return (
        f"TCP to ports {numbers} of every machine is open",
        "other processes are seen"
        + ("" if version >= _SCOPES else " and can be sent signals"),
        "a daemon of the command may live on after the run",
        "files that hosts, editors and git obey, such as .git/hooks, can be written",
        "modes, owners and times of files that are yours can be changed anywhere",
        "your terminal, or a socket as standard stream, is the command's too",
        "servers cannot listen, and shared memory of System V is refused",
        "there is no /tmp of its own: TMPDIR names a folder in its home",
        "attempts to reach something else are seen at the proxy only",
    )


class Restriction:
    """The restrictions that a process takes on before it becomes the command."""

    def __init__(self, view: View, ports: Iterable[int], code: bytes) -> None:
        """Prepare the ruleset.

        Args:
            view: the command's files.
            ports: TCP ports that it may connect to.
            code: a filter of `build_filter`.

        Raises:
            NotConfinedError: this kernel has no Landlock that suffices.
        """
        version = abi()
        if version < LEAST:
            raise NotConfinedError(
                "Landlock of Linux 6.7 or later is missing",
                "run it where user namespaces work: docs/confine.md",
            )
        every = (1 << (16 if version > LEAST else 15)) - 1
        scoped = 3 if version >= _SCOPES else 0
        attributes = struct.pack("=QQQ", every, _ALL_TCP, scoped)
        size = len(attributes) if version >= _SCOPES else 16
        self._ruleset = _checked(_call(_CREATE, attributes, size, 0))
        for rule in _rules(view):
            self._allow(rule, every)
        for port in ports:
            allowed = struct.pack("=QQ", _CONNECT_TCP, port)
            _checked(_call(_ADD, self._ruleset, 2, allowed, 0))
        self._code = ctypes.create_string_buffer(code, len(code))
        address = ctypes.addressof(self._code)
        self._program = struct.pack("@HP", len(code) // 8, address)

    def _allow(self, rule: PathAccess, every: int) -> None:
        try:
            if rule.followed:
                descriptor = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
            else:
                descriptor = open_unlinked(Path(rule.path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise NotConfinedError(
                f"{rule.path} cannot be opened ({error.strerror})",
                "look at it: a command that works there may have exchanged it",
            ) from None
        try:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            access = rule.access & every & (~0 if is_folder else _OF_FILES)
            allowed = struct.pack("=Qi", access, descriptor)
            _checked(_call(_ADD, self._ruleset, 1, allowed, 0))
        finally:
            os.close(descriptor)

    def apply(self) -> None:
        """Restrict this process and all that it becomes; it cannot be undone."""
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(_DEATH_SIGNAL, 9, 0, 0, 0))
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        if os.geteuid() == 0:
            # Without them the kernel asks Landlock: with CAP_PERFMON it shows the
            # environment of every process.
            for capability in range(_MOST_CAPABILITIES):
                libc.prctl(_DROP_CAPABILITY, capability, 0, 0, 0)
        _checked(_call(_RESTRICT, self._ruleset, 0))
        _checked(libc.prctl(_SECCOMP, 2, self._program, 0, 0))

    def close(self) -> None:
        """Close the ruleset."""
        with suppress(OSError):
            os.close(self._ruleset)


def _rules(view: View) -> list[PathAccess]:
    names = {name for name, _ in view.links}
    readable = [one for one in (*view.runtime, *view.read) if one not in names]
    rules = [PathAccess(path, _READ, True) for path in (*system_paths(), "/proc")]
    rules += [PathAccess(str(path), _READ) for path in (*readable, *view.own)]
    rules += [PathAccess(str(path), ~0) for path in (view.home, *view.write)]
    device = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL
    rules += [PathAccess(f"/dev/{name}", device, True) for name in _DEVICES]
    return rules


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
