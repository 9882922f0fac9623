"""Space of the disk that is kept for cutting off: granting stops before it is used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from agentvault_tui.home import Home, put_private

RESERVE: Final = 64 * 1024 * 1024
"""Bytes that grants leave free, for revocations and the ledger's log."""
_FILES: Final = 256
"""Files that may still be made, likewise."""
_SHARE: Final = 8
"""Of a small file system at most an eighth is kept."""
_MIB: Final = 1024 * 1024
START: Final = _MIB
"""Bytes that opening the stores takes; kept in a file, to be given up for a start."""


def shortage(folder: Path, *, before: bool = False) -> str | None:
    """Say what the file system of *folder* is short of; None while it is not.

    Args:
        folder: the home.
        before: whether it was short when last looked: a tenth more than the reserve
            has to be free then, so that it does not change with every file.

    Raises:
        OSError: it cannot be looked at.
    """
    found = os.statvfs(folder)
    factor = 1.1 if before else 1.0
    free = found.f_bavail * found.f_frsize
    reserve = min(RESERVE, found.f_blocks * found.f_frsize // _SHARE)
    if free < reserve * factor:
        return (
            f"only {free // _MIB} MiB of disk are free: the last {reserve // _MIB} MiB "
            "are kept for revocations"
        )
    if found.f_files and found.f_favail < min(_FILES, found.f_files // _SHARE) * factor:
        return f"only {found.f_favail} more files can be made on the disk"
    return None


def make_room(home: Home) -> None:
    """Give up the space that is kept for a start, if the disk is full.

    Else the stores could not be opened, and nobody be cut off or told why.
    """
    with contextlib.suppress(OSError):
        if _free(home.data) < START:
            home.start_space.unlink()


def keep_room(home: Home) -> None:
    """Take the space for a start on a full disk, once there is plenty."""
    with contextlib.suppress(OSError):
        if not home.start_space.exists() and _free(home.data) >= 8 * START:
            put_private(home.start_space, bytes(START), replace=False)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
