"""Asks for a moment to look back to."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.line_input import LineInput
from agentvault_tui.console.dialogs.page import Page
from agentvault_tui.console.draw.lines import EMPTY, LABEL, Row
from agentvault_tui.console.state.past import (
    FORMS,
    Aim,
    PastMirror,
    Place,
    read_aim,
    when,
)


class MomentDialog(Dialog[Aim | None]):
    """One line: a time, a span, or an event's number; what is none is told in words."""

    WIDTH: ClassVar[int] = 72
    AUTO_FOCUS: ClassVar[str | None] = "#moment"

    def __init__(self, desk: Desk, past: PastMirror, last: Place, live: Desk) -> None:
        self._past = past
        self._last = last
        self._live = live.mirror
        super().__init__(desk)

    def inputs(self) -> list[Widget]:
        """Return the line."""
        return [LineInput("moment", 40, longest=40, empty="14:02")]

    def page(self, width: int, height: int) -> Page:
        """Say what may be written, and between which ends."""
        del height
        pen, now = self.pen, self._live.clock.now()
        first, last = self._past.first, self._last
        ends = f"{when(first.time, now)} to {when(last.time, now)}"
        body: list[Row] = [
            pen.fact("Time", ("", pen.palette.text)),
            EMPTY,
            *pen.facts("Written", f"{FORMS}; all in UTC", width, 2)[0],
            pen.fact(
                "Between",
                (f"{ends}, events {first.seq:,} to ", pen.palette.text),
                (f"{last.seq:,}", pen.palette.text),
            ),
            *self.notes(pen, width),
        ]
        keys = [("Enter", "go there"), ("Esc", "stay")]
        title = (("Go to a time", pen.palette.title),)
        footer = (EMPTY, pen.keys(keys))
        return Page(title, (), tuple(body), footer, places={"moment": (LABEL, 0)})

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        aim = read_aim(event.value, self._past, self._last, self._live.clock.now())
        if isinstance(aim, str):
            self.say(aim)
        else:
            self.dismiss(aim)

    @on(LineInput.Left)
    def _left(self) -> None:
        self.dismiss(None)

    def action_leave(self) -> None:
        """Stay where it is."""
        self.dismiss(None)
