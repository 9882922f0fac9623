"""Read the files ``NAME.toml`` of one folder of the home, again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from agentvault_tui.authorities import named_files, read_source, split_source
from agentvault_tui.broker.policy_files import NAME, NAME_FORM, read_text
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.errors import PolicyError, ServiceError
from agentvault_tui.home import Home, file_stamp
from agentvault_tui.model import sha256_hex
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.text import visible

DENY: Final = "deny"
"""In the place of a scope: such requests are refused."""


class _Digested(Protocol):
    """The parsed form of a file; it knows the exact bytes."""

    @property
    def name(self) -> str:
        """The file's name, without ``.toml``."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""


_ItemT = TypeVar("_ItemT", bound=_Digested)


def check_scope(scope: str, catalogue: Catalogue, where: str) -> None:
    """Refuse a scope that the catalogue lacks.

    Raises:
        ServiceError: with the nearest known ones.
    """
    if scope not in catalogue:
        near = " or ".join(catalogue.nearest(scope))
        raise ServiceError(
            f"{where} names the unknown scope '{visible(scope, 60)}'",
            f"did you mean {near}" if near else "add it to scopes.toml",
        )


_Stamp = tuple[object, ...]
"""A value that differs once a file, or its ``ca_file``, was changed."""


class ConfigFolder(Generic[_ItemT]):
    """The files ``NAME.toml`` of one folder of the home, each in force while it parses.

    The ``ca_file`` that one names is part of it (`authorities`).

    A file that breaks leaves what it said before in force and is a warning; one that
    is gone is in force no more, once `admits` allows that. In a team the store's texts
    count, and no other: one that cannot be in force here leaves nothing in force.
    """

    def __init__(
        self, home: Home, folder: str, parse: Callable[[str, str], _ItemT]
    ) -> None:
        """Read nothing yet.

        Args:
            home: the vault's folders.
            folder: the folder's name in it.
            parse: makes an item of a name and a text, or raises ServiceError.
        """
        self._team: TeamFiles | None = None
        self._home = home
        self._folder = home.config / folder
        self._parse = parse
        self._items: dict[str, _ItemT] = {}
        self._texts: dict[str, str] = {}
        """Of the items at least, by name: sources, with their ``ca_file``."""
        self._named: dict[str, tuple[Path, ...]] = {}
        """The ``ca_file`` that a file names, by the file's name."""
        self._problems: dict[str, str] = {}
        self._seen: Mapping[str, _Stamp] | None = None
        self._again = False
        self.admits: Callable[[str, str | None], bool] = lambda _, __: True
        """Tells whether a text counts, from the file's path and its SHA-256; with None,
        whether the file's removal does."""
        self.held: dict[str, str | None] = {}
        """Sources that do not, by path: the last version stays active. None: the file
        was removed."""

    @property
    def name(self) -> str:
        """The folder's name in the home directory."""
        return self._folder.name

    def follow(self, team: TeamFiles) -> None:
        """Take texts from *team*, in place of the home's copies of them."""
        self._team = team
        team.copies.track(self._folder.name, self._folder, self._parse)
        team.in_force.append(self.digests)

    def get(self, name: str) -> _ItemT | None:
        """Return the item called *name*, or nothing."""
        return self._items.get(name)

    def has(self, item: _ItemT) -> bool:
        """Check whether the file of *item* is in effect as *item* was read from it."""
        now = self.get(item.name)
        return now is not None and now.sha256 == item.sha256

    def __iter__(self) -> Iterator[_ItemT]:
        return iter(list(self._items.values()))

    @property
    def problems(self) -> Mapping[str, str]:
        """Why a file's present text is not in effect, by its name."""
        if self._team is None:
            return self._problems
        return self._team.problems_in(self._folder.name) | self._problems

    @property
    def warnings(self) -> list[str]:
        """Warnings for an operator about files that are not in effect."""
        return [
            f"{self._folder.name}/{file} cannot be put in force, "
            + (
                "the one before is: "
                if file.removesuffix(".toml") in self._items
                else "nothing of it is: "
            )
            + problem
            for file, problem in sorted(self._problems.items())
        ]

    def parse_again(self) -> None:
        """Parse every file at the next look: the basis of their checks changed."""
        self._again = True

    def changed(self) -> bool:
        """Check whether a file is not the one that was read last."""
        return self._again or self._stats() != self._seen

    def digests(self) -> list[tuple[str, str]]:
        """Return path and SHA-256 of the files in force, as the ledger names them."""
        if self._team is None:
            return [(self._path(f"{one.name}.toml"), one.sha256) for one in self]
        # Without the `ca_file`: of that, each broker of a team has its own.
        texts = self.texts().items()
        return [(path, sha256_hex(split_source(text)[0])) for path, text in texts]

    def texts(self) -> dict[str, str]:
        """Return the sources of the active files, by path."""
        return {self._path(f"{name}.toml"): self._texts[name] for name in self._items}

    def restore(self, texts: Mapping[str, str | None]) -> None:
        """Activate the sources that were active before; None removes one.

        An edit of one of them has to be admitted again.
        """
        for path, text in texts.items():
            name = path.partition("/")[2].removesuffix(".toml")
            if text is None:
                self._items.pop(name, None)
                continue
            with suppress(ServiceError, PolicyError):
                self._items[name] = self._parse(name, text)
                self._texts[name] = text

    def reload(self) -> None:
        """Read changed files and put them in effect."""
        # Taken first: a file that changes while it is read is read again.
        stats = self._stats()
        seen = {} if self._again or self._seen is None else self._seen
        self._again = False
        items, same = dict(self._items), {f for f in stats if seen.get(f) == stats[f]}
        problems = {f: why for f, why in self._problems.items() if f in same}
        held = {p: self.held[p] for p in map(self._path, same) if p in self.held}
        for file in stats:
            name = file.removesuffix(".toml")
            if file in same:
                continue
            if not NAME.fullmatch(name):
                problems[file] = NAME_FORM
                continue
            try:
                text = self.source(file)
                item = None if text is None else self._parse(name, text)
                if item is not None and self.admits(self._path(file), item.sha256):
                    items[name], self._texts[name] = item, str(text)
                elif text is not None:
                    held[self._path(file)] = text
            except (ServiceError, PolicyError) as error:
                problems[file] = error.diagnosis()
                if self._team is not None:
                    items.pop(name, None)
        for name in set(items) - {file.removesuffix(".toml") for file in stats}:
            path = self._path(f"{name}.toml")
            if self.admits(path, None):
                del items[name]
            else:
                held[path] = None
        self._items, self._problems, self._seen = items, problems, stats
        self.held = held

    def _path(self, file: str) -> str:
        return f"{self._folder.name}/{file}"

    def source(self, file: str) -> str | None:
        """Read a file as it is now, with the ``ca_file`` that it names.

        Args:
            file: its name in the folder.

        Returns:
            its source; None if it is not there.

        Raises:
            ServiceError: the ``ca_file`` cannot be used.
            PolicyError: the file itself cannot be.
        """
        base = self._home.config
        if self._team is not None:
            text = self._team.folder(self._folder.name).get(file)
        else:
            text = read_text(self._folder / file, base)
        if text is None:
            return None
        # Before they are read: one that cannot be used is read again once it changes.
        self._named[file] = tuple(named_files(text, base).values())
        return read_source(text, base)

    def _stamp_of(self, file: str) -> _Stamp:
        return tuple(file_stamp(path) for path in self._named.get(file, ()))

    def _stats(self) -> Mapping[str, _Stamp]:
        if self._team is not None:
            texts = self._team.folder(self._folder.name)
            return {file: (text, self._stamp_of(file)) for file, text in texts.items()}
        try:
            with os.scandir(self._folder) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if entry.name.endswith(".toml") and not entry.name.startswith(".")
                ]
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._problems = {"": f"the folder cannot be read ({error.strerror})"}
            return self._seen or {}
        stats: dict[str, _Stamp] = {}
        for name in names:
            if (stamp := file_stamp(self._folder / name)) is not None:
                stats[name] = (stamp, self._stamp_of(name))
        return stats
