"""What ``agentvault doctor`` looks at in the home: paths, owners, modes, free space."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentvault_tui.cli.session import CliSession
from agentvault_tui.home import Home, check_socket_path, user_name
from agentvault_tui.model.finding import Finding, fault, ok, warning

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
    yield from _closed(home.config_file)
    bad = list(_too_open(home))
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


def _closed(settings: Path) -> Iterator[Finding]:
    """Close a settings file that others may read, and nothing worse.

    Editors make files so. It holds no secret, and nobody else could have changed it.
    """
    try:
        file = os.open(settings, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # none, a link, or not ours: `_too_open` says so
    try:
        found = os.fstat(file)
        mode = stat.S_IMODE(found.st_mode)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
        if not ours or not mode & 0o077 or mode & 0o022:
            return
        os.fchmod(file, 0o600)
    finally:
        os.close(file)
    yield warning(f"others could read {settings} (mode {mode:04o}): it is 0600 now")


def _too_open(home: Home) -> Iterator[Finding]:
    for path in _paths(home):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if found.st_uid != os.getuid():
            yield fault(
                f"{path} belongs to uid {found.st_uid}, not to you",
                f"chown it, or run as its owner: ls -ld {path}",
            )
        elif stat.S_ISLNK(found.st_mode):
            yield warning(
                f"{path} is a symbolic link", "make sure of what it points to"
            )
        elif stat.S_IMODE(found.st_mode) & 0o077:
            mode = "0700" if stat.S_ISDIR(found.st_mode) else "0600"
            yield fault(
                f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
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
