"""Parses JSON strictly (RFC 8259): no duplicate keys, odd numbers or deep nesting."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

_MAX_DEPTH: Final = 32
_DOCUMENT_DEPTH: Final = 64
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MOST_MEMBERS: Final = 500_000
"""Commas and colons, those in strings too."""
_LONE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""Half of a pair, as JSON escapes it or as it stands; whole pairs too."""
_PIECE: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_OPEN: Final = frozenset("[{")
_CLOSE: Final = frozenset("]}")


class AmbiguousError(ValueError):
    """JSON that readers take for different documents, such as a key twice."""


class Number(float):
    """A number with its digits as they were sent, such as ``1.50`` or ``-0``."""

    __slots__ = ("text",)
    text: str

    @classmethod
    def parse(cls, text: str) -> Number:
        """Return the number that *text* is in JSON (RFC 8259 section 6).

        Raises:
            ValueError: no double holds it.
        """
        number = cls(text)
        if not math.isfinite(number):
            raise ValueError("a number is too large")
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def read_document(text: bytes) -> object:
    """Read a JSON document that `encode_document` writes again with the same meaning.

    It is as strict as `loads`. The order of members stays, and so do the digits of
    numbers: a number that is not a plain integer is a `Number`.

    Args:
        text: UTF-8 without a byte order mark, nested 64 levels deep at most.

    Returns:
        the document.

    Raises:
        AmbiguousError: two readers may take it for different documents.
        ValueError: it is no JSON, or more than is read.
    """
    if text.startswith(_BYTE_ORDER_MARK):
        raise AmbiguousError("it begins with a byte order mark")
    if text.count(b",") + text.count(b":") > _MOST_MEMBERS:
        raise ValueError("it has too many members")
    value = _loads(text.decode(), _DOCUMENTS, _DOCUMENT_DEPTH)
    if b"\\u" in text:
        try:  # RFC 8259 section 8.2: a lone surrogate has no encoding
            encode_document(value)
        except UnicodeEncodeError:
            raise AmbiguousError("a text holds a lone surrogate") from None
    return value


def encode_document(value: object) -> bytes:
    """Encode a document as compact JSON in UTF-8, with each `Number`'s own digits.

    Raises:
        ValueError: a text holds a lone surrogate.
    """
    return _DOCUMENT_ENCODER.encode(value)


def _number_text(value: object) -> msgspec.Raw:
    if isinstance(value, Number):
        return msgspec.Raw(value.text.encode())
    raise TypeError(type(value).__name__)


_DOCUMENT_ENCODER: Final = msgspec.json.Encoder(enc_hook=_number_text)


def loads(text: bytes | str, *, mend: bool = False, prune: bool = False) -> object:
    """Read JSON, refusing what two readers could take for different things.

    Duplicate keys (section 4), numbers JSON or a double does not have (section 6),
    other encodings than UTF-8 (section 8.1), a lone surrogate (section 8.2), which no
    file, URL or record takes, and nesting that whoever walks it level by level could
    run out of stack at, and more members than can be read in a fair time.

    Args:
        text: what was sent.
        mend: have a lone surrogate become ``?`` instead of refusing it.
        prune: have what nests too deep become ``null`` instead of refusing it. For
            what is only looked at: what was left out must not be written back.

    Raises:
        ValueError: it is not such JSON.
    """
    halves = True
    if isinstance(text, bytes):
        text = text.decode()  # which has no half of a pair but an escaped one
        halves = "\\u" in text
    if len(text) > _MOST_MEMBERS and text.count(",") + text.count(":") > _MOST_MEMBERS:
        raise ValueError("it has too many members")
    if prune:
        text = _without_depths(text)
    value = _loads(text)
    if halves and _LONE.search(text):
        how = "replace" if mend else "strict"
        plain = json.dumps(value, ensure_ascii=False).encode(errors=how)
        value = _loads(plain.decode())
    return value


def _loads(
    text: str, decoder: json.JSONDecoder | None = None, depth: int = _MAX_DEPTH
) -> object:
    try:
        value: object = (decoder or _DECODER).decode(text)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    if isinstance(value, dict | list) and _nests_too_deep(value, depth):
        raise ValueError("it nests too deep")
    return value


def _without_depths(text: str) -> str:
    """Put ``null`` in the place of what nests too deep in JSON; the rest stays."""
    kept: list[str] = []
    depth = end = 0
    for piece in _PIECE.finditer(text):
        if piece[0] in _OPEN:
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(text[end : piece.start()] + "null")
        elif piece[0] in _CLOSE:
            if depth == _MAX_DEPTH + 1:
                end = piece.end()
            depth -= 1
    return "".join(kept) + text[end:] if depth == 0 else text


def _pairs(items: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(items)
    if len(found) != len(items):
        raise AmbiguousError("a key stands there twice")
    return found


def _constant(name: str) -> object:
    raise AmbiguousError(f"{name} is not JSON")


def _number(digits: str) -> float:
    if not math.isfinite(found := float(digits)):
        raise ValueError("a number is too large")
    return found


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_number
)


def _integer(digits: str) -> int | Number:
    return Number.parse(digits) if digits == "-0" else int(digits)


_DOCUMENTS: Final = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_constant=_constant,
    parse_float=Number.parse,
    parse_int=_integer,
)


def _nests_too_deep(value: Any, depth: int) -> bool:
    level = [value]
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
