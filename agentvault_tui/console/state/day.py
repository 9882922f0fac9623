"""A day in quarters of an hour, folded to the width there is, as rows of small bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

QUARTERS: Final = 96
FOLDS: Final = (1, 2, 3, 4, 6, 8, 12)
"""Quarters a cell may stand for; each divides the day."""
UNICODE_LEVELS: Final = "·▁▂▃▄▅▆▇█"
ASCII_LEVELS: Final = ".:-=+*%#@"
"""By how much ink a character has; the first is nothing at all."""


def fold_for(cells: int) -> int:
    """Return how many quarters a cell stands for, so that a day fits in *cells*."""
    return next((fold for fold in FOLDS if QUARTERS // fold <= cells), FOLDS[-1])


def folded(numbers: Sequence[int], fold: int) -> list[int]:
    """Add up each *fold* numbers."""
    return [sum(numbers[n : n + fold]) for n in range(0, len(numbers), fold)]


def bars(numbers: Sequence[int], levels: str) -> str:
    """Draw numbers by height, the largest full; what is not nothing is seen."""
    peak, top = max(numbers, default=0), len(levels) - 1
    return "".join(
        levels[max(round(number / peak * top), 1)] if number > 0 else levels[0]
        for number in numbers
    )
