"""Formats times and counts, and parses the moments that people type."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import UNSET, Struct

from agentvault_tui.clock import iso, span
from agentvault_tui.operator_api.requests import PastQuery

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIME: Final = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?z?", re.ASCII)
SOON: Final = 60
"""Seconds before the end at which a countdown says SOON."""
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
FORMS: Final = "10m, 2h, 1d ago, 14:02, or 2026-11-24T14:02"
"""How a moment may be written, for those who wrote it otherwise."""
FORMS_AHEAD: Final = "10m, 2h, 1d, 14:02, or 2026-11-24T14:02"


def read_moment(text: str, now: datetime, *, ahead: bool = False) -> datetime | None:
    """Read ``10m`` (before *now*), ``14:02`` (the last one) or a date; all in UTC.

    With *ahead* they are after *now*, and the next one. Case does not matter. None when
    it is no moment.
    """
    text, sign = text.lower(), 1 if ahead else -1
    if match := _AGO.fullmatch(text.removeprefix("+") if ahead else text):
        try:
            return now + sign * timedelta(seconds=int(match[1]) * UNITS[match[2]])
        except OverflowError:
            return None if ahead else _EARLIEST
    try:
        if match := _TIME.fullmatch(text):
            hour, minute, second = (int(part or 0) for part in match.groups())
            time = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
            if ahead:
                return time if time > now else time + timedelta(days=1)
            return time if time <= now else time - timedelta(days=1)
        parsed = datetime.fromisoformat(text.upper())
        return parsed.replace(tzinfo=parsed.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_NUMBER: Final = re.compile(r"#?(\d{1,3}(?:,\d{3})+|\d{1,18})", re.ASCII)
_ENDS: Final = {"start": 1, "first": 1, "end": 0, "last": 0, "now": 0}
_DATED: Final = re.compile(r"(\d{4}-\d\d-\d\d) +(\d{1,2}:\d\d.*)", re.ASCII)
_HOUR: Final = re.compile(r"(?<=T)(\d):", re.ASCII)
EXAMPLES: Final = "14:02   2026-11-24 14:02   -10m   1842   start   end"


class LedgerMoment(Struct, frozen=True):
    """Right after an event, or a moment; with neither, the newest event."""

    seq: int | None = None
    at: datetime | None = None

    def query(self) -> PastQuery:
        seq = UNSET if self.seq is None else self.seq
        return PastQuery(seq=seq, at=iso(self.at) if self.at else None)


def parse_ledger_moment(text: str, now: datetime) -> LedgerMoment | str:
    """Parse a place in the ledger, or return its fault."""
    text = " ".join(text.split()).lower()
    if not text:
        return f"write where to: {EXAMPLES}"
    if text in _ENDS:
        return LedgerMoment(seq=_ENDS[text] or None)
    if match := _NUMBER.fullmatch(text):
        return LedgerMoment(seq=int(match[1].replace(",", "")))
    if text.startswith("+"):
        return "the ledger holds nothing of the future; -10m is ten minutes ago"
    if match := _DATED.fullmatch(text):
        # Python reads no hour of one digit after a date, people write one.
        text = _HOUR.sub(r"0\1:", f"{match[1]}T{match[2]}")
    moment = read_moment(text.removeprefix("-"), now)
    if moment is None:
        return "no time and no number; try 14:02, -10m or 1842"
    if moment > now:
        return f"{moment:%Y-%m-%d %H:%M:%S}Z has not come yet; times are UTC"
    return LedgerMoment(at=moment)


def countdown(seconds: float) -> str:
    """Write a time left, never rounding up an ended one: ``4:12``, ``1:02:03``."""
    whole = int(max(seconds, 0))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def lasting(seconds: float) -> str:
    """Write a time left that may be days: ``4:12``, ``1:02:03``, ``30 d 4 h``."""
    return countdown(seconds) if seconds < 86_400 else span(int(seconds))


def ago(then: datetime, now: datetime) -> str:
    """Write how long ago something was, in one unit, of which there are two."""
    seconds = max(int((now - then).total_seconds()), 0)
    for least, size, unit in (
        (172_800, 86_400, "d"),
        (7200, 3600, "h"),
        (60, 60, "min"),
    ):
        if seconds >= least:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def hms(moment: datetime) -> str:
    """Write a time of day, four times as fast as strftime."""
    return f"{moment.hour:02}:{moment.minute:02}:{moment.second:02}"


def clock_time(moment: datetime) -> str:
    """Write a time of day; the ``Z`` says that it is UTC."""
    return f"{hms(moment)}Z"


def minute(moment: str) -> str:
    """Write a moment of the wire to the minute."""
    return f"{moment[:16].replace('T', ' ')}Z"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def size(count: float) -> str:
    """Write a number of bytes, in thousands."""
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    digits = f"{count:.1f}" if unit != "B" and count < 10 else f"{int(count):,}"
    return f"{digits} {unit}"
