"""The user's own keys: ``keymap.toml`` in the vault's configuration folder.

Each line names an action and its keys: ``revoke = "R"``, ``down = "ctrl+n, down"``. A
clashing, unknown or dangerous key stays as it was shipped, and is reported.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textual.binding import Binding, BindingsMap
from textual.keys import Keys

from agentvault_tui.console.term.keyed import KEYED, keys_of
from agentvault_tui.text import visible

FILE: Final = "keymap.toml"
_LARGEST: Final = 100_000
_PACKAGES: Final = ("screens", "dialogs", "widgets")
_CONFIRM: Final = "y"
_STAYS: Final = {
    "confirm": "y alone confirms, and nothing else does",
    "take": "Enter on a button takes it",
}
_ALWAYS: Final = {
    "quit": ("ctrl+q",),
    "palette": ("ctrl+p",),
    "out": ("escape",),
    "leave": ("escape",),
}
"""Keys that an action keeps whatever else it is given."""
_DECIDES: Final = frozenset(
    {"approve", "deny", "reason", "revoke", "restore", "undo", "panic"}
)
_CARELESS: Final = frozenset({"enter", "return", "space", "tab", "backspace"})
"""Pressed without looking, whatever is held with them."""
_CONTROLLED: Final = frozenset({"m", "j", "i", "h", "at", "@"})
"""With ctrl the same bytes as Enter, Tab, Backspace and ctrl+space."""
Place = tuple[type, ...]
"""Classes whose keys work at the same time."""
_MODIFIERS: Final = frozenset({"ctrl", "shift", "alt", "super"})
_NAMED: Final = frozenset(key.value for key in Keys)


@dataclass(slots=True)
class Keymap:
    """The valid part of the file, and the messages about the rest."""

    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By the action's name: its keys as Textual calls them."""
    problems: list[str] = field(default_factory=list)

    def textual(self) -> dict[str, str]:
        return {name: ",".join(keys) for name, keys in self.keys.items()}


def load(folder: Path, together: Iterable[Place]) -> Keymap:
    """Read the file and settle it.

    Args:
        folder: where the file may be.
        together: classes whose keys work at the same time.
    """
    keymap = Keymap()
    try:
        with (folder / FILE).open("rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ValueError("it is too large")  # noqa: TRY301 - told like the others
        wanted = tomllib.loads(raw.decode())
    except FileNotFoundError:
        return keymap
    except (OSError, ValueError, RecursionError) as error:
        keymap.problems.append(f"it cannot be read: {visible(error, 120)}")
        return keymap
    load_all()
    places: list[Place] = [*((kind,) for kind in KEYED), *together]
    actions = {name for kind in KEYED for name in keys_of(kind).values() if name}
    for name, value in wanted.items():
        keys, problem = _read(name, value, actions)
        if problem:
            keymap.problems.append(problem)
        else:
            keymap.keys[name] = keys
    while clash := _clash(keymap.keys, places):
        key, name, other = clash
        keymap.problems.append(
            f"{name} cannot be on {key}: {other} is there; give {other} another key"
        )
        del keymap.keys[name]
    return keymap


def load_all() -> None:
    """Load every module with bindings, so that every name is known."""
    for package in _PACKAGES:
        home = importlib.import_module(f"agentvault_tui.console.{package}")
        for module in pkgutil.iter_modules(home.__path__):
            importlib.import_module(f"{home.__name__}.{module.name}")


def _read(name: str, value: object, actions: set[str]) -> tuple[tuple[str, ...], str]:
    """Return the keys given to an action, or why it cannot have them."""
    shown = visible(name, 40)
    if name not in actions:
        near = difflib.get_close_matches(name, actions, n=1)
        hint = f", did you mean {near[0]}" if near else ""
        return (), f"there is no action {shown}{hint}"
    if name in _STAYS:
        return (), f"{shown} stays as it is: {_STAYS[name]}"
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(p, str) for p in parts):
        return (), f'{shown} needs its keys as text: {shown} = "x, ctrl+x"'
    typed = [part.strip() for part in parts]
    if not typed or not all(typed):
        return (), f"{shown} needs at least one key, and a comma is written comma"
    for key in typed:
        if problem := _unfit(name, key):
            return (), f"{shown} cannot be on {visible(key, 20)}: {problem}"
    keys = BindingsMap([Binding(",".join(typed), "none")]).key_to_bindings
    return tuple(dict.fromkeys((*keys, *_ALWAYS.get(name, ())))), ""


def _unfit(name: str, key: str) -> str:
    """Say why a key may not be bound to the action; empty if it may."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    printable = len(last) == 1 and last.isprintable() and not last.isspace()
    if not (printable or last in _KEY_NAMES) or not _MODIFIERS.issuperset(modifiers):
        near = difflib.get_close_matches(last, _KEY_NAMES, n=1)
        return f"no such key{f', did you mean {near[0]}' if near else ''}"
    if key == _CONFIRM and name != "copy":
        return "y confirms where something is destroyed, so only copying may be on it"
    if key == "ctrl+q" and name != "quit":
        return "ctrl+q always quits"
    if key == "ctrl+p" and name != "palette":
        return "ctrl+p always opens the palette"
    if key == "escape" and name not in {"out", "leave"}:
        return "Esc always goes one step out"
    controlled = "ctrl" in modifiers and last.lower() in _CONTROLLED
    if name in _DECIDES and (last.lower() in _CARELESS or controlled):
        return "nothing is decided by a key that is pressed without looking"
    return ""


def _clash(
    keys: Mapping[str, tuple[str, ...]], places: list[Place]
) -> tuple[str, str, str] | None:
    """Return a key with two meanings: who loses it, and who has it."""
    for place in places:
        meanings: dict[str, str] = {}
        shipped = [(k, name) for kind in place for k, name in keys_of(kind).items()]
        own = {name for _, name in shipped}
        for key, name in shipped:
            if name and name not in keys:
                meanings.setdefault(key, name)
        for name in (name for name in keys if name in own):
            for key in keys[name]:
                other = meanings.setdefault(key, name)
                if other != name and key not in _ALWAYS.get(name, ()):
                    return key, name, other
    return None


_KEY_NAMES: Final = (
    _NAMED
    | {
        next(iter(BindingsMap([Binding(character, "none")]).key_to_bindings))
        for character in string.punctuation
        if character != ","
    }
    | {"comma"}
)
