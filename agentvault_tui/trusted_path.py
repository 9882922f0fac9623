"""Whether nobody but us (and root) can put something else in a folder's place."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from agentvault_tui.errors import SettingsError
from agentvault_tui.local_user import user_name

_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OURS: Final = frozenset(
    ("agentvault.db", "config.toml", "policy.cedar", "scopes.toml", "keymap.toml")
)
"""Names by which a folder is known to be a home; any one is enough."""
_LINKS: Final = 40
"""As many symbolic links as Linux follows in one path."""


def check_trusted(folder: Path, *, may_be_link: bool = False) -> None:
    """Refuse a home that someone else could fill, swap, or take away.

    As strict as sshd with its StrictModes: the folder is ours and nobody else writes
    in it, and everything on the way to it belongs to root or us and cannot be renamed
    by others. Symbolic links on the way are followed where root or we made them
    (``/tmp`` on macOS, ``/home`` on FreeBSD). What does not exist yet is made private.

    Root is no exception: with a home in someone's folder root would follow what that
    person puts there, and leave files that its owner cannot use afterwards.

    Args:
        folder: an absolute path.
        may_be_link: whether the folder itself may be such a link; one named by hand
            may not, since the name is what a person checks.

    Raises:
        SettingsError: says what is wrong with which folder, and the remedy.
    """
    if not may_be_link and folder.is_symlink():
        raise SettingsError(
            f"the home {folder} is a symbolic link",
            f"give the folder itself: {folder.resolve()}",
        )
    links = 0
    at, left = Path("/"), list(folder.parts[:0:-1])
    while True:
        found = at.lstat()
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _LINKS:
                raise SettingsError(f"the path {folder} goes in circles", _CHOOSE)
            _check_link(at, found)
            target = at.readlink()
            left += reversed(target.parts[target.is_absolute() :])
            at = Path("/") if target.is_absolute() else at.parent
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise SettingsError(f"{at} is not a folder", _CHOOSE)
        if not left:
            return _check_home(at, found)
        _check_way(at, found)
        name = left.pop()
        at = at.parent if name == ".." else at / name
        if not os.path.lexists(at):
            return None


_CHOOSE: Final = "choose a folder that only you can write in, with --home"


def _check_link(link: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        whose = user_name(found.st_uid)
        raise SettingsError(
            f"the link {link} on the way to the home belongs to {whose}", _CHOOSE
        )


def _check_way(folder: Path, found: os.stat_result) -> None:
    """Refuse a folder in which others can rename what lies in it."""
    if found.st_uid not in {0, os.geteuid()}:
        raise SettingsError(
            f"{folder} on the way to the home belongs to {user_name(found.st_uid)}",
            f"run as that user, or {_CHOOSE}",
        )
    # In a sticky folder such as /tmp only its owner renames an entry (unlink(2)).
    shared = found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX
    if shared and (found.st_mode & stat.S_IWOTH or not _ours_alone(found)):
        raise SettingsError(
            f"others can write in {folder}, and so put another home in its place",
            f"chmod go-w {folder}, or {_CHOOSE}",
        )


def _check_home(home: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise SettingsError(
            f"the home {home} belongs to {user_name(found.st_uid)}, not to you",
            f"run as that user, or {_CHOOSE}",
        )
    mode = stat.S_IMODE(found.st_mode)
    if found.st_mode & _OTHERS and _is_other_folder(home, found):
        # A start gives its home mode 0700: on /tmp or /opt that locks everyone out.
        raise SettingsError(
            f"{home} is a folder that others use (mode {mode:04o}), not a home",
            _CHOOSE,
        )
    if found.st_mode & _WRITABLE:
        raise SettingsError(
            f"others can write in the home {home} (mode {mode:04o})",
            f"look at what is in it, then chmod 700 {home}",
        )


def _is_other_folder(folder: Path, found: os.stat_result) -> bool:
    """Tell whether a folder serves something else than a home.

    Returns:
        True for a sticky folder that others can write in, such as ``/tmp``, and for
        one that holds files but none that a home has.
    """
    if found.st_mode & stat.S_ISVTX and found.st_mode & _WRITABLE:
        return True
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except PermissionError:
        return False
    return bool(names) and not names & _OURS


def _ours_alone(found: os.stat_result) -> bool:
    """Tell whether a folder's group is its owner's private one.

    Where each user has a group of their own, folders are made with mode 0775.
    """
    try:
        user, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    others = {p.pw_name for p in pwd.getpwall() if p.pw_gid == group.gr_gid}
    members = others.union(group.gr_mem) - {user.pw_name}
    return user.pw_gid == group.gr_gid and not members
