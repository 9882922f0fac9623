"""Paths that a confined command must not write, because programs outside obey them.

Each becomes a read-only mount. Where one is missing, an empty stand-in is made on disk
for the mount to hold, and is removed at the end of the run, or at the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentvault_tui.confine.paths import open_unlinked
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import locked_folder, put_private

PROTECTED: Final = {
    **dict.fromkeys((".claude", ".codex", ".cursor", ".gemini"), "folder"),
    **dict.fromkeys((".vscode", ".idea", ".github/hooks", ".devcontainer"), "folder"),
    **dict.fromkeys((".zed", ".kiro", ".windsurf", ".opencode"), "folder"),
    **dict.fromkeys((".gitmodules", ".mcp.json", ".envrc", ".npmrc"), "file"),
    **dict.fromkeys((".yarnrc", ".yarnrc.yml", ".devcontainer.json"), "file"),
    **dict.fromkeys(("opencode.json", "opencode.jsonc"), "file"),
}
"""At the top of a folder or repository, besides what is in its ``.git``."""
_IN_GIT: Final = {
    "hooks": "folder",
    "config": "file",
    "config.lock": "file",
    "config.worktree": "file",
    "commondir": "file",
}
"""In git's own folder: ``commondir`` names another folder with hooks and a
configuration (gitrepository-layout(5)). While ``config.lock`` is there, git outside
does not replace ``config``, which would detach the mount over it."""
_GIT_MARKS: Final = frozenset({"objects", "commondir"})
"""Git's own folder has ``HEAD`` and one of them."""
_OF_OTHERS: Final = frozenset({"modules", "worktrees"})
"""In ``.git``: the folders of submodules and of further work trees, each of which git
takes for its own."""
_GIT_PARTS: Final = frozenset({"HEAD", *_IN_GIT})
"""One of them is enough there, as a command can rename the others."""
_IN_REPOSITORY: Final = frozenset({"refs", "logs", "objects"})
"""Where such a name is a branch's."""
_BARE: Final = ("refs", "objects")
"""Folders without which git takes no folder but ``.git`` for its own."""
_KINDS: Final = {
    ".git": "folder",
    **PROTECTED,
    **_IN_GIT,
    **dict.fromkeys(_BARE, "file"),
}
_OWN: Final = {
    "commondir": b".\n",
    **dict.fromkeys(("opencode.json", "opencode.jsonc"), b"{}\n"),
    ".devcontainer.json": b"{}\n",
}
"""The text of a stand-in, if it may not be empty: ``commondir`` names its folder."""


@dataclass(slots=True)
class Protection:
    """The mounts over the folders that a command may write."""

    read_only: list[Path] = field(default_factory=list)
    pinned: list[Path] = field(default_factory=list)
    """Folders mounted on themselves: a mount point cannot be renamed (EBUSY)."""
    missing: dict[Path, str] = field(default_factory=dict)
    """Stand-ins to be made, with ``folder`` or ``file``."""
    git: list[Path] = field(default_factory=list)
    """Git's own folders."""

    def mounts(self) -> Iterator[tuple[str, Path]]:
        """Yield ``bind`` or ``ro-bind`` and a path, parents first."""
        mounts = dict.fromkeys(self.pinned, "bind")
        mounts |= dict.fromkeys(self.read_only, "ro-bind")
        for path in sorted(mounts):
            if not any(mounts.get(above) == "ro-bind" for above in path.parents):
                yield mounts[path], path


def protect(
    tops: Iterable[Path], opened: Iterable[Path] = (), git: Collection[Path] = ()
) -> Protection:
    """Find the files to be read-only in folders that a command may write.

    Args:
        tops: the folders, with links resolved.
        opened: protected paths that the operator opens by an option.
        git: folders that were git's own at an earlier start.

    Returns:
        the protection of each folder, and of each git repository in it.

    Raises:
        NotConfinedError: a protected path is a link, over which nothing can be mounted,
            or a folder cannot be searched.
    """
    protection, allowed = Protection(), frozenset(opened)
    given = sorted(set(tops))
    for top in given:
        outer = next(one for one in given if top.is_relative_to(one))
        for folder, names in _protected_names(top, git):
            if "hooks" in names:
                protection.git.append(folder)
            for name in names:
                path = folder / name
                if path not in allowed:
                    _add(protection, folder, path)
                    _pin(protection, outer, path)
    return protection


