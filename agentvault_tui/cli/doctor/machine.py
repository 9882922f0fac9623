"""The doctor on this machine: versions, and the terminal."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from agentvault_tui import __version__
from agentvault_tui.cli.output import ascii_terminal
from agentvault_tui.cli.session import CliSession
from agentvault_tui.model.finding import Finding, ok, warning

_LIBRARIES: Final = ("textual", "httpx", "authlib", "joserfc", "cedarpy", "aiosqlite")
_RESET_RACE: Final = (3, 7, 0)
_RESET_FIXED: Final = (3, 51, 3)
_RESET_BACKPORTS: Final = ((3, 44, 6), (3, 50, 7))
_LEAST_CELLS: Final = (80, 24)


def check_versions(_: CliSession) -> Iterator[Finding]:
    """Name what runs, and what is known to be wrong with it."""
    yield ok(
        f"AgentVault {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}"
    )
    yield ok(", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES))
    version = sqlite3.sqlite_version_info
    if resets_can_race(version):
        # Named as a warning although we avoid it: other programs on the file do not.
        yield warning(
            f"SQLite {sqlite3.sqlite_version} can lose a commit when two connections "
            "reset the write-ahead log at once (fixed in 3.51.3); avoided here, "
            "as only its writer checkpoints",
            "open agentvault.db with no other program while the broker runs",
        )
    else:
        yield ok(f"SQLite {sqlite3.sqlite_version}, without the WAL-reset race")


def resets_can_race(version: tuple[int, int, int]) -> bool:
    """Tell whether this SQLite has the WAL-reset race (3.7.0 to 3.51.2)."""
    if not _RESET_RACE <= version < _RESET_FIXED:
        return False
    return not any(
        version[:2] == fixed[:2] and version >= fixed for fixed in _RESET_BACKPORTS
    )


def check_terminal(_: CliSession) -> Iterator[Finding]:
    """Say what the console can draw here."""
    environ = os.environ
    term = environ.get("TERM", "")
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        yield ok("not a terminal: the console works here with --plain only")
        return
    if term in {"", "dumb"}:
        yield warning(
            f"TERM is '{term}': the console works here with --plain only",
            "set TERM to what the terminal is, such as xterm-256color",
        )
        return
    columns, rows = shutil.get_terminal_size()
    size = f"{columns}x{rows}"
    if columns < _LEAST_CELLS[0] or rows < _LEAST_CELLS[1]:
        yield warning(f"{term}, {size}", "the console wants 80x24 or more")
    else:
        yield ok(f"{term}, {size}, {_colours()}")
    if ascii_terminal():
        yield warning(
            "the locale is not UTF-8: the console draws in ASCII",
            "set LANG to a UTF-8 locale, such as C.UTF-8",
        )
    if environ.get("TMUX"):
        yield warning(
            "inside tmux: copying from the console needs two lines in tmux.conf",
            "set -g set-clipboard on; set -g allow-passthrough on",
        )


def _colours() -> str:
    if os.environ.get("NO_COLOR"):
        return "NO_COLOR is set"
    if os.environ.get("COLORTERM") in {"truecolor", "24bit"}:
        return "true colour"
    return "256 colours" if "256" in os.environ.get("TERM", "") else "16 colours"
