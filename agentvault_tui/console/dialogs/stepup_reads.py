"""Reads the dialog's content beyond its row: a held body, a change's lines."""

from __future__ import annotations

from typing import Final

from agentvault_tui.console.desk import Desk
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters.body import READING, unread
from agentvault_tui.presenters.change_lines import ShownLines
from agentvault_tui.presenters.records import StepUpRow

_AGAIN: Final = 2.0
"""Seconds until an unreadable value is requested again."""
_CELLS: Final = 8_000
"""Of one line; a longer one is truncated, with a mark."""


class ChangeLines:
    """The lines of one change: until they are read, it cannot be approved here."""

    def __init__(self, desk: Desk, stepup: StepUpRow) -> None:
        """Read nothing yet; a request without texts has no lines to be read."""
        self.shown = ShownLines(None if stepup.texts and stepup.open else ())
        self._desk, self._stepup = desk, stepup
        self._due = 0.0

    @property
    def missing(self) -> bool:
        """Whether there are lines that were not read."""
        return self.shown.texts is None

    def due(self) -> bool:
        """Check whether to read; from then on it is not due again until it failed."""
        now = self._desk.mirror.clock.boot()
        if not self.missing or not self._desk.mirror.link.live or now < self._due:
            return False
        self._due = float("inf")
        return True

    async def read(self) -> None:
        """Read them; the digest covers them, so another one has other lines."""
        shown = self._desk.mirror.intake.shown
        try:
            change = await self._desk.link.change(self._stepup.id)
        except AgentVaultError as error:
            self.shown = ShownLines(None, shown(error.what, 80))
            self._due = self._desk.mirror.clock.boot() + _AGAIN
            return
        if change.digest != self._stepup.digest:
            self.shown = ShownLines(None, shown("it is another change by now"))
            return
        lines = (
            (shown(one.name), str(one.diff or "").split("\n")) for one in change.texts
        )
        self.shown = ShownLines(
            tuple(
                (name, tuple(shown(line, _CELLS) for line in text))
                for name, text in lines
            )
        )


class CallBody:
    """The body of one held call; a request that holds none has no body."""

    def __init__(self, desk: Desk, stepup: StepUpRow) -> None:
        """Read nothing yet."""
        self.view = READING if stepup.request else None
        self._desk, self._stepup = desk, stepup
        self._due = 0.0

    @property
    def lost(self) -> bool:
        """Whether no broker has it: then the call can only be denied."""
        return self.view is not None and self.view.lost

    @property
    def foreign(self) -> bool:
        """Whether the bytes are not those that the step-up's digest covers."""
        return self.view is not None and self.view.foreign

    def due(self) -> bool:
        """Check whether to read; from then on it is not due again until it failed."""
        now = self._desk.mirror.clock.boot()
        if not (self.view and self._desk.mirror.link.live and now >= self._due):
            return False
        self._due = float("inf")
        return True

    async def read(self) -> None:
        """Read it; a lost body is read again, because the agent may send it again."""
        if (request := self._stepup.request) is None:
            return
        failed = False
        try:
            self.view = await self._desk.link.body(self._stepup.id, request)
        except AgentVaultError as error:
            failed = True
            why = self._desk.mirror.intake.shown(error.what, 80)
            self.view = unread(request, why)
        if failed or self.lost:
            self._due = self._desk.mirror.clock.boot() + _AGAIN
