"""Stand-ins: empty files and folders that hold the place of a protected path.

They are made on disk for a mount to hold, and are removed at the end of the run, or at
the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Final

from agentvault_tui.confine.paths import open_unlinked
from agentvault_tui.confine.protected import Protection, kind_of, linked
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import locked_folder, put_private

_OWN: Final = {
    "commondir": b".\n",
    **dict.fromkeys(("opencode.json", "opencode.jsonc"), b"{}\n"),
    ".devcontainer.json": b"{}\n",
}
"""The text of a stand-in, if it may not be empty: ``commondir`` names its folder."""


@contextmanager
def stand_ins(records: Path, protection: Protection) -> Iterator[None]:
    """Have stand-ins on disk for a block, and remove those that runs left behind.

    Two runs may share one: it is removed when the last of them ends. A record in
    *records*, locked while its run lives, says which stand-ins it uses.

    Args:
        records: a folder of AgentVault's home.
        protection: gets the stand-ins as read-only paths.

    Raises:
        NotConfinedError: one cannot be made.
    """
    records.mkdir(exist_ok=True, mode=0o700)
    record = records / f"{os.getpid()}.json"
    with locked_folder(records):
        used = _sweep(records)
        for path in [one for one in protection.read_only if not os.path.lexists(one)]:
            # It was the stand-in of a run that has ended.
            protection.read_only.remove(path)
            protection.missing[path] = kind_of(path)
        parents = {
            path.parent: "folder"
            for path in protection.missing
            if not os.path.lexists(path.parent)
        }
        made = parents | protection.missing
        there = (*protection.read_only, *protection.pinned)
        wanted = [*(path for path in there if path in used), *made]
        put_private(record, json.dumps([*map(str, wanted)]).encode(), replace=True)
        lock = os.open(record, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for path, kind in made.items():
                _make(path, kind)
        except NotConfinedError:
            os.close(lock)
            _sweep(records)
            raise
    protection.read_only += protection.missing
    try:
        yield
    finally:
        with locked_folder(records):
            os.close(lock)
            _sweep(records)


def list_left(records: Path) -> list[Path]:
    """Return the stand-ins that killed runs left behind.

    Args:
        records: the folder with records of stand-ins.

    Returns:
        their paths, the inner ones first.
    """
    if not records.is_dir():
        return []
    used, left, _ = _read(records)
    return [one for one in sorted(left - used, reverse=True) if os.path.lexists(one)]


def _sweep(records: Path) -> set[Path]:
    """Remove the stand-ins of runs that have ended; return those of the others."""
    used, left, ended = _read(records)
    for record in ended:
        rmtree(record.with_suffix(".dev"), ignore_errors=True)
        record.unlink()
    for path in sorted(left - used, reverse=True):
        remove_stand_in(path)
    return used


def _read(records: Path) -> tuple[set[Path], set[Path], list[Path]]:
    """Return the stand-ins of runs that live, those of others, and their records."""
    used, left, ended = set[Path](), set[Path](), list[Path]()
    for record in records.glob("*.json"):
        descriptor = os.open(record, os.O_RDONLY | os.O_CLOEXEC)
        try:
            paths = {Path(one) for one in json.loads(os.read(descriptor, 1 << 24))}
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            used |= paths
            continue
        except ValueError:
            paths = set()  # the machine stopped before it was written
        finally:
            os.close(descriptor)
        left |= paths
        ended.append(record)
    return used, left, ended


def _make(path: Path, kind: str) -> None:
    try:
        folder = open_unlinked(path.parent)
        try:
            if kind == "folder":
                os.mkdir(path.name, 0o755, dir_fd=folder)
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(path.name, flags, 0o644, dir_fd=folder)
            os.write(descriptor, _OWN.get(path.name, b""))
            os.close(descriptor)
        finally:
            os.close(folder)
    except FileExistsError:
        if path.is_symlink():  # it has become one since it was looked for
            raise linked(path) from None
    except OSError as error:
        raise NotConfinedError(
            f"{path} cannot be protected, because no stand-in can be made there"
            f" ({error.strerror})",
            "give a folder that you may write in",
        ) from error


def remove_stand_in(path: Path) -> None:
    """Remove a stand-in, unless a program has put something into it since.

    Args:
        path: of a file or folder.
    """
    with suppress(OSError):
        folder = open_unlinked(path.parent)
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(path.name, dir_fd=folder)
            elif stat.S_ISREG(status.st_mode):
                own = _OWN.get(path.name, b"")
                flags = os.O_RDONLY | os.O_NOFOLLOW
                descriptor = os.open(path.name, flags, dir_fd=folder)
                same = os.read(descriptor, len(own) + 1) == own
                os.close(descriptor)
                if same:
                    os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
