"""Where an operator wants to go in the audit: a number, a moment, or either end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agentvault_tui.console.state.moments import read_moment

_NUMBER: Final = re.compile(r"#?(\d{1,3}(?:,\d{3})+|\d{1,18})", re.ASCII)
_ENDS: Final = {"start": 1, "first": 1, "end": 0, "last": 0, "now": 0}
_DATED: Final = re.compile(r"(\d{4}-\d\d-\d\d) +(\d{1,2}:\d\d.*)", re.ASCII)
_HOUR: Final = re.compile(r"(?<=T)(\d):", re.ASCII)
EXAMPLES: Final = "14:02   2026-11-24 14:02   -10m   1842   start   end"


@dataclass(frozen=True, slots=True)
class Place:
    """One of the two, or neither: the newest."""

    seq: int | None = None
    moment: datetime | None = None


def read_place(text: str, now: datetime) -> Place | str:
    """Read what was typed; what cannot be meant is answered in words."""
    text = " ".join(text.split()).lower()
    if not text:
        return f"write where to: {EXAMPLES}"
    if text in _ENDS:
        return Place(seq=_ENDS[text] or None)
    if match := _NUMBER.fullmatch(text):
        return Place(seq=int(match[1].replace(",", "")))
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
    return Place(moment=moment)
