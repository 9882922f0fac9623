"""JSON documents that are decided and encoded again: order and digits stay.

RFC 8259. A document that is encoded again means the same to every reader, and ``1.50``
is not ``1.5`` on any face.
"""

from __future__ import annotations

import json
import math
from typing import Final

import msgspec

from agentvault_tui import strict_json
from agentvault_tui.strict_json import AmbiguousError

_DEPTH: Final = 64
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


def read_document(text: bytes) -> object:
    """Read a JSON document that `encode_document` writes again with the same meaning.

    It is as strict as `strict_json.loads`. The order of members stays, and so do the
    digits of numbers: a number that is not a plain integer is a `Number`.

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
    value = strict_json.decode(text.decode(), _DECODER, _DEPTH)
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


def _integer(digits: str) -> int | Number:
    return Number.parse(digits) if digits == "-0" else int(digits)


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
_ENCODER: Final = msgspec.json.Encoder(enc_hook=_number_text)
