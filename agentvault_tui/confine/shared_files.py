"""Files in a command's folders that have further names elsewhere (link(2)).

A command that changes such a file changes it under all its names. uv, pnpm and conda
install packages so, from a store that all projects of the user have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from agentvault_tui.confine.search import Folder
from agentvault_tui.errors import NotConfinedError

_PACKAGES: Final = "node_modules"
_ENVIRONMENT: Final = frozenset({"pyvenv.cfg", "conda-meta"})
"""Environments of Python (PEP 405) and of conda have one of them."""


class SharedFiles:
    """The files with several names in a command's folders."""

    def __init__(self) -> None:
        """Start with none."""
        self._names = defaultdict[tuple[int, int], set[Path]](set)
        self._counts = dict[tuple[int, int], int]()
        self._environments = set[Path]()

    def add(self, entries: Folder) -> None:
        """Add the files of one folder."""
        if not _ENVIRONMENT.isdisjoint(entries.names) or entries.path.name == _PACKAGES:
            self._environments.add(entries.path)
        for name, status in entries.shared.items():
            key = status.st_dev, status.st_ino
            self._names[key].add(entries.path / name)
            self._counts[key] = status.st_nlink

    def check(self, read_only: Collection[Path]) -> None:
        """Check that no read-only file has a name by which it can be changed.

        Raises:
            NotConfinedError: one has.
        """
        held = frozenset(read_only)
        for names in self._names.values():
            protected = {
                one for one in names if not held.isdisjoint((one, *one.parents))
            }
            if protected and protected != names:
                raise NotConfinedError(
                    f"{min(names - protected)} is another name of {min(protected)} (a"
                    " hard link), by which a command can change it",
                    f"look at it: rm {min(names - protected)}",
                )

    def places(self, tops: Collection[Path], opened: Collection[Path]) -> list[Path]:
        """Return folders with installed packages that have names outside of *tops*.

        Args:
            tops: the folders that the command may write.
            opened: paths that it may write all the same.

        Raises:
            NotConfinedError: a file has, and is in no such folder.
        """
        places = set[Path]()
        free = {one for one in opened if _is_below(one, tops)}
        for path in self._outside():
            around = [one for one in (path, *path.parents) if _is_below(one, tops)]
            if not (free.isdisjoint(around) and places.isdisjoint(around)):
                continue
            within = [one for one in around if one in self._environments]
            if not within:
                raise NotConfinedError(
                    f"{path} has a further name outside (a hard link), under which the"
                    " command would change it too",
                    "work on a copy (cp -a; git clone --no-hardlinks), or allow that"
                    f" with --write {path}",
                )
            places.add(within[-1])
        return sorted(places)

    def _outside(self) -> Iterator[Path]:
        for key, names in self._names.items():
            if len(names) < self._counts[key]:
                yield from names


def _is_below(path: Path, tops: Collection[Path]) -> bool:
    return any(path != top and path.is_relative_to(top) for top in tops)
