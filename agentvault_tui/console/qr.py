"""QR codes as rows of text: dark on light under any theme, and whole or not at all.

A code that is cut, inverted or squeezed does not scan, and nobody can tell by looking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rich.style import Style

DARK_ON_LIGHT: Final = Style(color="#000000", bgcolor="#ffffff")
"""For rows of half blocks."""
DARK: Final = Style(bgcolor="#000000")
LIGHT: Final = Style(bgcolor="#ffffff")
_QUIET: Final = 4
"""Light modules around the code (ISO/IEC 18004); half of it is what phones need."""
_QUIET_TIGHT: Final = 2
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


@dataclass(frozen=True, slots=True)
class QrCode:
    """A drawn code: rows of runs, all rows *width* cells."""

    rows: tuple[tuple[tuple[str, Style], ...], ...]
    width: int

    @property
    def height(self) -> int:
        """Return the number of terminal rows."""
        return len(self.rows)


def draw(text: str, width: int, height: int, *, ascii_only: bool) -> QrCode | None:
    """Draw *text* within *width* x *height* cells, or return None if it cannot fit.

    Half blocks carry two modules a cell. Without them (ASCII) a module is two blanks
    with a ground colour, so that no character matters at all.
    """
    modules = _matrix(text)
    if modules is None:
        return None
    for quiet in (_QUIET, _QUIET_TIGHT):
        across = len(modules) + 2 * quiet
        cells = (across * 2, across) if ascii_only else (across, (across + 1) // 2)
        if cells[0] <= width and cells[1] <= height:
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


def _half_blocks(modules: list[list[int]]) -> list[tuple[tuple[str, Style], ...]]:
    if len(modules) % 2:
        modules = [*modules, [0] * len(modules)]
    return [
        (
            (
                "".join(
                    _HALVES[pair]
                    for pair in zip(modules[y], modules[y + 1], strict=True)
                ),
                DARK_ON_LIGHT,
            ),
        )
        for y in range(0, len(modules), 2)
    ]


def _blanks(modules: list[list[int]]) -> list[tuple[tuple[str, Style], ...]]:
    rows = []
    for line in modules:
        runs: list[tuple[str, Style]] = []
        for module in line:
            style = DARK if module else LIGHT
            if runs and runs[-1][1] is style:
                runs[-1] = (runs[-1][0] + "  ", style)
            else:
                runs.append(("  ", style))
        rows.append(tuple(runs))
    return rows
