"""Draws QR codes as rows of text, dark on light under any theme.

A truncated, inverted or squeezed code does not scan, and that cannot be seen by
looking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from itertools import zip_longest
from typing import Final, TypeAlias
from urllib.parse import urlsplit


class Ground(Enum):
    """The colours of a run of cells, as the escape sequence that sets them."""

    DARK_ON_LIGHT = "\x1b[30;107m"
    """For half blocks: black on bright white, whatever the terminal's theme."""
    DARK = "\x1b[40m"
    LIGHT = "\x1b[107m"


Run: TypeAlias = tuple[str, Ground]
_SSH: Final = 22
_RESET: Final = "\x1b[0m"
_QUIET: Final = 4
"""Light modules around the code (ISO/IEC 18004); phones need half of it."""
_QUIET_TIGHT: Final = 2
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def on_loopback(link: str) -> bool:
    """Check whether only this machine can open *link*: a code of it is of no use."""
    try:
        host = urlsplit(link).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def tunnel(link: str, ssh: str) -> str:
    """Return the command by which the other end of an SSH session reaches *link*.

    Args:
        link: at a port of this machine's loopback.
        ssh: ``SSH_CONNECTION``: client, its port, server, its port (sshd(8)).

    Returns:
        The command line, or nothing where *ssh* names no server.
    """
    words = ssh.split()
    parts = urlsplit(link)
    if len(words) != 4 or parts.port is None:
        return ""
    try:
        server, port = ip_address(words[2]), int(words[3])
    except ValueError:
        return ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    way = f"-p {port} " if port != _SSH else ""
    return f"ssh {way}-L {parts.port}:{host}:{parts.port} {server}"


@dataclass(frozen=True, slots=True)
class QrCode:
    """A drawn code: rows of runs, all rows *width* cells."""

    rows: tuple[tuple[Run, ...], ...]
    width: int

    @property
    def height(self) -> int:
        """Return the number of terminal rows."""
        return len(self.rows)

    def lines(self) -> list[str]:
        """Return each row as text with the escape sequences that colour it."""
        return [
            "".join(ground.value + text for text, ground in row) + _RESET
            for row in self.rows
        ]


def draw(
    text: str, width: int, height: int | None, *, ascii_only: bool
) -> QrCode | None:
    """Draw *text* within *width* x *height* cells, or return None if it cannot fit.

    Half blocks carry two modules a cell. Without them (ASCII) a module is two blanks
    with a ground colour, so that no character matters at all.

    Args:
        text: the code's content.
        width: cells in a row.
        height: rows; None on a terminal that scrolls.
        ascii_only: whether half blocks cannot be shown.
    """
    for quiet in (_QUIET, _QUIET_TIGHT):
        modules = _matrix(text, quiet)
        across = len(modules)
        cells = (across * 2, across) if ascii_only else (across, (across + 1) // 2)
        if modules and cells[0] <= width and cells[1] <= (height or cells[1]):
            rows = _blanks(modules) if ascii_only else _half_blocks(modules)
            return QrCode(tuple(rows), cells[0])
    return None


@lru_cache(maxsize=8)
def _matrix(text: str, quiet: int) -> tuple[bytes, ...]:
    """Return the rows of modules with a light border; none of a text too long."""
    # Imported at the first code, not at the first frame: segno takes 60 ms.
    import segno  # noqa: PLC0415 - see above

    try:
        code = segno.make_qr(text, error="l", boost_error=False)
    except (ValueError, segno.DataOverflowError):
        return ()
    return tuple(map(bytes, code.matrix_iter(border=quiet)))


def _half_blocks(modules: tuple[bytes, ...]) -> Iterator[tuple[Run, ...]]:
    for upper, lower in zip_longest(modules[::2], modules[1::2]):
        pairs = zip(upper, lower or bytes(len(upper)), strict=True)
        yield (("".join(map(_HALVES.__getitem__, pairs)), Ground.DARK_ON_LIGHT),)


def _blanks(modules: tuple[bytes, ...]) -> list[tuple[Run, ...]]:
    rows = []
    for line in modules:
        runs: list[Run] = []
        for module in line:
            ground = Ground.DARK if module else Ground.LIGHT
            if runs and runs[-1][1] is ground:
                runs[-1] = (runs[-1][0] + "  ", ground)
            else:
                runs.append(("  ", ground))
        rows.append(tuple(runs))
    return rows
