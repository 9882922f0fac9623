"""Checks that a confined command cannot change the files that AgentVault obeys.

AgentVault runs outside of the confinement. The broker reads its settings again when
they change, and starts the programs of local MCP servers when an agent calls them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import agentvault_tui
from agentvault_tui.confine import lies_in
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import Home

_CODE_FOLDERS: Final = ("--directory", "--project", "--prefix", "--cwd", "-C")
"""Options of uv, npm and the like: the next word is a folder that code is read from.
Other folders are arguments, such as those that a file server gives access to."""
_CODE_VARIABLES: Final = ("PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
_SEPARATOR: Final = re.compile("[: ]")


def own_program() -> list[Path]:
    """Return the files of AgentVault's own program, which a host's hook starts."""
    return [Path(sys.executable), Path(agentvault_tui.__file__).parent]


def check_own_files(home: Home, writable: Sequence[Path]) -> None:
    """Check that a command cannot change a file that AgentVault runs or obeys.

    Args:
        home: AgentVault's.
        writable: the folders that the command may write, with links resolved.

    Raises:
        NotConfinedError: it can.
    """
    for one in _code():
        if lies_in(one.resolve(), writable):
            raise NotConfinedError(
                f"AgentVault itself is in {one.resolve()}, which the command could"
                " change",
                "install it elsewhere: pipx install agentvault-tui, and let no variable"
                f" of {', '.join(_CODE_VARIABLES)} name a folder that it may write",
            )
    for link in _links(home):
        if lies_in(link.resolve(), writable):
            raise NotConfinedError(
                f"{link} leads to {link.resolve()}, which the command could change",
                "let the command work on a copy of that folder",
            )
    for file in (*home.config.glob("*.toml"), *home.config.glob("*/*.toml")):
        with suppress(OSError, ValueError):
            document = tomllib.loads(file.read_text("utf-8"))
            for path in _named_files(document, file.parent):
                if lies_in(path.resolve(), writable):
                    raise NotConfinedError(
                        f"{file} names {path.resolve()}, which the command could"
                        " change",
                        "move it to a folder that the command may only read",
                    )


def _code() -> Iterator[Path]:
    """Yield the folders and files that AgentVault's own code is loaded from."""
    yield from (*own_program(), Path(sys.prefix), Path(sys.base_prefix))
    yield from map(Path, sys.path)
    for name in _CODE_VARIABLES:
        if text := os.environ.get(name):
            yield from map(Path, _SEPARATOR.split(text))


def _links(home: Home) -> Iterator[Path]:
    """Yield the links in AgentVault's home, without the homes of agents."""
    for top in {home.data, home.config}:
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    yield path
            folders[:] = [one for one in folders if Path(folder, one) != home.homes]


def _named_files(document: object, folder: Path) -> Iterator[Path]:
    """Yield the files and programs that the text of a settings file names.

    A folder is named only where code is read from it.
    """
    if isinstance(document, dict):
        program = document.get("command")
        if isinstance(program, list) and program:
            yield Path(shutil.which(str(program[0])) or str(program[0]))
        for value in document.values():
            yield from _named_files(value, folder)
        return
    values: list[Any] = document if isinstance(document, list) else [document]
    for before, value in pairwise(["", *values]):
        if isinstance(value, dict | list):
            yield from _named_files(value, folder)
        elif isinstance(value, str) and "\0" not in value:
            path = folder / value
            if before in _CODE_FOLDERS or os.path.isfile(path):  # noqa: PTH113
                yield path
