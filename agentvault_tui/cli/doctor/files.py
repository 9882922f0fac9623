"""The doctor on the home: paths, owners, modes, settings and policy."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.home import Home, check_socket_path
from agentvault_tui.model.finding import Finding, fault, ok, warning

_LEAST_FREE = 200 * 1024 * 1024
"""Below this a busy broker may run out of disk within hours."""


def check_files(session: CliSession) -> Iterator[Finding]:
    """Say where everything lies, and whether only its owner can touch it."""
    home = session.home
    yield ok(f"data in {home.data}, settings in {home.config}")
    check_socket_path(home.socket)
    if not home.data.exists():
        yield ok("the home is not made yet: the first broker makes it")
        return
    bad = list(_too_open(home))
    yield from bad
    if not bad:
        yield ok("folders and files are their owner's alone")
    free = _free_bytes(home.data)
    if (short := lazy_room("ledger.space").shortage(home.data)) is not None:
        yield fault(short, "make room: until then nothing is granted")
    elif free < _LEAST_FREE:
        yield warning(
            f"{free // 1024 // 1024} MiB of disk are free",
            "make room: without it nothing can be recorded, so nothing is issued",
        )


def check_settings(session: CliSession) -> Iterator[Finding]:
    """Read the settings as the broker would."""
    settings = session.settings
    source = session.home.config_file
    where = f"{source}" if source.exists() else "defaults and environment"
    tenant = settings.tenant.issuer or "embedded"
    yield ok(f"from {where}: listen {settings.broker.listen}, tenant {tenant}")
    if settings.tenant.issuer and not settings.tenant.client_id:
        kept = lazy_room("vault.kept_clients").KeptClients
        if not kept(session.home, settings.tenant.issuer).client_id("console"):
            yield fault(
                "tenant.issuer is set, and no application of it is known",
                "agentvault auth0 apply makes one; or set tenant.client_id",
            )


def check_policy(session: CliSession) -> Iterator[Finding]:
    """Load policy and catalogue as the broker would."""
    policy = lazy_room("broker.policy_files").load_policy(session.home)
    policy.catalogue.check_connections(session.settings.connection_scopes)
    yield ok(
        f"{len(policy.rules)} rules from {policy.source}, version {policy.version}"
    )


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
    """Name the folders, and the files right in them."""
    for folder in dict.fromkeys((home.data, home.config, home.keys, home.tenant)):
        yield folder
    yield home.run
    for folder in dict.fromkeys((home.data, home.keys, home.tenant, home.run)):
        if folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if not path.is_dir())
    if home.config != home.data:
        yield from (home.config_file, home.policy_file, home.scopes_file)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
