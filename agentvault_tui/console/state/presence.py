"""Connected operators: the screen of each, and the last decision."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final, TypeAlias

from msgspec.structs import replace

from agentvault_tui.clock import Clock
from agentvault_tui.operator_api.shapes import PresenceInfo, SeatInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.records import EventRow
from agentvault_tui.text import Shown

_SHOWN: Final = 256
"""Seats that are held, for any number from a broker."""
OperatorRow: TypeAlias = SeatInfo[Shown, datetime]
NEEDS: Final = ("revoke", "restore", "own", "approve")
"""Kinds of decisions, by the broker's names of missing rights."""
_NEWS: Final = 20
_FRESH: Final = 8.0
"""Seconds for which another's decision is news."""
_OWN: Final = 10.0
"""Seconds within which the event of one's own decision comes."""
_KINDS: Final = {
    "change.applied": "approved",
    "stepup.approved": "approved",
    "stepup.denied": "denied",
    "agent.revoked": "revoked",
    "agent.restored": "restored",
    "panic.on": "stopped everything",
    "panic.off": "lifted the panic",
}
DECISIONS: Final = frozenset(_KINDS)
"""Events that are a person's decision, and so news to the others."""


class OperatorsPresent:
    """The connected operators; forgotten when the link is lost."""

    def __init__(self, clock: Clock, intake: Intake) -> None:
        self.you = ""
        """This console's own seat; empty while it has none."""
        self.rows: tuple[OperatorRow, ...] = ()
        self.unlisted = 0
        self.looking_at: str | None = None
        """The step-up this console has open."""
        self._mine: dict[str, float] = {}
        """The subjects of this console's fresh decisions: their news are no news
        here."""
        self.news: deque[str] = deque(maxlen=_NEWS)
        """Decisions of others that were not shown yet."""
        self._clock = clock
        self._intake = intake
        self._latest: tuple[float, str] = (0.0, "")

    # What screens ask

    @property
    def others(self) -> tuple[OperatorRow, ...]:
        """The other operators, the longest connected first."""
        return tuple(row for row in self.rows if row.id != self.you)

    @property
    def colleagues(self) -> tuple[OperatorRow, ...]:
        """The others who sit at a console, plain or not."""
        return tuple(row for row in self.others if row.face != "stream")

    @property
    def me(self) -> OperatorRow | None:
        return next((row for row in self.rows if row.id == self.you), None)

    def looking(self, stepup_id: str) -> tuple[OperatorRow, ...]:
        return tuple(row for row in self.others if row.looking_at == stepup_id)

    def openers(self, stepup_id: str) -> str:
        """Say who else has a step-up open; nothing if it is only here."""
        eyes = self.looking(stepup_id)
        verb = "has" if len(eyes) == 1 else "have"
        return f"{listed(eyes)} {verb} this open too" if eyes else ""

    @property
    def latest(self) -> str:
        """The latest decision of another; empty when it is no news."""
        at, text = self._latest
        return text if text and self._clock.boot() - at < _FRESH else ""

    # What the mirror feeds

    def take(self, info: PresenceInfo) -> None:
        """Read one ``presence`` event, or the answer of ``GET /api/presence``."""
        if info.you:
            self.you = info.you
        self.rows = tuple(map(self._row, info.operators[:_SHOWN]))
        self.unlisted = info.unlisted

    def forget(self) -> None:
        """Clear all: the link is lost, and this console's seat with it."""
        self.you, self.rows, self.unlisted = "", (), 0

    def deciding(self, about: str) -> None:
        """Note a decision of this console before it is sent.

        Its event may come before its answer, or never, when it was refused.
        """
        self._mine[about] = self._clock.boot()

    def heard(self, event: EventRow, about: str, what: str) -> None:
        """Note a decision; *about* is the subject's id, *what* words it."""
        decided_at = self._mine.pop(about, None)
        if decided_at is not None and self._clock.boot() - decided_at < _OWN:
            return
        text = f"{event.actor.name} {_KINDS[event.type]} {what}".strip()
        self.news.append(text)
        self._latest = (self._clock.boot(), text)

    def _row(self, seat: SeatInfo) -> OperatorRow:
        name = seat.name or seat.uid or "someone"
        refused = {need: seat.refused[need] for need in NEEDS if need in seat.refused}
        return self._intake.read(replace(seat, name=name, refused=refused), OperatorRow)


def listed(rows: tuple[OperatorRow, ...], most: int = 2) -> str:
    """Name a few operators, and count the others."""
    names = [row.title for row in rows[:most]]
    rest = len(rows) - most
    if rest > 0:
        return f"{', '.join(names)} and {rest} more"
    return " and ".join(names)
