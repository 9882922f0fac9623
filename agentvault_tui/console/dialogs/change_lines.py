"""Reads the lines that a change replaces, once its dialog is open."""

from __future__ import annotations

from typing import Final

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.change_lines import ShownLines
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.errors import AgentVaultError

_AGAIN: Final = 2.0
"""Seconds until lines that could not be read are asked for again."""
_CELLS: Final = 8_000
"""Of one line; a longer one is truncated, with a mark."""


class ChangeLines:
    """The lines of one change: until they are read, it cannot be approved here."""

    def __init__(self, desk: Desk, asked: StepUpRow) -> None:
        """Read nothing yet; a request without texts has no lines to be read."""
        self.shown = ShownLines(None if asked.texts and asked.open else ())
        self._desk, self._asked = desk, asked
        self._due = 0.0

    @property
    def missing(self) -> bool:
        """Whether there are lines that were not read."""
        return self.shown.texts is None

    def due(self) -> bool:
        """Tell whether to read; from then on it is not due again until it failed."""
        now = self._desk.mirror.clock.boot()
        if not self.missing or not self._desk.mirror.link.live or now < self._due:
            return False
        self._due = float("inf")
        return True

    async def read(self) -> None:
        """Read them; the digest covers them, so another one has other lines."""
        shown = self._desk.mirror.intake.shown
        try:
            change = await self._desk.link.change(self._asked.id)
        except AgentVaultError as error:
            self.shown = ShownLines(None, shown(error.what, 80))
            self._due = self._desk.mirror.clock.boot() + _AGAIN
            return
        if change.digest != self._asked.digest:
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
