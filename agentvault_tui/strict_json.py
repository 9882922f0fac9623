"""Parses JSON strictly (RFC 8259): no duplicate keys, odd numbers or deep nesting."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

_MAX_DEPTH: Final = 32
MOST_MEMBERS: Final = 500_000
"""Commas and colons, those in strings too."""
_LONE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""Half of a pair, escaped in JSON or as it is; whole pairs too."""
_PIECE: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_OPEN: Final = frozenset("[{")
_CLOSE: Final = frozenset("]}")


class AmbiguousError(ValueError):
    """JSON that programs read as different documents, such as a duplicate key."""


class TooLargeError(ValueError):
    """JSON with more members than it may have."""


def loads(
    text: bytes | str,
    *,
    mend: bool = False,
    prune: bool = False,
    members: int = MOST_MEMBERS,
) -> object:
    """Read JSON, refusing texts that two readers could take for different things.

    Duplicate keys (section 4), numbers that JSON or a double does not have (section 6),
    other encodings than UTF-8 (section 8.1), a lone surrogate (section 8.2), which no
    file, URL or record takes, nesting at which a recursive reader could run out of
    stack, and more members than can be read in a fair time.

    Args:
        text: the sent text.
        mend: have a lone surrogate become ``?`` instead of refusing it.
        prune: let too deeply nested parts become ``null`` instead of refusing them. For
            values that are only read: with parts left out, they must not be written
            back.
        members: commas and colons that it may have, those in strings too.

    Raises:
        ValueError: it is not such JSON.
    """
    halves = True
    if isinstance(text, bytes):
        text = text.decode()  # which has no half of a pair but an escaped one
        halves = "\\u" in text
    if prune:
        text = _without_depths(text)
    value = decode(text, members=members)
    if halves and _LONE.search(text):
        how = "replace" if mend else "strict"
        plain = json.dumps(value, ensure_ascii=False).encode(errors=how)
        value = decode(plain.decode())
    return value


def decode(
    text: str,
    decoder: json.JSONDecoder | None = None,
    depth: int = _MAX_DEPTH,
    members: int = MOST_MEMBERS,
) -> object:
    """Decode JSON with bounded members and depth.

    Args:
        text: the JSON.
        decoder: with `unique_pairs` and `refuse_constant`, if not the one of `loads`.
        depth: levels that it may nest.
        members: commas and colons that it may have, those in strings too.

    Raises:
        TooLargeError: it has too many members.
        ValueError: it has too many levels, or is not JSON.
    """
    if len(text) > members and text.count(",") + text.count(":") > members:
        raise TooLargeError("it has too many members")
    try:
        value: object = (decoder or _DECODER).decode(text)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    # Most documents have too few brackets to nest so deep, those in texts included.
    if text.count("[") + text.count("{") > depth and _nests_too_deep(value, depth):
        raise ValueError("it nests too deep")
    return value


def _without_depths(text: str) -> str:
    """Put ``null`` in the place of too deeply nested parts of JSON; the rest stays."""
    characters: list[str] = []
    depth = end = 0
    for piece in _PIECE.finditer(text):
        if piece[0] in _OPEN:
            depth += 1
            if depth == _MAX_DEPTH + 1:
                characters.append(text[end : piece.start()] + "null")
        elif piece[0] in _CLOSE:
            if depth == _MAX_DEPTH + 1:
                end = piece.end()
            depth -= 1
    return "".join(characters) + text[end:] if depth == 0 else text


def unique_pairs(items: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object (RFC 8259 section 4).

    Raises:
        AmbiguousError: a key is there twice.
    """
    members = dict(items)
    if len(members) != len(items):
        raise AmbiguousError("a key stands there twice")
    return members


def refuse_constant(name: str) -> object:
    """Refuse ``NaN`` and ``Infinity`` (RFC 8259 section 6).

    Raises:
        AmbiguousError: always.
    """
    raise AmbiguousError(f"{name} is not JSON")


def _number(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number is too large")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=unique_pairs,
    parse_constant=refuse_constant,
    parse_float=_number,
)


def _nests_too_deep(value: Any, depth: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        members = (one.values() if isinstance(one, dict) else one for one in level)
        level = [
            inner
            for some in members
            for inner in some
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
