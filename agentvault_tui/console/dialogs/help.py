"""The keys that work here, read from the bindings themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from textual.app import App
from textual.binding import ActiveBinding, Binding, BindingType
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

from agentvault_tui.console.dialogs.base import key_name
from agentvault_tui.console.dialogs.desk import Desk
from agentvault_tui.console.dialogs.page import Page
from agentvault_tui.console.dialogs.scrolled import Scrolled
from agentvault_tui.console.lines import EMPTY, Pen, Row
from agentvault_tui.text import cell_width

_KEYS: Final = 22
"""Cells of the column of keys."""
_WORDS: Final = {
    "app.focus_next": "next field or pane",
    "app.focus_previous": "the one before",
    "screen.copy_text": "copy what is selected",
}
"""Ours for the framework's own bindings."""


class HelpDialog(Scrolled):
    """Lists what was bound where the operator was when they asked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "leave", "close", show=False)
    ]

    def __init__(self, desk: Desk, bindings: Mapping[str, ActiveBinding]) -> None:
        self.bindings_there = dict(bindings)
        super().__init__(desk)

    def page(self, width: int, height: int) -> Page:
        """Write one group for each place the keys belong to."""
        pen = self.pen
        body: list[Row] = []
        for heading, keys in self._groups().items():
            if body:
                body.append(EMPTY)
            body.append(((heading, pen.palette.muted),))
            body += [_line(pen, key, words, width) for key, words in keys]
        more = len(body) + 2 > height
        hints = [("Esc", "close")]
        hints += [(f"{pen.glyphs.up} {pen.glyphs.down}", "more")] * more
        footer = [EMPTY, pen.keys(hints)]
        title = (("Keys that work here", pen.palette.title),)
        return Page(title, (), tuple(body), tuple(footer))

    def _groups(self) -> dict[str, list[tuple[str, str]]]:
        """Group the bindings by where they work, keys of one action together."""
        found: dict[tuple[str, str], list[str]] = {}
        for active in self.bindings_there.values():
            binding = active.binding
            if binding.description and active.enabled and not _spare(binding):
                words = _WORDS.get(binding.action, binding.description)
                where = (_place(active.node), words)
                key = key_name(binding)
                keys = found.setdefault(where, [])
                if key not in keys:
                    keys.append(key)
        groups: dict[str, list[tuple[str, str]]] = {}
        for (heading, words), keys in found.items():
            groups.setdefault(heading, []).append((" ".join(keys), words))
        order = ("In this pane", "On this screen", "Everywhere")
        return {name: groups[name] for name in order if name in groups}


def _spare(binding: Binding) -> bool:
    """Leave out keys of other keyboards, and the framework's own."""
    return binding.system or binding.key.startswith("super+")


def _place(node: DOMNode) -> str:
    if isinstance(node, App):
        return "Everywhere"
    if isinstance(node, Screen):
        return "On this screen"
    return "In this pane" if isinstance(node, Widget) else "Everywhere"


def _line(pen: Pen, key: str, words: str, width: int) -> Row:
    blank = " " * max(_KEYS - cell_width(key), 1)
    row = ((f"  {key}{blank}", pen.palette.key), (words, pen.palette.text))
    return pen.cut(row, width)
