"""Changes that wait and loosenings, as the broker's answers say them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from agentvault_tui.console.state.moments import clock_time
from agentvault_tui.console.state.records import TextRow
from agentvault_tui.model import CHANGE_ID
from agentvault_tui.model.event import LOOSENED

if TYPE_CHECKING:
    from datetime import datetime

    from agentvault_tui.clock import Clock
    from agentvault_tui.operator_api.history import EventInfo
    from agentvault_tui.operator_api.shapes import Json, StepUpInfo
    from agentvault_tui.text import Shown

    Show = Callable[[object, int], Shown]
    """Makes anything displayable, in so many cells."""

_NAMES: Final = 80
_WORDS: Final = 400
_WHOLE: Final = 4000
_RETAINED: Final = 50
_SHOWN_S: Final = 60.0
"""Seconds for which the header shows a loosening to every operator."""


class ChangeParts(NamedTuple):
    """What a step-up that is a change has in the place of an agent's parameters."""

    is_change: bool
    details: Json
    texts: tuple[tuple[object, ...], ...] = ()
    """Name, and the SHA-256 of before and after."""
    may: str = ""
    """Who may approve it where no rule names them."""

    @classmethod
    def of(cls, told: StepUpInfo) -> Self:
        """Read *told*; an agent's step-up has its parameters alone."""
        if not told.id.startswith(f"{CHANGE_ID}_"):
            return cls(False, told.parameters)
        details = {n: v for n, v in told.parameters.items() if v is not None}
        listed = details.pop("texts", None)
        details.pop("changes", None)  # what would outdate it
        if details.get("summary") == told.why:
            del details["summary"]
        texts = listed if isinstance(listed, list) else []
        return cls(
            True,
            details,
            tuple(tuple(one) for one in texts if _is_text(one)),
            "one approver, with a second factor",
        )

    def rows(self, shown: Show) -> tuple[TextRow, ...]:
        """Return the texts, displayable."""
        return tuple(
            TextRow(*(shown(part, _WHOLE) for part in text)) for text in self.texts
        )


class LooseningRow(NamedTuple):
    """A loosening that was carried out."""

    seq: int
    words: Shown
    """By whom, when and what."""
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

    def note(self, told: EventInfo, at: datetime, *, live: bool) -> bool:
        """Note *told* if it is of a loosening, whoever brought it and how.

        Args:
            told: any event.
            at: when it was recorded.
            live: whether it comes as it happens. Then it is shown for the whole
                time, whatever the difference between the two machines' clocks.

        Returns:
            whether it is one that was not noted before.
        """
        if LOOSENED not in told.detail or told.seq <= self.known_to:
            return False
        if self._rows and told.seq <= self._rows[-1].seq:
            return False
        age = 0.0 if live else (self._clock.now() - at).total_seconds()
        ends = self._clock.boot() + _SHOWN_S - min(max(age, 0.0), _SHOWN_S)
        self._rows.append(LooseningRow(told.seq, self._words(told, at), ends))
        return True

    def _words(self, told: EventInfo, at: datetime) -> Shown:
        """Say who loosened what."""
        people, shown = _record(told).get("by"), self._shown
        listed = people if isinstance(people, list) else []
        named = [one for one in listed if isinstance(one, dict)]
        names = [str(one.get("name") or one.get("sub") or "") for one in named]
        by = shown(" and ".join(filter(None, names)) or told.actor.name, _NAMES)
        what = loosened(told) or told.type
        return shown(f"by {by} at {clock_time(at)}: {what}", _WORDS)


def loosened(told: EventInfo) -> str:
    """Return what *told* loosened, in a few words; empty where it loosened nothing."""
    return str(_record(told).get("summary") or "")


def _record(told: EventInfo) -> Json:
    record = told.detail.get(LOOSENED)
    return record if isinstance(record, dict) else {}


def _is_text(one: object) -> bool:
    return isinstance(one, list) and len(one) == len(TextRow._fields)
