"""Refuse folders and files that other users could fill, swap or change.

A home directory, and each file that is read from it, belongs to root or to the broker's
user, and no other party can write to it.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from agentvault_tui.errors import SettingsError

_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OURS: Final = frozenset(
    ("agentvault.db", "config.toml", "policy.cedar", "scopes.toml", "keymap.toml")
)
"""Names by which a folder is known to be a home; any one is enough."""
_LINKS: Final = 40
"""As many symbolic links as Linux follows in one path."""
_CHOOSE: Final = "choose a folder that only you can write in, with --home"
_log = logging.getLogger("agentvault.home")


def read_trusted(path: Path, home: Path | None, most: int = -1) -> bytes | None:
    """Read the first *most* bytes, or all, of a file that other users cannot change.

    Args:
        path: the file.
        home: the home directory, or its folder for settings; None for a file that a
            person named for one command, and that others may change.
        most: bytes.

    Returns:
        its content; None if there is no such file.

    Raises:
        SettingsError: it cannot be read, or others could have written it.
    """
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hold the broker up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        _check_plain(path, status)
        close = partial(os.fchmod, descriptor)
        if home is not None and (notice := _check_file(path, home, status, close)):
            _log.warning("%s", notice)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def check_named_file(path: Path) -> None:
    """Refuse a file that a setting names and others could change or replace.

    A library reads it by its path; it may be anywhere.

    Args:
        path: the file, relative to the working directory if it is not absolute.

    Raises:
        SettingsError: it cannot be read, or others could have written it.
    """
    path = path.absolute()
    try:
        status = path.stat()
        _walk(path)
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror})"
        raise SettingsError(what, "name another file, or restore it") from error
    _check_plain(path, status)
    _check_owner(path, status)
    mode = stat.S_IMODE(status.st_mode)
    # Where each user has a group of their own, files may be made with mode 0664.
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _ours_alone(status)):
        raise _written_by_others(path, mode)


def check_file(path: Path, home: Path, *, private: bool = False) -> str | None:
    """Close a file of the home directory to others, if it is safe to believe it.

    Args:
        path: the file.
        home: the home directory, or its folder for settings.
        private: whether to close it also where others can only read it.

    Returns:
        a warning, if its mode was changed.

    Raises:
        SettingsError: others could have written it.
    """
    # By its path: closing a descriptor of the database would end its locks (fcntl(2)).
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    _check_plain(path, status)
    return _check_file(path, home, status, path.chmod, private=private)


def _check_file(
    path: Path,
    home: Path,
    status: os.stat_result,
    chmod: Callable[[int], None],
    *,
    private: bool = False,
) -> str | None:
    _check_owner(path, status)
    mode = stat.S_IMODE(status.st_mode)
    within = _is_within_closed(path, home)
    if not within:
        _walk(path)
    readable = private and mode & _OTHERS and path.resolve().parent == home.resolve()
    if not mode & _WRITABLE and not readable:
        return None
    closed = within or not mode & _WRITABLE
    # It fails for a file of root's, and on a read-only file system.
    with suppress(OSError):
        if closed:
            chmod(0o600)
            verb = "write to" if mode & _WRITABLE else "read"
            return f"others could {verb} {path} (mode {mode:04o}): it is 0600 now"
    if not mode & _WRITABLE:
        return None
    raise _written_by_others(path, mode)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        owner = user_name(os.geteuid())
        raise SettingsError(
            f"{path} belongs to {user_name(status.st_uid)}, who can change it",
            f"look at what is in {path}, then chown {owner} {path}",
        )


def _written_by_others(path: Path, mode: int) -> SettingsError:
    return SettingsError(
        f"others can write to {path} (mode {mode:04o}), so it is not read",
        f"look at what is in {path}, then chmod 600 {path}",
    )


def _check_plain(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{path} is not a plain file", "put a text file there")


def _is_within_closed(path: Path, home: Path) -> bool:
    """Check whether other users cannot reach *path*: their way ends at the home."""
    try:
        status = home.stat()
    except FileNotFoundError:
        return False
    closed = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS
    return closed and path.resolve().is_relative_to(home.resolve())


def check_trusted(folder: Path, *, may_be_link: bool = False) -> None:
    """Refuse a home that someone else could fill, swap, or take away.

    As strict as sshd with its StrictModes: the folder is ours and no other party writes
    in it, and everything on the way to it belongs to root or us and cannot be renamed
    by others. Symbolic links on the way are followed where root or we made them
    (``/tmp`` on macOS, ``/home`` on FreeBSD). A missing folder is made private.

    Root is no exception: with a home in another person's folder root would follow the
    links that person puts there, and leave files that its owner cannot use afterwards.

    Args:
        folder: an absolute path.
        may_be_link: whether the folder itself may be such a link; one named by hand may
            not, since a person checks the name.

    Raises:
        SettingsError: with the folder, its fault, and the remedy.
    """
    if not may_be_link and folder.is_symlink():
        raise SettingsError(
            f"the home {folder} is a symbolic link",
            f"give the folder itself: {folder.resolve()}",
        )
    at = _walk(folder)
    if at is None:
        return
    status = at.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise SettingsError(f"{at} is not a folder", _CHOOSE)
    _check_home(at, status)


def _walk(path: Path) -> Path | None:
    """Follow *path* to its end; None: there is nothing.

    Raises:
        SettingsError: others could rename something on the way to it.
    """
    links = 0
    at, left = Path("/"), list(path.parts[:0:-1])
    while True:
        status = at.lstat()
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS:
                raise SettingsError(f"the path {path} goes in circles", _CHOOSE)
            _check_link(at, status)
            target = at.readlink()
            left += reversed(target.parts[target.is_absolute() :])
            at = Path("/") if target.is_absolute() else at.parent
            continue
        if not left:
            return at
        if not stat.S_ISDIR(status.st_mode):
            raise SettingsError(f"{at} is not a folder", _CHOOSE)
        _check_way(at, status)
        name = left.pop()
        at = at.parent if name == ".." else at / name
        if not os.path.lexists(at):
            return None


def _check_link(link: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        whose = user_name(status.st_uid)
        raise SettingsError(
            f"the link {link} on the way to the home belongs to {whose}", _CHOOSE
        )


def _check_way(folder: Path, status: os.stat_result) -> None:
    """Refuse a folder in which others can rename the files in it."""
    if status.st_uid not in {0, os.geteuid()}:
        raise SettingsError(
            f"{folder} on the way to the home belongs to {user_name(status.st_uid)}",
            f"run as that user, or {_CHOOSE}",
        )
    # In a sticky folder such as /tmp only its owner renames an entry (unlink(2)).
    shared = status.st_mode & _WRITABLE and not status.st_mode & stat.S_ISVTX
    if shared and (status.st_mode & stat.S_IWOTH or not _ours_alone(status)):
        raise SettingsError(
            f"others can write in {folder}, and so replace what is in it",
            f"chmod go-w {folder}, or {_CHOOSE}",
        )


def _check_home(home: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise SettingsError(
            f"the home {home} belongs to {user_name(status.st_uid)}, not to you",
            f"run as that user, or {_CHOOSE}",
        )
    mode = stat.S_IMODE(status.st_mode)
    if status.st_mode & _OTHERS and _is_other_folder(home, status):
        # A start gives its home mode 0700: on /tmp or /opt that locks everyone out.
        raise SettingsError(
            f"{home} is a folder that others use (mode {mode:04o}), not a home",
            _CHOOSE,
        )
    if status.st_mode & _WRITABLE:
        raise SettingsError(
            f"others can write in the home {home} (mode {mode:04o})",
            f"look at what is in it, then chmod 700 {home}",
        )


def _is_other_folder(folder: Path, status: os.stat_result) -> bool:
    """Check whether a folder serves something else than a home.

    Returns:
        True for a sticky folder that others can write in, such as ``/tmp``, and for
        one that holds files but none that a home has.
    """
    if status.st_mode & stat.S_ISVTX and status.st_mode & _WRITABLE:
        return True
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except PermissionError:
        return False
    return bool(names) and not names & _OURS


def _ours_alone(status: os.stat_result) -> bool:
    """Check whether a folder's group is its owner's private one.

    Where each user has a group of their own, folders are made with mode 0775.
    """
    try:
        user, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    others = {p.pw_name for p in pwd.getpwall() if p.pw_gid == group.gr_gid}
    members = others.union(group.gr_mem) - {user.pw_name}
    return user.pw_gid == group.gr_gid and not members


def user_name(uid: int) -> str:
    """Return the name of a local user, or ``uid N`` where the system knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
