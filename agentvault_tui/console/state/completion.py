"""What a half-typed filter may become: keys, values, and saved filters by ``@``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agentvault_tui.console.state.terms import KEYS, Piece, pieces

MOST: Final = 12
"""Completions offered at once; more are found by typing on."""
_SAVED: Final = "@"
_BEGIN: Final = frozenset({"outcome", "risk", "since", "status", "type", "until"})
"""Keys whose values are known by how they begin."""


class Vocabulary(Protocol):
    """What is known to stand behind a key."""

    def values(self, key: str) -> Iterable[str]:
        """Return the values that are known, the likeliest first."""
        ...

    def saved(self) -> Mapping[str, str]:
        """Return the saved filters by their names."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """One way to go on."""

    text: str
    """The whole line after it is taken."""
    word: str
    """What it adds, as it is listed."""

    def extends(self, typed: str) -> bool:
        """Tell whether it only adds to what is typed, so that it can be its ghost."""
        more = len(self.text) > len(typed)
        return more and self.text[: len(typed)].lower() == typed.lower()


def complete(typed: str, known: Vocabulary) -> list[Completion]:
    """Return how the last piece of *typed* may go on, the best first."""
    last = next((piece for piece in pieces(typed) if piece.end == len(typed)), None)
    if last is None or (last.quoted and last.closed):
        return []
    before = typed[: last.start]
    minus = "-" * last.negated
    if last.key and last.key.lower() not in KEYS:
        return _meant(typed, last, known)
    if last.key:
        return _values(typed, last, known)
    if last.quoted:
        return []
    if last.value.startswith(_SAVED) and not last.negated:
        return _saved(before, last.value[len(_SAVED) :], known)
    start = last.value.lower()
    keys = [key for key in KEYS if start and key.startswith(start)]
    return [Completion(f"{before}{minus}{key}:", f"{key}:") for key in keys]


def _meant(typed: str, piece: Piece, known: Vocabulary) -> list[Completion]:
    """Return keys like one that is none, and scopes and resources that begin so."""
    before = typed[: piece.start] + "-" * piece.negated
    text = typed[piece.value_at :]
    near = difflib.get_close_matches(piece.key.lower(), KEYS, n=3, cutoff=0.5)
    found = [Completion(f"{before}{key}:{text}", f"{key}:") for key in near]
    start = f"{piece.key}:{piece.value}".lower()
    for key in ("scope", "resource"):
        for value in known.values(key):
            written = _written(value, quoted=False)
            if written and value.lower().startswith(start):
                found.append(Completion(f"{before}{key}:{written}", value))
    return found[:MOST]


def _values(typed: str, piece: Piece, known: Vocabulary) -> list[Completion]:
    """Return known values: first those that begin as typed, then those that hold it."""
    start, before = piece.value.lower(), typed[: piece.value_at]
    begins: dict[str, str] = {}
    holds: dict[str, str] = {}
    for value in known.values(piece.key.lower()):
        written = _written(value, quoted=piece.quoted)
        folded = value.lower()
        if not written or folded == start or start not in folded:
            continue
        if folded.startswith(start):
            begins[written] = value
        elif piece.key.lower() not in _BEGIN:
            holds[written] = value
        if len(begins) >= MOST:
            break
    found = (*begins.items(), *holds.items())
    return [Completion(before + written, value) for written, value in found[:MOST]]


def _saved(before: str, start: str, known: Vocabulary) -> list[Completion]:
    found = [
        Completion(before + text, f"{_SAVED}{name}")
        for name, text in known.saved().items()
        if start.lower() in name.lower()
    ]
    return found[:MOST]


def _written(value: str, *, quoted: bool) -> str:
    """Write a value so that it reads back, or nothing if it cannot be."""
    if '"' in value:
        return ""
    bare = not quoted and value and not value.startswith("-")
    return value if bare and not any(c.isspace() for c in value) else f'"{value}"'
