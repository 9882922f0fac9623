"""Remembers the folders that confined commands were given for writing.

A command may have changed all in them. So nothing there shows another folder to the
next command, and a git folder that looks like none now is protected as before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import locked_folder, put_private

_FIELDS: Final = ("writable", "git")


@dataclass(frozen=True, slots=True)
class GivenFolders:
    """Folders that commands were given, and git's own folders in them."""

    writable: frozenset[Path] = frozenset()
    git: frozenset[Path] = frozenset()


def read_given(record: Path) -> GivenFolders:
    """Read the record of one home of AgentVault.

    Raises:
        NotConfinedError: it cannot be read.
    """
    try:
        fields = json.loads(record.read_bytes())
        return GivenFolders(*(frozenset(map(Path, fields[n])) for n in _FIELDS))
    except FileNotFoundError:
        return GivenFolders()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NotConfinedError(
            f"{record} cannot be read ({error})",
            "restore it, or remove it after a look at the folders that commands wrote",
        ) from error


def add_given(record: Path, writable: Iterable[Path], git: Iterable[Path]) -> None:
    """Add folders to the record; leave out those that are not there any more.

    Args:
        record: its path.
        writable: folders that a command is about to be given.
        git: git's own folders in them.

    Raises:
        NotConfinedError: the record cannot be read.
    """
    new = GivenFolders(frozenset(writable), frozenset(git))
    with locked_folder(record.parent):
        before = read_given(record)
        if new.writable <= before.writable and new.git <= before.git:
            return
        fields = {
            name: sorted(str(one) for one in both if os.path.lexists(one))
            for name, both in (
                ("writable", before.writable | new.writable),
                ("git", before.git | new.git),
            )
        }
        put_private(record, json.dumps(fields).encode(), replace=True)
