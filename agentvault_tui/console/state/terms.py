"""The terms of a filter as they are typed: read, written, and what is wrong with them.

A filter is terms joined by blanks: ``key:value``, ``word``, ``"several words"``, each
with ``-`` before it for the opposite.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agentvault_tui.console.state.moments import FORMS, read_moment
from agentvault_tui.console.state.records import OUTCOMES, RISKS
from agentvault_tui.text import visible

KEYS: Final = (
    "action",
    "agent",
    "outcome",
    "owner",
    "resource",
    "risk",
    "scope",
    "since",
    "status",
    "type",
    "until",
)
STATUSES: Final = ("active", "revoked", "waiting")
# The Kelvin sign is a k in lower case, and would else make a key of what was none.
_TERM: Final = re.compile(r'(-)?(?:([A-Za-z\u212a]+):)?(?:"([^"]*)("?)|(\S*))')
_KEYED: Final = re.compile(r"[A-Za-z\u212a]+:")
_BLANK_OR_DASH: Final = re.compile(r"\s|^-")
_FIXED: Final = {"outcome": OUTCOMES, "risk": RISKS, "status": STATUSES}
_ANY_DAY: Final = datetime(2026, 11, 24, tzinfo=UTC)
_NEAR: Final = 0.75
"""How alike two keys are before one is taken for a slip: `event` is no `agent`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that must hold, or with `negated` must not."""

    key: str
    """One of `KEYS`; empty for a word that is looked for everywhere."""
    value: str
    """In lower case."""
    negated: bool = False
    at: int = field(default=0, compare=False)
    """Where it starts in what was typed."""

    def __str__(self) -> str:
        """Write it as it would be typed."""
        value = self.value
        misread = not self.key and _KEYED.match(value)
        # A value that holds a quote was typed without any, and reads back so.
        if '"' not in value and (misread or _BLANK_OR_DASH.search(value)):
            value = f'"{value}"'
        return f"{'-' * self.negated}{self.key}{':' * bool(self.key)}{value}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of what was typed that is, or is becoming, a term."""

    start: int
    end: int
    negated: bool
    key: str
    """As typed, without the colon; any word may stand there."""
    value: str
    """As typed, without quotes."""
    quoted: bool
    closed: bool
    """Whether its quote is closed; true when it has none."""
    value_at: int


def pieces(text: str) -> Iterator[Piece]:
    """Cut *text* into pieces; whatever it is, nothing of it is refused."""
    for match in _TERM.finditer(text):
        if match.end() == match.start():
            continue
        minus, key, quoted, closing, plain = match.groups()
        yield Piece(
            match.start(),
            match.end(),
            negated=minus is not None,
            key=key or "",
            value=plain if quoted is None else quoted,
            quoted=quoted is not None,
            closed=quoted is None or bool(closing),
            value_at=match.start(5) if quoted is None else match.start(3) - 1,
        )


def read_terms(text: str, texts: Collection[str] = ()) -> tuple[tuple[Term, ...], str]:
    """Read what was typed, and say what of it was not understood, and where.

    Half a word is no error: a key without a value asks for nothing yet. Nor is
    what *texts* hold before a colon, such as the ``send`` of ``send:payment``.
    """
    terms: list[Term] = []
    problem = ""
    for piece in pieces(text):
        term = _term(piece)
        if piece.key.lower() not in texts:
            problem = problem or _problem(piece, last=piece.end == len(text))
        if term is not None:
            terms.append(term)
    return tuple(terms), problem


def _term(piece: Piece) -> Term | None:
    if not piece.value:
        return None
    key, value = piece.key.lower(), piece.value.lower()
    if key not in KEYS:
        key, value = "", f"{key}:{value}" if key else value
    return Term(key, value, piece.negated, piece.start)


def _problem(piece: Piece, *, last: bool) -> str:
    """Say what is wrong with a piece, in our own words, beginning with its place."""
    key, value = piece.key.lower(), piece.value.lower()
    what = ""
    if not key:
        return ""
    if key not in KEYS:
        near = _nearest(key)
        if not near and not value:
            return ""  # it may still become any word
        what = f"no key {visible(key, 12)}:, "
        what += f"did you mean {near}:" if near else "so it is looked for as text"
    elif not value:
        what = "" if last else f"{key}: has no value; write it right after the colon"
    elif key in {"since", "until"}:
        known = read_moment(value, _ANY_DAY) is not None
        what = "" if known else f"{key} takes {FORMS}"
    elif key in _FIXED and not any(word.startswith(value) for word in _FIXED[key]):
        what = f"{key} is {_either(_FIXED[key])}, never {visible(value, 12)}"
    return f"at {piece.start + 1}: {what}" if what else ""


def _nearest(key: str) -> str:
    # Loaded when someone mistypes: the first frame does without it.
    import difflib  # noqa: PLC0415

    return next(iter(difflib.get_close_matches(key, KEYS, n=1, cutoff=_NEAR)), "")


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
