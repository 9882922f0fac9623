"""One broker a home: a lock the system drops when its process ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from agentvault_tui.errors import HomeInUseError
from agentvault_tui.home import private_file


class HomeLock:
    """Holds the home's lock file until released, or until the process is gone."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            HomeInUseError: another process has it; says which.
        """
        private_file(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _holder(self._descriptor)
            os.close(self._descriptor)
            raise HomeInUseError(
                f"another broker, process {pid}, has the home {path.parent.parent}",
                "stop it, use its console, or choose another --home",
            ) from error
        os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk: it holds all the same
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)

    def release(self) -> None:
        """Let the next process in; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(descriptor: int) -> str:
    try:
        return str(json.loads(os.pread(descriptor, 200, 0))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
