"""The mirror of a moment of the past, and how the moment is given.

A mirror of the past is a mirror like any other, filled by one answer of the broker and
then left alone, with a clock that is at the moment: the same panes draw it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.console.state.link_state import LinkState, LinkView
from agentvault_tui.console.state.mirror import AgentRoster, Mirror
from agentvault_tui.operator_api.displayer import moment
from agentvault_tui.operator_api.history import EventInfo, PastInfo, PlaceInfo
from agentvault_tui.presenters.moments import UNITS, LedgerMoment, read_moment

FORMS: Final = "14:02, 2026-11-24 14:02, -10m, +2h, 3d ago, #1842 or first"
"""How a moment may be written."""
_STEP: Final = re.compile(r"([+-])(\d{1,6})([smhdw])", re.ASCII)
_EVENT: Final = re.compile(r"#?(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """An event's place in the ledger."""

    seq: int
    time: datetime


class PastClock:
    """A clock fixed at a moment; the boot clock, which times keys, runs on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.moment = clock.now()

    @property
    def boot_id(self) -> str:
        return self._clock.boot_id

    def now(self) -> datetime:
        return self.moment

    def boot(self) -> float:
        return self._clock.boot()


class PastMirror(Mirror):
    """The broker's state at a moment."""

    def __init__(self, live: Mirror) -> None:
        self.live, self._past_clock = live, PastClock(live.clock)
        super().__init__(self._past_clock)
        self.intake = live.intake
        self.link = LinkView(LinkState.LIVE)
        self.place = LedgerPlace(0, self._past_clock.moment)
        """The last event that had happened."""
        self.first = self.place
        self.left_at = 0
        """The last event there was when its screen was opened."""
        self.turns: tuple[LedgerPlace | None, LedgerPlace | None] = (None, None)
        """The nearest events, before and after, that no agent's routine made."""
        self._paces: Mapping[str, int] = {}
        self._denials: Mapping[str, int] = {}
        self._pace = 0
        """How agents were answered in the minute before."""

    def fill(self, info: PastInfo, events: Iterable[EventInfo]) -> None:
        """Take over an answer of ``GET /api/past``; *events* oldest first."""
        around = info.around
        here = LedgerPlace(info.seq, moment(info.time) or self.place.time)
        self._past_clock.moment = moment(info.at) or here.time
        self.place = here
        self.first = _place(around.first) or here
        self.turns = _place(around.turn_before), _place(around.turn_after)
        self.load_events(events, after=here.seq)
        roster = AgentRoster(self.intake, info.agents or (), here.seq)
        self.load(info.status, roster, info.stepups or ())
        minute, live = info.minute, self.live
        self._paces = {agent: n.allowed for agent, n in minute.items()}
        self._denials = {agent: n.denied for agent, n in minute.items()}
        self._pace = sum(n.allowed + n.denied + n.escalated for n in minute.values())
        if self.at_last:  # counted in the same slots, so that nothing seems to differ
            self._paces, self._denials = dict(live.paces()), dict(live.denials())
            self._pace = live.decisions()

    @property
    def at_last(self) -> bool:
        """Whether nothing has happened since, as far as this console knows."""
        return self.place.seq >= self.live.last_seq

    def paces(self) -> Mapping[str, int]:
        return self._paces

    def denials(self) -> Mapping[str, int]:
        return self._denials

    def decisions(self) -> int:
        return self._pace


def parse_past_moment(
    text: str, mirror: PastMirror, last: LedgerPlace, now: datetime
) -> LedgerMoment | str:
    """Parse a moment to go to, or return its fault."""
    text = " ".join(text.split()).lower()
    first = mirror.first
    if text in {"first", "start"}:
        return LedgerMoment(seq=first.seq)
    if text.startswith("#") and (match := _EVENT.fullmatch(text)):
        seq = int(match[1])
        if first.seq <= seq <= last.seq:
            return LedgerMoment(seq=seq)
        return f"There is no event {seq:,}: they go from {first.seq:,} to {last.seq:,}."
    parsed = _moment(text, mirror.clock.now(), now)
    if parsed is None:
        return f"That is no time. Write it like {FORMS}."
    if parsed < first.time:
        return f"That is before the first event, at {when(first.time, now)}."
    if parsed > last.time:
        return f"That is after the last event, at {when(last.time, now)}."
    return LedgerMoment(at=parsed)


def _moment(text: str, here: datetime, now: datetime) -> datetime | None:
    """Read a moment: a signed span goes from *here*, all else from *now*."""
    if match := _STEP.fullmatch(text):
        seconds = int(match[2]) * UNITS[match[3]]
        try:
            return here + timedelta(seconds=-seconds if match[1] == "-" else seconds)
        except OverflowError:
            return None
    return read_moment(text.removesuffix(" ago"), now)


def when(time: datetime, now: datetime) -> str:
    """Write a moment; its date too where it is another day than *now*."""
    day = "" if time.date() == now.date() else f"{time:%Y-%m-%d} "
    return f"{day}{time:%H:%M:%S}Z"


def _place(info: PlaceInfo | None) -> LedgerPlace | None:
    time = moment(info.time) if info else None
    return LedgerPlace(info.seq, time) if info and time else None
