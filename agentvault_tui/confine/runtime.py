"""Where a command's program and its runtime are, so that it starts without options."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentvault_tui.confine.paths import lies_in, resolve_trusted

_SYSTEM: Final = (Path("/usr"),)
_LINE: Final = 256
"""Bytes of a script's first line that the kernel reads (execve(2))."""
_SEPARATOR: Final = re.compile(rb"[ \t\0]")
_LEVELS: Final = 4
"""The number of scripts, one named by the other, that the kernel follows."""


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


def program_paths(
    program: Path, writable: Sequence[Path] = (), levels: int = _LEVELS
) -> Iterator[Path]:
    """Yield a program and its runtime, but for the system's own folders.

    The interpreter of a script counts as a program of its own. If a program lies in a
    folder that commands may write, it brings nothing but itself.

    Args:
        program: its absolute path.
        writable: folders that commands may write, with links resolved.
        levels: of scripts whose interpreters are scripts.
    """
    real = resolve_trusted(program, writable)
    if real is None:
        return
    for place in dict.fromkeys((program, real)):
        prefixes = [*_prefixes(place, writable)]
        yield from prefixes or [place]
    if lies_in(real, writable) or not levels:
        return
    with suppress(OSError), real.open("rb") as file:
        line = file.read(_LINE).partition(b"\n")[0]
        if line.startswith(b"#!"):
            # The kernel's separators: others are a part of the name.
            word = _SEPARATOR.split(line[2:].strip(b" \t"), maxsplit=1)[0]
            interpreter = Path(os.fsdecode(word))
            runs = interpreter.is_file() and os.access(interpreter, os.X_OK)
            if not interpreter.is_absolute() or interpreter == program:
                return
            if runs and not lies_in(interpreter, _SYSTEM):
                yield from program_paths(interpreter, writable, levels - 1)


def path_folders(path: str, writable: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the folders of ``PATH``, each with the runtime whose programs it has."""
    for text in path.split(os.pathsep):
        folder = Path(text)
        if folder.is_absolute() and os.path.isdir(folder):  # noqa: PTH112 - no errors
            yield folder
            yield from _prefixes(folder / "python3", writable)


def _prefixes(program: Path, writable: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders of the runtime that *program* belongs to.

    A virtual environment has ``pyvenv.cfg`` (PEP 405), with the place of its Python; a
    prefix of Node or Python has libraries next to ``bin``; pyenv has ``versions`` next
    to its ``shims``; Claude Code's installer has its versions in one folder.
    """
    folder = resolve_trusted(program.parent, writable)
    if folder is None or lies_in(folder, writable):
        return
    for above in program.parents:
        if above in {*_SYSTEM, Path("/")}:
            return
        config = above / "pyvenv.cfg"
        if config.is_file():
            yield above
            yield from _base_python(config, writable)
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


def _base_python(config: Path, writable: Sequence[Path]) -> Iterator[Path]:
    real = resolve_trusted(config, writable)
    if real is None or lies_in(real, writable):
        return
    with suppress(OSError, UnicodeDecodeError):
        for line in real.read_text("utf-8").splitlines():
            key, _, value = line.partition("=")
            home = Path(value.strip())
            if key.strip() == "home" and home.is_absolute():
                base = resolve_trusted(home, writable)
                yield from _prefixes(base / "python3", writable) if base else ()


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return folders without those that lie in another one of them, parents first."""
    outer = list[Path]()
    for folder in sorted(set(folders)):
        if not any(folder.is_relative_to(one) for one in outer):
            outer.append(folder)
    return outer
