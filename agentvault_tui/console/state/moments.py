"""Moments as an operator types them: how long ago, a time of day, a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIME: Final = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?z?", re.ASCII)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
FORMS: Final = "10m, 2h, 1d ago, 14:02, or 2026-11-24T14:02"
"""How a moment may be written, for those who wrote it otherwise."""


def read_moment(text: str, now: datetime) -> datetime | None:
    """Read ``10m`` (before *now*), ``14:02`` (the last one) or a date; all in UTC.

    Case does not matter. None when it is no moment.
    """
    text = text.lower()
    if match := _AGO.fullmatch(text):
        try:
            return now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        except OverflowError:
            return _EARLIEST
    if match := _TIME.fullmatch(text):
        return _time_of_day(match, now)
    try:
        found = datetime.fromisoformat(text.upper())
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _time_of_day(match: re.Match[str], now: datetime) -> datetime | None:
    hour, minute, second = (int(part or 0) for part in match.groups())
    try:
        found = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        return found if found <= now else found - timedelta(days=1)
    except (ValueError, OverflowError):
        return None
