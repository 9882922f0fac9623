"""Locks folders against other confined commands, for as long as a command runs.

bubblewrap before 0.12.0 follows paths while it mounts. Meanwhile no other command may
change these folders.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agentvault_tui.confine.runtime import outermost
from agentvault_tui.errors import NotConfinedError


@contextmanager
def locked(folders: Iterable[Path], vault: Path) -> Iterator[None]:
    """Lock folders during a block, with all that is in them.

    Each is locked, and each folder above it is locked together with others: so a
    further lock of a folder around it or in it is refused too, also by a command of
    another home of AgentVault.

    Args:
        folders: with links resolved; a file is locked by its folder.
        vault: AgentVault's home, whose folders are given to no command and have locks
            of their own.

    Raises:
        NotConfinedError: another command holds one.
    """
    alone = outermost(one if one.is_dir() else one.parent for one in folders)
    above = {one for folder in alone for one in folder.parents}
    above = {one for one in above if not one.is_relative_to(vault)}
    with ExitStack() as opened:
        for folder in (*above, *alone):
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, lock)
                kind = fcntl.LOCK_EX if folder in alone else fcntl.LOCK_SH
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except PermissionError:
                continue  # it cannot be listed, and a command cannot list it either
            except OSError as error:
                raise NotConfinedError(
                    f"another confined command works in {folder}, or it cannot be"
                    f" locked ({error.strerror})",
                    "wait for its end, or install bubblewrap 0.12.0 or later",
                ) from None
        yield
