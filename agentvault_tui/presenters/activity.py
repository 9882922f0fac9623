"""One agent's activity: uses of scopes, denials, answers over a day.

Read from ``GET /api/agents/{id}/activity``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec.structs import asdict

from agentvault_tui.operator_api.displayer import EPOCH
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    PastActivityInfo,
    QuartersInfo,
    RevokeForecast,
    ScopeUseInfo,
)
from agentvault_tui.operator_api.limits import LimitList
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.records import QUARTERS
from agentvault_tui.text import Shown

ActivityRow: TypeAlias = ActivityInfo[Shown, datetime, Shown]
Day: TypeAlias = QuartersInfo[Shown, datetime]
ScopeUse: TypeAlias = ScopeUseInfo[Shown, datetime]
QUARTER: Final = timedelta(minutes=15)
_MOST: Final = 200
"""Scopes and reasons there may be: more than any catalogue has."""
_NO_FORECAST: Final = RevokeForecast(tokens=0, elevated=0, stepups=0)
_NO_LIMITS: Final[LimitList] = LimitList(limits=(), uses=(), hooks=(), problem=None)


def read_activity(intake: Intake, info: PastActivityInfo) -> ActivityRow:
    """Convert the activity of an agent, now or in the past."""
    if not isinstance(info, ActivityInfo):
        counted = asdict(info)
        info = ActivityInfo(**counted, revoke=_NO_FORECAST, limits=_NO_LIMITS)
    row = intake.read(info, ActivityRow)
    row.scopes, row.denials = row.scopes[:_MOST], row.denials[:_MOST]
    return row


def scope_use(activity: ActivityRow, scope: str) -> ScopeUse | None:
    """Return the uses of a scope; None where it was never asked for."""
    return next((use for use in activity.scopes if use.scope == scope), None)


def day_of(activity: ActivityRow) -> Day | None:
    """Return the answers over a day; None if the broker's numbers make no day."""
    day = activity.quarters
    is_whole = {len(numbers) for numbers in day.series} == {QUARTERS}
    return day if is_whole and day.start != EPOCH else None


def quarter(day: Day, index: int) -> tuple[datetime, datetime]:
    """Return when a quarter of an hour begins and ends."""
    begins = day.start + index * QUARTER
    return begins, begins + QUARTER
