"""Opens and resolves paths that a confined command may change meanwhile."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

_MOST_LINKS: Final = 40


class FileId(NamedTuple):
    """A file, whatever its name."""

    device: int
    number: int

    @classmethod
    def of(cls, descriptor: int) -> FileId:
        """Return the file that is open."""
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino)


def open_unlinked(path: Path, root: str = "/") -> int:
    """Open a file or folder through no link, by one component at a time.

    Args:
        path: absolute, without ``..``.
        root: the folder that its ``/`` is; followed if it is a link.

    Returns:
        a descriptor that names it, whatever becomes of its path (O_PATH).

    Raises:
        OSError: it is not there, or one component is a symbolic link.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(root, os.O_PATH | os.O_CLOEXEC)
    for part in path.parts[1:]:
        try:
            below = os.open(part, flags, dir_fd=opened)
        finally:
            os.close(opened)
        opened = below
    if stat.S_ISLNK(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return opened


def write_unlinked(base: Path, name: Path, content: bytes) -> bool:
    """Write a file in a folder that a command may change meanwhile, through no link.

    Args:
        base: the folder, with links resolved.
        name: of the file, relative to *base*; missing folders on the way are made.
        content: of the file, which replaces the one before in one step.

    Returns:
        whether the file was another one before.

    Raises:
        OSError: one component is a link, or something else than a file is there.
    """
    draft = f".{name.name}.{secrets.token_hex(8)}"
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as opened:
        folder = open_unlinked(base)
        opened.callback(os.close, folder)
        for part in name.parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            folder = os.open(part, os.O_DIRECTORY | flags, dir_fd=folder)
            opened.callback(os.close, folder)
        with suppress(FileNotFoundError):
            there = os.open(name.name, os.O_NONBLOCK | flags, dir_fd=folder)
            opened.callback(os.close, there)
            if not stat.S_ISREG(os.fstat(there).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            if os.pread(there, len(content) + 1, 0) == content:
                return False
        written = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o644, dir_fd=folder
        )
        with os.fdopen(written, "wb") as file:
            file.write(content)
        os.replace(draft, name.name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def resolve_trusted(path: Path, writable: Iterable[Path]) -> Path | None:
    """Resolve links, unless a command may have made one of them.

    Args:
        path: absolute.
        writable: folders that commands may write, with links resolved.

    Returns:
        the path without links; None if there is nothing, or if a link on the way to it
        lies in one of *writable*.
    """
    folders, links = tuple(writable), 0
    at, left = Path("/"), [*path.parts[:0:-1]]
    while left:
        name = left.pop()
        at = at.parent if name == ".." else at / name
        if not os.path.islink(at):  # noqa: PTH114 - no errors
            continue
        links += 1
        if links > _MOST_LINKS or lies_in(at, folders):
            return None
        target = at.readlink()
        left += target.parts[::-1][: -1 if target.is_absolute() else None]
        at = Path("/") if target.is_absolute() else at.parent
    return at if os.path.lexists(at) else None


def lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Check whether a path is one of *folders* or lies in one.

    Args:
        path: with links resolved.
        folders: with links resolved.

    Returns:
        whether it does.
    """
    return any(path.is_relative_to(one) for one in folders)
