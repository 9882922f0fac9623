"""Read and encode JSON documents (RFC 8259), with the order of members and all digits.

A document that is encoded again means the same to every reader; ``1.50`` does not
become ``1.5``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec

from agentvault_tui import strict_json
from agentvault_tui.strict_json import AmbiguousError

_DEPTH: Final = 64
_EXACT: Final = 2**53
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


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


def read_document(text: bytes, *, exact: bool = False) -> object:
    """Read a JSON document, as strictly as `strict_json.loads`.

    The order of members and the digits of numbers are preserved: a number that is not a
    plain integer is a `Number`.

    Args:
        text: UTF-8 without a byte order mark, nested 64 levels deep at most.
        exact: whether a number that some programs round is refused: see `is_exact`.

    Returns:
        the document.

    Raises:
        AmbiguousError: two readers may read different documents.
        ValueError: it is not JSON, or has too many members or levels.
    """
    if text.startswith(_BYTE_ORDER_MARK):
        raise AmbiguousError("it begins with a byte order mark")
    decoder = _EXACT_DECODER if exact else _DECODER
    value = strict_json.decode(text.decode(), decoder, _DEPTH)
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
    return _ENCODER.encode(value)


def is_exact(value: object) -> bool:
    """Check whether all programs read a value of a document as the same number.

    Programs that have doubles alone, such as those in JavaScript, round an integer
    beyond ±(2^53-1), and another number of that size if it has more digits than a
    double (RFC 8259 section 6).
    """
    if isinstance(value, int):
        return abs(value) < _EXACT
    if not isinstance(value, float) or abs(value) < _EXACT:
        return True
    return Decimal(repr(value)) == Decimal(float.__repr__(value))


def plain_numbers(value: Any) -> Any:
    """Return a document with the numbers that policy reads.

    A number that JSON writes in another spelling than its sender, such as ``1.50``,
    becomes its digits as text: no face shows it as ``1.5``.
    """
    if isinstance(value, Number):
        number = float(value)
        return number if repr(number) == value.text else value.text
    if isinstance(value, dict):
        return {name: plain_numbers(inner) for name, inner in value.items()}
    return [plain_numbers(one) for one in value] if isinstance(value, list) else value


def plain_name(value: object) -> str | None:
    """Return a text or a whole number as the name of a thing.

    Args:
        value: a member of a document.

    Returns:
        the text or digits; None for anything else, and for a number that programs may
        read in several ways: a `Number`, or one beyond the range of a double (RFC 8259
        section 6).
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < _EXACT else None
    return value if isinstance(value, str) else None


def _integer(digits: str) -> int | Number:
    return Number.parse(digits) if digits == "-0" else int(digits)


def _exact(digits: str, parse: Callable[[str], int | Number]) -> int | Number:
    if is_exact(value := parse(digits)):
        return value
    raise AmbiguousError("it has a number beyond 2^53-1, which some programs round")


def _number_text(value: object) -> msgspec.Raw:
    if isinstance(value, Number):
        return msgspec.Raw(value.text.encode())
    raise TypeError(type(value).__name__)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=strict_json.unique_pairs,
    parse_constant=strict_json.refuse_constant,
    parse_float=Number.parse,
    parse_int=_integer,
)
_EXACT_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=strict_json.unique_pairs,
    parse_constant=strict_json.refuse_constant,
    parse_float=partial(_exact, parse=Number.parse),
    parse_int=partial(_exact, parse=_integer),
)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=_number_text)


def is_larger(value: Any, most: int) -> bool:
    """Check whether JSON surely has more characters, without writing all of it."""
    waiting, size = [value], 0
    while waiting:
        one = waiting.pop()
        size += 1 + (len(one) if isinstance(one, str | list | dict) else 0)
        if size > most + 1:
            return True
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
    return False
