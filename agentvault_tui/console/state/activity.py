"""What one agent did, as records: uses of scopes, refusals, the day, what a cut ends.

Read from ``GET /api/agents/{id}/activity``; like all of `intake`, it raises on nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from agentvault_tui.console.state.intake import Intake, moment
from agentvault_tui.console.state.records import OUTCOMES, QUARTERS, Json, ScopeRow
from agentvault_tui.text import Shown

QUARTER: Final = timedelta(minutes=15)
_MOST: Final = 200
"""Scopes and reasons there may be: more than any catalogue has."""


@dataclass(frozen=True, slots=True)
class ScopeUse:
    """One scope: whether it is granted, and how it was asked for and used."""

    scope: ScopeRow
    granted: bool
    uses: int
    denied: int
    escalated: int
    last_used_at: datetime | None
    last_asked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Denials:
    """Refusals for one reason."""

    reason: Shown
    count: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """Answers by quarter of an hour, the oldest first; the last goes on."""

    start: datetime
    series: tuple[tuple[int, ...], ...]
    """For each of `OUTCOMES`, a number a quarter."""

    @property
    def totals(self) -> tuple[int, ...]:
        """The whole day, for each outcome."""
        return tuple(sum(numbers) for numbers in self.series)

    def at(self, index: int) -> tuple[int, ...]:
        """Return the numbers of one quarter, for each outcome."""
        return tuple(numbers[index] for numbers in self.series)

    def span(self, index: int) -> tuple[datetime, datetime]:
        begins = self.start + index * QUARTER
        return begins, begins + QUARTER


@dataclass(frozen=True, slots=True)
class PastCut:
    """What the revocation in force ended."""

    by: Shown
    reason: Shown
    tokens: int
    stepups: int


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One agent's activity, as the broker counted it."""

    scopes: tuple[ScopeUse, ...]
    denials: tuple[Denials, ...]
    day: Day | None
    """None when the broker's numbers make no day."""
    elevated: int
    """Live tokens good for one action, that a revoke would cut."""
    whole: bool = True
    """Whether scopes and denials count everything, or of very many the latest."""
    revoked: PastCut | None = None
    """None of one that is served, and while the record is on its way."""

    def use(self, scope: str) -> ScopeUse | None:
        return next((use for use in self.scopes if use.scope.name == scope), None)


def read_activity(intake: Intake, data: Json) -> ActivityRow:
    cut = data.get("revoke")
    return ActivityRow(
        scopes=tuple(_use(intake, raw) for raw in _objects(data.get("scopes"))),
        denials=tuple(
            Denials(
                intake.shown(raw.get("reason"), 80),
                _number(raw.get("count")),
                moment(raw.get("last_at")),
            )
            for raw in _objects(data.get("denials"))
        ),
        day=_day(data.get("quarters")),
        elevated=_number(cut.get("elevated")) if isinstance(cut, Mapping) else 0,
        whole=data.get("whole") is not False,
        revoked=_past_cut(intake, data.get("revoked")),
    )


def _past_cut(intake: Intake, raw: object) -> PastCut | None:
    if not isinstance(raw, Mapping):
        return None
    return PastCut(
        intake.shown(raw.get("by"), 120),
        intake.shown(raw.get("reason"), 300),
        _number(raw.get("tokens")),
        _number(raw.get("stepups")),
    )


def _use(intake: Intake, raw: Mapping[str, Any]) -> ScopeUse:
    return ScopeUse(
        intake.scope(raw.get("scope")),
        raw.get("granted") is True,
        _number(raw.get("uses")),
        _number(raw.get("denied")),
        _number(raw.get("escalated")),
        moment(raw.get("last_used_at")),
        moment(raw.get("last_asked_at")),
    )


def _day(raw: object) -> Day | None:
    if not isinstance(raw, Mapping):
        return None
    start = moment(raw.get("start"))
    series = [raw.get(word) for word in OUTCOMES]
    if start is None:
        return None
    lists = [numbers for numbers in series if isinstance(numbers, list)]
    if [len(numbers) for numbers in lists] != [QUARTERS] * len(OUTCOMES):
        return None
    return Day(start, tuple(tuple(map(_number, numbers)) for numbers in lists))


def _objects(raw: object) -> list[Mapping[str, Any]]:
    rows = raw if isinstance(raw, list) else []
    return [row for row in rows[:_MOST] if isinstance(row, Mapping)]


def _number(raw: object) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and raw > 0 else 0
