"""Remove, restore or dismiss the permission that advice names."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.confirm import Confirm
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.calls import ApiCall
from agentvault_tui.presenters.advice import change_texts
from agentvault_tui.presenters.lines import Pen, Row


class AdviceDialog(Confirm[AdviceInfo]):
    """Remove, restore or dismiss the permission that advice names: a key, then `y`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "do it")]

    def __init__(
        self,
        desk: Desk,
        advice: AdviceInfo,
        about: str,
        word: str,
        call: ApiCall[AdviceInfo],
    ) -> None:
        self._advice = advice
        self._about = about
        self._word = word
        self._call = call
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        word = self._word[:1].upper() + self._word[1:]
        return ((f"{word}  ", pen.palette.title), (self._about, pen.palette.strong))

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the subject, and the consequences."""
        shown = self.desk.mirror.intake.shown
        change = change_texts(self._advice.change)
        text = "; ".join(f"{what} {change_text}" for what, change_text in change)
        refused = self._advice.evidence.would_have_refused
        return [
            *pen.facts("Change", shown(text, 600), width, max(height - 3, 1))[0],
            *pen.facts("In the past", f"{refused:,} requests refused", width, 1)[0],
        ]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        del width
        return [pen.stage("done", self._word, self._about)]

    def act(self) -> Awaitable[AdviceInfo]:
        return self.desk.link.take(self._advice.id, self._call)
