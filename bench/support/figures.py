"""Figures of a bench that `bench/report.py` collects for docs/performance.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "AGENTVAULT_BENCH_FIGURES"
"""The variable that names the file they are appended to."""


def figure(name: str, value: float, unit: str, base_name: str, base: float) -> None:
    """Append a figure and its baseline, if a report collects them.

    Args:
        name: the quantity, such as ``evaluation, p50, 1 connection``.
        value: in *unit*.
        unit: such as ``ms``.
        base_name: the quantity that it is compared with.
        base: in *unit*.
    """
    if file := os.environ.get(FILE):
        row = {"name": name, "value": value, "unit": unit}
        with Path(file).open("a") as report:
            print(
                json.dumps({**row, "base_name": base_name, "base": base}), file=report
            )
