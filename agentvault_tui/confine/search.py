"""Walks folders that a confined command may write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agentvault_tui.errors import NotConfinedError


class Folder(NamedTuple):
    """A folder, and its entries by kind."""

    path: Path
    names: dict[str, bool]
    """All of them; whether each is a folder."""
    links: dict[str, str]
    """The symbolic links, and the path that each has."""
    shared: dict[str, os.stat_result]
    """The files that have further names (link(2))."""


def search(
    top: Path, *, shared: bool = False, failed: list[NotConfinedError] | None = None
) -> Iterator[Folder]:
    """Yield *top* and each folder below it, through no link.

    Args:
        top: the folder; a file has none.
        shared: whether to look for files that have further names.
        failed: gets the reasons of folders that cannot be searched; the others are
            yielded.

    Raises:
        NotConfinedError: one cannot be searched, its owner could change that, and
            *failed* is not given.
    """
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            entries = _read(folder, shared=shared)
        except FileNotFoundError:
            continue
        except OSError as error:
            if folder == str(top) and isinstance(error, NotADirectoryError):
                return  # one file
            if isinstance(error, PermissionError) and not is_own(folder):
                continue  # the command cannot look there either
            reason = not_searched(folder, error)
            if failed is None:
                raise reason from None
            failed.append(reason)
            continue
        yield entries
        waiting += [
            os.path.join(folder, name)  # noqa: PTH118 - thousands of them
            for name, is_folder in entries.names.items()
            if is_folder
        ]


def _read(folder: str, *, shared: bool) -> Folder:
    entries = Folder(Path(folder), {}, {}, {})
    with os.scandir(folder) as scanned:
        for entry in scanned:
            is_folder = entry.is_dir(follow_symlinks=False)
            entries.names[entry.name] = is_folder
            if entry.is_symlink():
                with suppress(OSError):  # it has become something else
                    entries.links[entry.name] = str(Path(entry).readlink())
            elif shared and not is_folder:
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1:
                    entries.shared[entry.name] = status
    return entries


def not_searched(folder: str | Path, error: OSError) -> NotConfinedError:
    """Return why a command is not given a folder that cannot be searched."""
    return NotConfinedError(
        f"{folder} cannot be searched for repositories ({error.strerror})",
        "chmod u+rwx the folder, or remove it",
    )


def is_own(folder: str | Path) -> bool:
    """Check whether a folder belongs to this user, who may change its mode."""
    try:
        return os.lstat(folder).st_uid == os.geteuid()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the folder above it is one that the command may open again
