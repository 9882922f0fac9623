"""Paths that a confined command must not write, because programs outside obey them.

Each becomes a read-only mount. Where one is missing, an empty stand-in is made on disk
for the mount to hold, and is removed at the end of the run, or at the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import locked_folder, put_private

PROTECTED: Final = {
    **dict.fromkeys((".claude", ".codex", ".cursor", ".gemini"), "folder"),
    **dict.fromkeys((".vscode", ".idea"), "folder"),
    **dict.fromkeys((".gitmodules", ".mcp.json", ".envrc"), "file"),
}
"""At the top of a folder or repository, besides what is in its ``.git``."""
_IN_GIT: Final = {
    "hooks": "folder",
    "config": "file",
    "config.worktree": "file",
    "commondir": "file",
}
"""In git's own folder: ``commondir`` names another folder with hooks and a
configuration (gitrepository-layout(5))."""
_KINDS: Final = {".git": "folder", **PROTECTED, **_IN_GIT}
_OWN: Final = {"commondir": b".\n"}
"""The text of a stand-in, if it may not be empty: the folder itself."""
_UNSEARCHED: Final = frozenset({"objects", "refs", "logs"})
"""Folders of a git folder that hold no other one."""


@dataclass(slots=True)
class Protection:
    """The mounts over the folders that a command may write."""

    read_only: list[Path] = field(default_factory=list)
    pinned: list[Path] = field(default_factory=list)
    """Folders mounted on themselves: a mount point cannot be renamed (EBUSY)."""
    missing: dict[Path, str] = field(default_factory=dict)
    """Stand-ins to be made, with ``folder`` or ``file``."""

    def mounts(self) -> Iterator[tuple[str, Path]]:
        """Yield ``bind`` or ``ro-bind`` and a path, parents first."""
        mounts = dict.fromkeys(self.pinned, "bind")
        mounts |= dict.fromkeys(self.read_only, "ro-bind")
        for path in sorted(mounts):
            if not any(mounts.get(above) == "ro-bind" for above in path.parents):
                yield mounts[path], path


def protect(tops: Iterable[Path], opened: Iterable[Path] = ()) -> Protection:
    """Find the files to be read-only in folders that a command may write.

    Args:
        tops: the folders, with links resolved.
        opened: protected paths that the operator opens by an option.

    Returns:
        the protection of each folder, and of each git repository in it.

    Raises:
        NotConfinedError: a protected path is a link, over which nothing can be mounted.
    """
    protection, allowed = Protection(), frozenset(opened)
    given = sorted(set(tops))
    for top in given:
        outer = next(one for one in given if top.is_relative_to(one))
        for folder, in_git in _repositories(top):
            for name in _IN_GIT if in_git else (".git", *PROTECTED):
                path, kind = folder / name, _KINDS[name]
                if path in allowed or (name == ".git" and path.is_dir()):
                    continue  # a folder .git has a turn of its own
                _add(protection, path, kind)
                _pin(protection, outer, path)
    return protection


def _add(protection: Protection, path: Path, kind: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if os.access(path.parent, os.W_OK):  # else the command cannot make it either
            protection.missing[path] = kind
        return
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise _linked(path)
    protection.read_only.append(path)


def _linked(path: Path) -> NotConfinedError:
    return NotConfinedError(
        f"{path} is a link, which cannot be made read-only",
        f"replace it by what it leads to, or allow changes with --write {path}",
    )


def _pin(protection: Protection, top: Path, path: Path) -> None:
    for above in path.parents:
        if above == top or above in protection.pinned:
            return
        protection.pinned.append(above)


def _repositories(top: Path) -> Iterator[tuple[Path, bool]]:
    """Yield *top*, work trees in it, and folders that git takes for its own.

    The second value says that a folder is git's own.
    """
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                names = {
                    entry.name: entry.is_dir(follow_symlinks=False) for entry in entries
                }
        except OSError:
            continue  # the command cannot look there either
        path = Path(folder)
        git = path.name == ".git" or (
            "HEAD" in names and bool({"objects", "commondir"} & names.keys())
        )
        if git:
            yield path, True
        elif path == top or ".git" in names:
            yield path, False
        waiting += [
            os.path.join(folder, name)  # noqa: PTH118 - thousands of them
            for name, is_folder in names.items()
            if is_folder and not (git and name in _UNSEARCHED)
        ]


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
            protection.missing[path] = _KINDS[path.name]
        shared = [path for path in protection.read_only if path in used]
        wanted = [*shared, *protection.missing]
        put_private(record, json.dumps([*map(str, wanted)]).encode(), replace=True)
        lock = os.open(record, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path, kind in protection.missing.items():
            _make(path, kind)
    protection.read_only += protection.missing
    try:
        yield
    finally:
        with locked_folder(records):
            os.close(lock)
            _sweep(records)


def _sweep(records: Path) -> set[Path]:
    """Remove the stand-ins of runs that have ended; return those of the others."""
    used, left = set[Path](), set[Path]()
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
        record.unlink()
    for path in sorted(left - used, reverse=True):
        _remove(path)
    return used


def _make(path: Path, kind: str) -> None:
    try:
        folder = _open_folder(path.parent)
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
            raise _linked(path) from None
    except OSError as error:
        raise NotConfinedError(
            f"{path} cannot be kept from being made ({error.strerror})",
            "give a folder that you may write in",
        ) from error


def _remove(path: Path) -> None:
    """Remove a stand-in, unless somebody has put something in it since."""
    with suppress(OSError):
        folder = _open_folder(path.parent)
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


def _open_folder(path: Path) -> int:
    """Open a folder through no link: a command may be at work in it."""
    folder = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for part in path.parts[1:]:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            below = os.open(part, flags, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def excluded(protection: Protection) -> str:
    """Return patterns by which git leaves stand-ins alone (gitignore(5))."""
    names = {path.name for path in protection.missing if path.parent.name != ".git"}
    return "".join(f"/{name}\n" for name in sorted(names))


def sockets_in(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the Unix sockets in folders that a command sees.

    Raises:
        NotConfinedError: a folder cannot be listed, so that it may hold one.
    """

    def refuse(error: OSError) -> None:
        raise NotConfinedError(
            f"{error.filename} may hold sockets and cannot be listed",
            "leave --local-sockets away",
        )

    for top in folders:
        for folder, _, names in os.walk(top, onerror=refuse):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    if stat.S_ISSOCK(path.lstat().st_mode):
                        yield path
