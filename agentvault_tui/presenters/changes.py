"""Changes of who may do what: their parts in a step-up, and their events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Self

from agentvault_tui.model import CHANGE_ID
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.shapes import Json
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.records import TextRow
from agentvault_tui.text import Shown

_WHOLE: Final = 4000


class ChangeParts(NamedTuple):
    """The members of a step-up about a change instead of an agent's parameters."""

    is_change: bool
    details: Json
    texts: tuple[tuple[object, ...], ...] = ()
    """Name, and the SHA-256 of before and after."""
    may: str = ""
    """Who may approve it where no rule names them."""

    @classmethod
    def of(cls, info: StepUpInfo) -> Self:
        """Read *info*; an agent's step-up has only its parameters."""
        if not info.id.startswith(f"{CHANGE_ID}_"):
            return cls(False, info.parameters)
        details = {n: v for n, v in info.parameters.items() if v is not None}
        listed = details.pop("texts", None)
        details.pop("changes", None)  # what would outdate it
        if details.get("summary") == info.why:
            del details["summary"]
        texts = listed if isinstance(listed, list) else []
        return cls(
            True,
            details,
            tuple(tuple(one) for one in texts if _is_text(one)),
            "one approver, with a second factor",
        )

    def rows(self, shown: Callable[[object, int], Shown]) -> tuple[TextRow, ...]:
        """Return the texts, displayable."""
        return tuple(
            TextRow(*(shown(part, _WHOLE) for part in text)) for text in self.texts
        )


def loosened(event: EventInfo) -> str:
    """Return the loosening of *event*, in a few words; empty without one."""
    return str(record_of(event).get("summary") or "")


def record_of(event: EventInfo) -> Json:
    """Return the description of the loosening in *event*; empty without one."""
    record = event.detail.get(LOOSENED)
    return record if isinstance(record, dict) else {}


def _is_text(one: object) -> bool:
    return isinstance(one, list) and len(one) == len(TextRow._fields)
