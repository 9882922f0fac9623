"""One agent's activity: uses of scopes, denials, answers over a day.

Read from ``GET /api/agents/{id}/activity``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Struct

from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.displayer import moment
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    DenialsInfo,
    PastActivityInfo,
    RevokedInfo,
    ScopeUseInfo,
)
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.limits import LimitRows, LimitWindow, windows
from agentvault_tui.presenters.records import QUARTERS
from agentvault_tui.text import Shown

Denials: TypeAlias = DenialsInfo[Shown, datetime]
PastCut: TypeAlias = RevokedInfo[Shown, datetime]
ScopeUse: TypeAlias = ScopeUseInfo[Shown, datetime]
QUARTER: Final = timedelta(minutes=15)
_MOST: Final = 200
"""Scopes and reasons there may be: more than any catalogue has."""


class Day(Struct, frozen=True):
    """Answers by quarter of an hour, the oldest first; the last goes on."""

    start: datetime
    series: tuple[tuple[int, ...], ...]
    """For each of `OUTCOMES`, a number a quarter."""

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(sum(numbers) for numbers in self.series)

    def at(self, index: int) -> tuple[int, ...]:
        """Return the numbers of one quarter, for each outcome."""
        return tuple(numbers[index] for numbers in self.series)

    def span(self, index: int) -> tuple[datetime, datetime]:
        begins = self.start + index * QUARTER
        return begins, begins + QUARTER


class ActivityRow(Struct, frozen=True):
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
    limits: tuple[LimitWindow, ...] = ()
    """Windows of which little is left to it."""
    trials: tuple[AdviceInfo, ...] = ()
    """Its permissions removed on trial; the words are not displayable yet."""

    def use(self, scope: str) -> ScopeUse | None:
        return next((use for use in self.scopes if use.scope == scope), None)


def read_activity(intake: Intake, info: PastActivityInfo) -> ActivityRow:
    """Convert the answer of ``GET /api/agents/{id}/activity``."""
    now = info if isinstance(info, ActivityInfo) else None
    revoked, day = now.revoked if now else None, info.quarters
    start, series = moment(day.start), (day.allowed, day.denied, day.escalated)
    whole_day = {len(numbers) for numbers in series} == {QUARTERS}
    return ActivityRow(
        scopes=intake.read_all(info.scopes[:_MOST], ScopeUse),
        denials=intake.read_all(info.denials[:_MOST], Denials),
        day=Day(start, series) if start and whole_day else None,
        elevated=now.revoke.elevated if now else 0,
        whole=info.whole,
        revoked=intake.read(revoked, PastCut) if revoked else None,
        limits=tuple(windows(intake.read(now.limits, LimitRows))) if now else (),
        trials=now.trials if now else (),
    )
