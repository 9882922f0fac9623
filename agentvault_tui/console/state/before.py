"""What was decided before about the same agent and action, and what differs now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from agentvault_tui.console.state.records import StepUpRow

_DAY: Final = 86_400
_GRANTED: Final = frozenset({"approved", "redeemed"})
_SAME: Final = "exactly the same"


def ago(row: StepUpRow, now: datetime) -> str:
    """Say when it was decided: the time of day, or how many days ago."""
    moment = row.decided_at or row.expires_at
    days = int(max((now - moment).total_seconds(), 0) // _DAY)
    return f"{days:,} d ago" if days else f"{moment:%H:%M:%S}Z"


def ended(row: StepUpRow) -> str:
    who = f" by {row.decided_by.name}" if row.decided_by else ""
    used = ", used" if row.status == "redeemed" else ""
    word = "approved" if row.status in _GRANTED else str(row.status)
    return f"{word}{who}{used}"


def differs(then: StepUpRow, asked: StepUpRow) -> str:
    """Name what was otherwise then, with the values of then."""
    old = dict((*then.parameters, *then.others))
    new = dict((*asked.parameters, *asked.others))
    found = [f"{name} {old[name]}" for name in old if new.get(name) != old[name]]
    found += [f"no {name}" for name in new if name not in old]
    if then.resource != asked.resource:
        found.append(f"on {then.resource}" if then.resource else "on nothing named")
    if then.scope != asked.scope:
        found.append(f"scope {then.scope}")
    return ", ".join(found) or _SAME


def tally(rows: Sequence[StepUpRow]) -> str:
    if not rows:
        return "the first of its kind"
    counts = {
        "approved": sum(row.status in _GRANTED for row in rows),
        "denied": sum(row.status == "denied" for row in rows),
    }
    counts["lapsed"] = len(rows) - sum(counts.values())
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"last {len(rows)} like it: {words}"


def sentences(
    rows: Iterable[StepUpRow], asked: StepUpRow, now: datetime
) -> Iterable[str]:
    for row in rows:
        yield f"{ago(row, now)}, {ended(row)}: {differs(row, asked)}"
