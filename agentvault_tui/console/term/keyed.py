"""Names of key bindings, by which a user's keymap moves them.

A name is the action's (``revoke``, ``saved-filters``); if an action takes a number, as
moving does, it is the binding's purpose (``down``, ``page-down``). Bindings of one name
are moved together: lists everywhere obey the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import ClassVar, Final

from textual.binding import Binding, BindingsMap, BindingType
from textual.keys import key_to_character

_KEYS: Final = {
    "escape": "Esc",
    "enter": "Enter",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "space": "Space",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "home": "Home",
    "end": "End",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "delete": "Del",
    "slash": "/",
}


def moves(action: str, *, pages: str = "pagedown,ctrl+d") -> list[BindingType]:
    """Return the usual keys of a list; *action* takes the rows to move by."""
    far = 1_000_000
    keys = (
        ("down,j", 1, "down"),
        ("up,k", -1, "up"),
        (pages, 10, "page down"),
        ("pageup,ctrl+u", -10, "page up"),
        ("home,g", -far, "first"),
        ("end,G", far, "last"),
    )
    return [Binding(k, f"{action}({n})", words, show=False) for k, n, words in keys]


class ListCursor:
    """A cursor on the id of a row, not on its place: arrivals do not move it."""

    cursor = ""
    order: Sequence[str] = ()
    """The ids of all rows."""

    def keep_cursor(self, order: Sequence[str]) -> None:
        """Take a new order; a cursor whose row has gone is on the one in its place."""
        if self.cursor not in order:
            at = self.order.index(self.cursor) if self.cursor in self.order else 0
            self.cursor = order[min(at, len(order) - 1)] if order else ""
        self.order = order

    def move_cursor(self, rows: int) -> bool:
        """Move as far as there are rows; return whether the cursor is on one."""
        if self.cursor not in self.order:
            return False
        at = self.order.index(self.cursor) + rows
        self.cursor = self.order[min(max(at, 0), len(self.order) - 1)]
        return True


KEYED: list[type] = []
"""Every class with named bindings that is loaded."""


class Keyed:
    """Names the bindings of each class derived from it."""

    BINDINGS: ClassVar[list[BindingType]]

    def __init_subclass__(cls, **options: object) -> None:
        if own := cls.__dict__.get("BINDINGS"):
            cls.BINDINGS = [_named(binding) for binding in own]
            KEYED.append(cls)
        super().__init_subclass__(**options)


def key_label(key: str) -> str:
    """Return the label of a key that Textual calls *key*."""
    return _KEYS.get(key) or key_to_character(key) or key


def relabel(
    label: str, kinds: Iterable[type], keymap: Mapping[str, tuple[str, ...]]
) -> str:
    """Return the user's own keys in place of shipped ones, where they do the same.

    A label may be of several keys, with a space between: ``h l``.
    """
    places = tuple(kinds)
    return " ".join(_own(part, places, keymap) for part in label.split(" "))


def _own(
    label: str, kinds: Iterable[type], keymap: Mapping[str, tuple[str, ...]]
) -> str:
    for kind in kinds:
        for key, name in keys_of(kind).items():
            if name in keymap and key_label(key) == label:
                return key_label(keymap[name][0])
    return label


@cache
def keys_of(kind: type) -> Mapping[str, str]:
    """Return the names of a class's shipped bindings by key."""
    keys: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        own = BindingsMap(base.__dict__.get("BINDINGS", ()))
        for key, binding in own:
            # Textual's own bindings have no name; where ours has their key, it wins.
            keys[key] = binding.id or ""
    return keys


def _named(binding: BindingType) -> BindingType:
    if not isinstance(binding, Binding) or binding.id:
        return binding
    action, _, parameters = binding.action.rpartition(".")[2].partition("(")
    words = binding.description if parameters else action
    return replace(binding, id=words.replace("_", "-").replace(" ", "-"))
