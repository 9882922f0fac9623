"""Where a command's program and its runtime are, so that it starts without options."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_SYSTEM: Final = Path("/usr")
_LINE: Final = 256
"""Bytes of a script's first line that the kernel reads (execve(2))."""


def find_program(name: str, path: str) -> Path:
    """Return where a shell would find a program.

    Args:
        name: the first word of a command line.
        path: the folders of ``PATH``.

    Returns:
        its absolute path, with links as they are.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it is no program that this user may run.
    """
    program = shutil.which(name, path=path)
    if program is None:
        there = "/" in name and os.path.lexists(name)
        raise PermissionError(13, "Permission denied") if there else FileNotFoundError
    return Path(program).absolute()


def program_paths(program: Path) -> Iterator[Path]:
    """Yield what a program needs besides the system: itself and its runtime.

    The interpreter of a script counts as a program of its own.
    """
    real = program.resolve()
    for place in dict.fromkeys((program, real)):
        prefixes = [*_prefixes(place)]
        yield from prefixes or [place]
    with suppress(OSError), real.open("rb") as file:
        line = file.read(_LINE).partition(b"\n")[0]
        if line.startswith(b"#!") and (words := line[2:].split()):
            interpreter = Path(os.fsdecode(words[0]))
            runs = interpreter != program and os.access(interpreter, os.X_OK)
            if runs and not interpreter.is_relative_to(_SYSTEM):
                yield from program_paths(interpreter)


def path_folders(path: str) -> Iterator[Path]:
    """Yield the folders of ``PATH``, each with the runtime whose programs it has."""
    for text in path.split(os.pathsep):
        folder = Path(text)
        if folder.is_absolute() and folder.is_dir():
            yield folder
            yield from _prefixes(folder / "python3")


def _prefixes(program: Path) -> Iterator[Path]:
    """Yield the folders of the runtime that *program* belongs to.

    A virtual environment has ``pyvenv.cfg`` (PEP 405), with the place of its Python; a
    prefix of Node or Python has libraries next to ``bin``; pyenv has ``versions`` next
    to its ``shims``; Claude Code's installer has its versions in one folder.
    """
    for above in program.parents:
        if above == _SYSTEM or above == Path("/"):
            return
        config = above / "pyvenv.cfg"
        if config.is_file():
            yield above
            yield from _base_python(config)
            return
        is_prefix = program.parent.name == "bin" and above == program.parent.parent
        modules = above / "lib/node_modules"
        if (modules.is_dir() and (above / "bin/node").exists()) or (
            is_prefix and any(above.glob("lib/python3.*/os.py"))
        ):
            yield above
            return
        if program.parent.name == "shims" and (above / "versions").is_dir():
            yield above
            return
        if above.name == "claude" and above.parent.name == "share":
            yield above
            return


def _base_python(config: Path) -> Iterator[Path]:
    with suppress(OSError, UnicodeDecodeError):
        for line in config.read_text("utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                yield from _prefixes(Path(value.strip()).resolve() / "python3")


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return folders without those that lie in another one of them, parents first."""
    outer = list[Path]()
    for folder in sorted(set(folders)):
        if not any(folder.is_relative_to(one) for one in outer):
            outer.append(folder)
    return outer
