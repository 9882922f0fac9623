"""Changes that wait and loosenings, as the broker's answers say them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from agentvault_tui.model.event import LOOSENED
from agentvault_tui.presenters.changes import loosened, record_of
from agentvault_tui.presenters.moments import clock_time

if TYPE_CHECKING:
    from datetime import datetime

    from agentvault_tui.clock import Clock
    from agentvault_tui.operator_api.history import EventInfo
    from agentvault_tui.text import Shown

    Show = Callable[[object, int], Shown]
    """Makes anything displayable, in so many cells."""

_NAMES: Final = 80
_WORDS: Final = 400
_RETAINED: Final = 50
_SHOWN_S: Final = 60.0
"""Seconds for which the header shows a loosening to every operator."""


class LooseningRow(NamedTuple):
    """A loosening that was carried out."""

    seq: int
    words: Shown
    """The person, the time and the loosening."""
    ends: float
    """Until when it is shown, in seconds of the boot clock."""


class Loosenings:
    """The loosenings of the last minute."""

    def __init__(self, clock: Clock, shown: Show) -> None:
        self._clock = clock
        self._shown = shown
        self.known_to = 0
        """Up to this event the operator knows of all loosenings, and is shown none."""
        self._rows: deque[LooseningRow] = deque(maxlen=_RETAINED)

    def recent(self) -> list[LooseningRow]:
        """Return those that are still shown, oldest first."""
        now = self._clock.boot()
        return [row for row in self._rows if row.ends > now]

    def note(self, event: EventInfo, at: datetime, *, live: bool) -> bool:
        """Note *event* if it is of a loosening, by any person and any way.

        Args:
            event: any event.
            at: when it was recorded.
            live: whether it comes as it happens. Then it is shown for the whole
                time, whatever the difference between the two machines' clocks.

        Returns:
            whether it is one that was not noted before.
        """
        if LOOSENED not in event.detail or event.seq <= self.known_to:
            return False
        record = record_of(event)
        if record.get("kinds") == ["tokens"] and record.get("proof") == "uid":
            return False  # a token for the local user's own command changes no rule
        if self._rows and event.seq <= self._rows[-1].seq:
            return False
        age = 0.0 if live else (self._clock.now() - at).total_seconds()
        ends = self._clock.boot() + _SHOWN_S - min(max(age, 0.0), _SHOWN_S)
        self._rows.append(LooseningRow(event.seq, self._words(event, at), ends))
        return True

    def _words(self, event: EventInfo, at: datetime) -> Shown:
        """Word the person and the loosening."""
        people, shown = record_of(event).get("by"), self._shown
        listed = people if isinstance(people, list) else []
        named = [one for one in listed if isinstance(one, dict)]
        names = [str(one.get("name") or one.get("sub") or "") for one in named]
        by = shown(" and ".join(filter(None, names)) or event.actor.name, _NAMES)
        what = loosened(event) or event.type
        return shown(f"by {by} at {clock_time(at)}: {what}", _WORDS)
