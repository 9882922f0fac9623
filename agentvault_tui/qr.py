"""QR codes as rows of text: dark on light under any theme, and whole or not at all.

A code that is cut, inverted or squeezed does not scan, and nobody can tell by looking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
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
"""Light modules around the code (ISO/IEC 18004); half of it is what phones need."""
_QUIET_TIGHT: Final = 2
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def on_loopback(link: str) -> bool:
    """Tell whether only this machine can open *link*: a code of it is of no use."""
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
        text: what the code says.
        width: cells in a row.
        height: rows; None on a terminal that scrolls.
        ascii_only: whether half blocks cannot be shown.
    """
    modules = _matrix(text)
    if modules is None:
        return None
    for quiet in (_QUIET, _QUIET_TIGHT):
        across = len(modules) + 2 * quiet
        cells = (across * 2, across) if ascii_only else (across, (across + 1) // 2)
        if cells[0] <= width and cells[1] <= (height or cells[1]):
            framed = _frame(modules, quiet)
            rows = _blanks(framed) if ascii_only else _half_blocks(framed)
            return QrCode(tuple(rows), cells[0])
    return None


@lru_cache(maxsize=8)
def _matrix(text: str) -> tuple[tuple[int, ...], ...] | None:
    # Imported at the first code, not at the first frame: segno takes 60 ms.
    import segno  # noqa: PLC0415 - see above

    try:
        code = segno.make_qr(text, error="l", boost_error=False)
    except (ValueError, segno.DataOverflowError):
        return None
    return tuple(tuple(1 if module else 0 for module in row) for row in code.matrix)


def _frame(modules: tuple[tuple[int, ...], ...], quiet: int) -> list[list[int]]:
    across = len(modules) + 2 * quiet
    side = [0] * quiet
    blank = [[0] * across for _ in range(quiet)]
    middle = [[*side, *row, *side] for row in modules]
    return [*blank, *middle, *(list(row) for row in blank)]


def _half_blocks(modules: list[list[int]]) -> list[tuple[Run, ...]]:
    if len(modules) % 2:
        modules = [*modules, [0] * len(modules)]
    return [
        (
            (
                "".join(
                    _HALVES[pair]
                    for pair in zip(modules[y], modules[y + 1], strict=True)
                ),
                Ground.DARK_ON_LIGHT,
            ),
        )
        for y in range(0, len(modules), 2)
    ]


def _blanks(modules: list[list[int]]) -> list[tuple[Run, ...]]:
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
