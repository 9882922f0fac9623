"""Completes a filter: keys, known values, and saved filters after ``@``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.presenters.filters import (
    ANSWERS,
    KEYS,
    STATUSES,
    TYPES,
    Filter,
    Piece,
    pieces,
)
from agentvault_tui.presenters.records import RISKS

_SPANS: Final = ("10m", "1h", "1d", "7d")
_FIXED: Final[Mapping[str, Iterable[str]]] = {
    "outcome": ANSWERS,
    "risk": tuple(reversed(RISKS)),
    "status": STATUSES,
    "type": sorted(TYPES),
    "since": _SPANS,
    "until": _SPANS,
}
"""Fixed values, matched by prefix only."""


def read_filter(text: str, saved: SavedFilters, mirror: Mirror) -> Filter:
    """Read a filter, or by ``@name`` one that was saved."""
    named = saved.all() if text.startswith("@") else {}
    return Filter.parse(named.get(text[1:], text), before_colons(mirror))


def before_colons(mirror: Mirror) -> set[str]:
    """Return the parts of scopes and resources before a colon."""
    names = [*mirror.intake.scopes, *(event.resource for event in mirror.events)]
    return {name.partition(":")[0].lower() for name in names if ":" in name}


class Known:
    """The values that completion offers, looked up when someone types."""

    def __init__(self, mirror: Mirror, saved: SavedFilters) -> None:
        self._mirror = mirror
        self.saved = saved

    def values(self, key: str) -> Iterable[str]:
        """Return the known values of a key, sorted."""
        agents = self._mirror.agents.values()
        match key:
            case "agent":
                return sorted({row.name for row in agents})
            case "owner":
                return sorted({row.owner for row in agents if row.owner})
            case "scope" | "action":
                granted = {
                    scope.name
                    for row in agents
                    for scope in self._mirror.intake.grants(row)
                }
                return sorted(granted.union(self._mirror.intake.scopes))
            case "resource":
                return sorted({e.resource for e in self._mirror.events if e.resource})
        return _FIXED.get(key, ())


MOST: Final = 12
"""Completions offered at once; more are found by typing on."""
_SAVED: Final = "@"


class Completion(Struct, frozen=True):
    """One completion of a half-typed filter."""

    text: str
    """The whole line after it is taken."""
    word: str
    """The added text, as the list shows it."""

    def extends(self, typed: str) -> bool:
        """Check whether it only appends to the typed text."""
        more = len(self.text) > len(typed)
        return more and self.text[: len(typed)].lower() == typed.lower()


def complete(typed: str, names: Known) -> list[Completion]:
    """Complete the last piece of *typed*, the best completion first."""
    last = next((piece for piece in pieces(typed) if piece.end == len(typed)), None)
    if last is None or (last.quoted and last.closed):
        return []
    before = typed[: last.start]
    minus = "-" * last.negated
    if last.key and last.key.lower() not in KEYS:
        return _meant(typed, last, names)
    if last.key:
        return _values(typed, last, names)
    if last.quoted:
        return []
    if last.value.startswith(_SAVED) and not last.negated:
        return _saved(before, last.value[len(_SAVED) :], names)
    start = last.value.lower()
    keys = [key for key in KEYS if start and key.startswith(start)]
    return [Completion(f"{before}{minus}{key}:", f"{key}:") for key in keys]


def _meant(typed: str, piece: Piece, names: Known) -> list[Completion]:
    """Complete a key that is unknown: similar keys, or scopes and resources."""
    before = typed[: piece.start] + "-" * piece.negated
    text = typed[piece.value_at :]
    near = difflib.get_close_matches(piece.key.lower(), KEYS, n=3, cutoff=0.5)
    matches = [Completion(f"{before}{key}:{text}", f"{key}:") for key in near]
    start = f"{piece.key}:{piece.value}".lower()
    for key in ("scope", "resource"):
        for value in names.values(key):
            written = _written(value, quoted=False)
            if written and value.lower().startswith(start):
                matches.append(Completion(f"{before}{key}:{written}", value))
    return matches[:MOST]


def _values(typed: str, piece: Piece, names: Known) -> list[Completion]:
    """Complete a value: those that begin as typed, then those that contain it."""
    start, before = piece.value.lower(), typed[: piece.value_at]
    begins: dict[str, str] = {}
    holds: dict[str, str] = {}
    for value in names.values(piece.key.lower()):
        written = _written(value, quoted=piece.quoted)
        folded = value.lower()
        if not written or folded == start or start not in folded:
            continue
        if folded.startswith(start):
            begins[written] = value
        elif piece.key.lower() not in _FIXED:
            holds[written] = value
        if len(begins) >= MOST:
            break
    matches = (*begins.items(), *holds.items())
    return [Completion(before + written, value) for written, value in matches[:MOST]]


def _saved(before: str, start: str, names: Known) -> list[Completion]:
    matches = [
        Completion(before + text, f"{_SAVED}{name}")
        for name, text in names.saved.all().items()
        if start.lower() in name.lower()
    ]
    return matches[:MOST]


def _written(value: str, *, quoted: bool) -> str:
    """Quote a value so that it parses back; empty if it cannot be."""
    if '"' in value:
        return ""
    bare = not quoted and value and not value.startswith("-")
    return value if bare and not any(c.isspace() for c in value) else f'"{value}"'