def _add(protection: Protection, folder: Path, path: Path) -> None:
    try:
        for one in (path.parent, path):
            if one != folder and stat.S_ISLNK(one.lstat().st_mode):
                raise _linked(one)
    except FileNotFoundError:
        # The mode says nothing about a folder of ours, which the command may change.
        if os.access(folder, os.W_OK) or _is_own(folder):
            protection.missing[path] = _kind(path)
    except NotADirectoryError:
        return  # a file has the place of a folder above it, and is held
    except OSError as error:
        raise _not_searched(folder, error) from None
    else:
        protection.read_only.append(path)


def _kind(path: Path) -> str:
    return _KINDS.get(path.name, "folder")


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


def _protected_names(
    top: Path, git: Collection[Path]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder below *top* in which something is protected, with the names."""
    for path, names in _folders(top):
        protected, is_git = list[str](), _is_git(path, names) or path in git
        if path == top or ".git" in names:
            protected += PROTECTED
            if not names.get(".git"):  # such a folder has a turn of its own
                protected.append(".git")
            protected += [one for one in names if one.endswith(".code-workspace")]
            # Without one of them git does not take the folder itself for its own where
            # .git is missing or damaged.
            bare = [one for one in _BARE if not names.get(one)]
            protected += bare[:1]
            is_git = is_git or not bare
        if is_git:
            protected += _IN_GIT
        if protected:
            yield path, protected


def _is_git(path: Path, names: Collection[str]) -> bool:
    """Check whether git may take a folder for its own, now or after a rename in it."""
    if path.name == ".git" or ("HEAD" in names and not _GIT_MARKS.isdisjoint(names)):
        return True
    _, *below = "/".join(path.parts).split("/.git/")
    inner = {*below[-1].split("/")} if below else set[str]()
    of_others = bool(inner & _OF_OTHERS) and not inner & _IN_REPOSITORY
    return of_others and not _GIT_PARTS.isdisjoint(names)


def _folders(top: Path) -> Iterator[tuple[Path, dict[str, bool]]]:
    """Yield *top* and each folder below it, with its names and which are folders.

    Raises:
        NotConfinedError: one cannot be searched, and its owner could change that.
    """
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                names = {
                    entry.name: entry.is_dir(follow_symlinks=False) for entry in entries
                }
        except FileNotFoundError:
            continue
        except OSError as error:
            if folder == str(top) and isinstance(error, NotADirectoryError):
                return  # one file
            if isinstance(error, PermissionError) and not _is_own(folder):
                continue  # the command cannot look there either
            raise _not_searched(folder, error) from None
        yield Path(folder), names
        waiting += [
            os.path.join(folder, name)  # noqa: PTH118 - thousands of them
            for name, is_folder in names.items()
            if is_folder
        ]


def _not_searched(folder: str | Path, error: OSError) -> NotConfinedError:
    return NotConfinedError(
        f"{folder} cannot be searched for repositories ({error.strerror})",
        "chmod u+rwx the folder, or remove it",
    )


def _is_own(folder: str | Path) -> bool:
    try:
        return os.lstat(folder).st_uid == os.geteuid()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the folder above it is one that the command may open again


def made_repositories(tops: Iterable[Path], before: Collection[Path]) -> list[Path]:
    """Return git's own folders, and files ``.git``, that a command made.

    Args:
        tops: the folders that the command could write.
        before: those that were there when it began.

    Returns:
        their paths, sorted.

    Raises:
        NotConfinedError: a folder cannot be searched.
    """
    places = set[Path]()
    for top in tops:
        for path, names in _folders(top):
            if _is_git(path, names):
                places.add(path)
            if ".git" in names:
                places.add(path / ".git")
    return sorted(places.difference(before))


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
            protection.missing[path] = _kind(path)
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
            raise _linked(path) from None
    except OSError as error:
        raise NotConfinedError(
            f"{path} cannot be kept from being made ({error.strerror})",
            "give a folder that you may write in",
        ) from error


def _remove(path: Path) -> None:
    """Remove a stand-in, unless somebody has put something in it since."""
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


def excluded(protection: Protection) -> str:
    """Return patterns by which git leaves stand-ins alone (gitignore(5))."""
    top = {*PROTECTED, *_BARE}
    names = {path.name for path in protection.missing if path.name in top}
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
