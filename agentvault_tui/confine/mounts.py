"""Checks where a command's mounts are, and watches that they stay there.

A rename over a mount point, and its removal, detach the mount in every other mount
namespace (since Linux 3.18). Git and editors outside write files by a rename.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from agentvault_tui.confine.paths import FileId, open_unlinked
from agentvault_tui.errors import NotConfinedError

_MOUNT_POINT: Final = 4
"""The field in a line of proc_pid_mountinfo(5)."""
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
_CHANGED: Final = select.POLLERR | select.POLLPRI
_MOUNTS_S: Final = 20.0


def check_mounts(process: int, wanted: Mapping[Path, FileId]) -> None:
    """Wait until a process that waits has all its mounts.

    A mount is elsewhere if a folder on the way to it was exchanged for a link.

    Args:
        process: bubblewrap's first process inside.
        wanted: the mount points, and the file or folder that must be there.

    Raises:
        NotConfinedError: one is missing, or is another one.
    """
    ends = time.monotonic() + _MOUNTS_S
    while True:
        try:
            with _mountinfo(process).open("rb") as file:
                missing = {*wanted} - _read_mount_points(file)
                if not missing:
                    return _check_files(process, wanted)
                if time.monotonic() < ends:
                    poll = select.poll()
                    poll.register(file, _CHANGED)
                    poll.poll(1000)
                    continue
        except OSError:
            missing = {*wanted}
        raise _exchanged(min(missing))


def _check_files(process: int, wanted: Mapping[Path, FileId]) -> None:
    """Check that what a process sees is what was opened.

    bubblewrap compares them too, from 0.10.0 on; an earlier one looks for each path
    again.
    """
    for place, file in wanted.items():
        try:
            opened = open_unlinked(place, f"/proc/{process}/root")
            same = FileId.of(opened) == file
            os.close(opened)
        except OSError:
            same = False
        if not same:
            raise _exchanged(place)


def _exchanged(place: Path) -> NotConfinedError:
    return NotConfinedError(
        f"{place} was exchanged before it was mounted",
        "end the other command that works in that folder",
    )


class MountWatch:
    """Ends a command as soon as one of its mounts is detached."""

    def __init__(
        self, process: int, wanted: Iterable[Path], end: Callable[[], object]
    ) -> None:
        """Prepare it.

        Args:
            process: bubblewrap's first process inside.
            wanted: the mount points.
            end: ends the command.
        """
        self.lost: Path | None = None
        """The mount point that has lost its mount."""
        self._process, self._wanted, self._end = process, frozenset(wanted), end
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        os.close(self._writing)
        self._thread.join()
        os.close(self._reading)

    def _watch(self) -> None:
        while self.lost is None:
            try:
                with _mountinfo(self._process).open("rb") as file:
                    gone = self._wanted - _read_mount_points(file)
                    if not gone and self._waited(file):
                        return
            except OSError:
                return  # the command has ended
            self.lost = min(gone, default=None)
        self._end()

    def _waited(self, file: BinaryIO) -> bool:
        """Wait until a mount changes; return whether to stop instead."""
        poll = select.poll()
        poll.register(file, _CHANGED)
        poll.register(self._reading, select.POLLIN)
        return any(one == self._reading for one, _ in poll.poll())


def _mountinfo(process: int) -> Path:
    return Path(f"/proc/{process}/mountinfo")


def _read_mount_points(file: BinaryIO) -> set[Path]:
    fields = (line.split(b" ")[_MOUNT_POINT] for line in file)
    return {Path(os.fsdecode(_ESCAPED.sub(_decode, one))) for one in fields}


def _decode(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
