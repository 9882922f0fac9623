"""What one agent did, as records: uses of scopes, refusals, the day, what a cut ends.

Read from ``GET /api/agents/{id}/activity``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.console.state.intake import Intake, moment
from agentvault_tui.console.state.records import QUARTERS, ScopeRow
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    PastActivityInfo,
    QuartersInfo,
    RevokedInfo,
    ScopeUseInfo,
)
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


def read_activity(intake: Intake, told: PastActivityInfo) -> ActivityRow:
    """Make a record of the broker's answer."""
    now = told if isinstance(told, ActivityInfo) else None
    return ActivityRow(
        scopes=tuple(_use(intake, use) for use in told.scopes[:_MOST]),
        denials=tuple(
            Denials(intake.shown(one.reason, 80), one.count, moment(one.last_at))
            for one in told.denials[:_MOST]
        ),
        day=_day(told.quarters),
        elevated=now.revoke.elevated if now else 0,
        whole=told.whole,
        revoked=_past_cut(intake, now.revoked if now else None),
    )


def _past_cut(intake: Intake, told: RevokedInfo | None) -> PastCut | None:
    if told is None:
        return None
    return PastCut(
        intake.shown(told.by, 120),
        intake.shown(told.reason, 300),
        told.tokens,
        told.stepups,
    )


def _use(intake: Intake, told: ScopeUseInfo) -> ScopeUse:
    return ScopeUse(
        intake.scope(told.scope),
        told.granted,
        told.uses,
        told.denied,
        told.escalated,
        moment(told.last_used_at),
        moment(told.last_asked_at),
    )


def _day(told: QuartersInfo) -> Day | None:
    start, series = moment(told.start), (told.allowed, told.denied, told.escalated)
    if start is None or {len(numbers) for numbers in series} != {QUARTERS}:
        return None
    return Day(start, series)
