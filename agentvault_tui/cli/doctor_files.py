"""Checks of ``agentvault doctor``: user, paths, owners, modes and free space."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home, check_socket_path
from agentvault_tui.model.finding import Finding, fault, ok, warning
from agentvault_tui.trusted_files import user_name

_LEAST_FREE: Final = 200 * 1024 * 1024
"""Below this a busy broker may run out of disk within hours."""


def check_user(_: CliSession) -> Iterator[Finding]:
    """Check that this is not root."""
    if os.geteuid():
        yield ok(f"runs as {user_name(os.geteuid())}")
        return
    yield warning(
        "this is root: who takes over the broker has the machine, and agents that run"
        " as root read what it reads",
        "run it as a user of its own: agentvault systemd install",
    )


def check_files(session: CliSession) -> Iterator[Finding]:
    """Check paths, owners, modes and free space."""
    from agentvault_tui.ledger.opening import shortage

    home = session.home
    yield ok(f"data in {home.data}, settings in {home.config}")
    check_socket_path(home.socket)
    if not home.data.exists():
        yield ok("the home is not made yet: the first broker makes it")
        return
    refused = set[Path]()
    bad = [*_written_by_others(home, refused), *_too_open(home, refused)]
    yield from bad
    if not bad:
        yield ok("folders and files are their owner's alone")
    disk = os.statvfs(home.data)
    free = disk.f_bavail * disk.f_frsize
    if (short := shortage(home.data)) is not None:
        yield fault(short, "make room: until then nothing is granted")
    elif free < _LEAST_FREE:
        yield warning(
            f"{free // 1024 // 1024} MiB of disk are free",
            "make room: without it nothing can be recorded, so nothing is issued",
        )


def _written_by_others(home: Home, refused: set[Path]) -> Iterator[Finding]:
    """Close files that others may write, as a start does, or add them to *refused*."""
    for path in home.files():
        try:
            notice = home.check_file(path, private=True)
        except SettingsError as error:
            refused.add(path)
            yield fault(error.what, error.remedy)
        else:
            if notice:
                yield warning(notice)


def _too_open(home: Home, refused: set[Path]) -> Iterator[Finding]:
    for path in _paths(home):
        if path in refused:
            continue
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if status.st_uid != os.getuid():
            yield fault(
                f"{path} belongs to uid {status.st_uid}, not to you",
                f"chown it, or run as its owner: ls -ld {path}",
            )
        elif stat.S_ISLNK(status.st_mode):
            yield warning(
                f"{path} is a symbolic link", "make sure of what it points to"
            )
        elif stat.S_IMODE(status.st_mode) & 0o077:
            mode = "0700" if stat.S_ISDIR(status.st_mode) else "0600"
            yield fault(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                f"chmod {mode} {path}",
            )


def _paths(home: Home) -> Iterator[Path]:
    """Yield the home's folders and the files in them."""
    for folder in dict.fromkeys((home.data, home.config, home.keys, home.tenant)):
        yield folder
    yield home.run
    for folder in dict.fromkeys((home.data, home.keys, home.tenant, home.run)):
        if folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if not path.is_dir())
    if home.config != home.data:
        yield from (home.config_file, home.policy_file, home.scopes_file)
