"""Moments as people write them: RFC 3339, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

import click

from agentvault_tui.clock import SystemClock, iso, parse_iso

_AGO: Final = re.compile(r"(\d{1,9})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_moment(text: str, now: datetime) -> datetime:
    """Read ``2026-11-24T10:00:00Z``, or ``10m``, ``2h``, ``3d`` before *now*.

    Raises:
        ValueError: it is neither.
    """
    if match := _AGO.fullmatch(text):
        seconds = int(match[1]) * _SECONDS[match[2]]
        try:
            return now - timedelta(seconds=seconds)
        except OverflowError as error:
            raise ValueError("longer ago than there are dates") from error
    return parse_iso(text)


class Moment(click.ParamType[str]):
    """An option that is a moment; the command receives it as the wire writes it."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read the moment, or say how one is written."""
        try:
            return iso(read_moment(str(value), SystemClock().now()))
        except (ValueError, OverflowError):
            self.fail(
                f"'{value}' is not a time: write 2026-11-24T10:00:00Z, or 10m, 2h, 3d",
                param,
                ctx,
            )
