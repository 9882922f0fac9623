"""The bottom line: the keys that work where the focus is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentvault_tui.console.desk import UNDO_KEY, offered_undo, undo_bar
from agentvault_tui.console.draw.lines import cells
from agentvault_tui.console.widgets.pane import Painted, Pane

_COVERED: Final = (("Esc", "back"), ("^q", "quit"))


class KeyBar(Pane):
    """Shows the keys it is given, as many as fit; or that a restore can be undone."""

    keys: tuple[tuple[str, str], ...] = ()

    def show(self, keys: tuple[tuple[str, str], ...]) -> None:
        """Show these keys, the user's own in their place.

        Behind a dialog none of them works, and those that do are named instead.
        """
        if self.is_attached and self.screen not in self.app.screen_stack[-1:]:
            keys = _COVERED
        keys = tuple((self.key(label), words) for label, words in keys)
        if keys != self.keys:
            self.keys = keys
            self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw whole keys only."""
        del height
        pen, undo = self.pen, offered_undo(self.desk)
        if undo is not None:
            now = self.mirror.clock.boot()
            row = (
                (" ", pen.palette.text),
                *undo_bar(pen, undo, now, self.desk.key("undo", UNDO_KEY)),
            )
            return [(pen.cut(row, width), None)]
        keys = list(self.keys)
        while keys and cells(self.pen.keys(keys)) > width - 2:
            # The last two lead to all the others, and out.
            del keys[-3 if len(keys) > 2 else -1]
        return [(((" ", self.pen.palette.text), *self.pen.keys(keys)), None)]
