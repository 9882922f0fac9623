"""Shapes to JSON and back."""

from __future__ import annotations

import json
import re
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
_BEYOND_ASCII: Final = re.compile("[^\x00-\x7f]")


def encode(value: object) -> bytes:
    """Write *value* as JSON, in ASCII alone, so that no log or pipe can be hurt.

    Half a surrogate pair, which a user's name may hold, becomes a question mark.
    """
    try:
        text = _ENCODER.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=bytes)
        text = _ENCODER.encode(_mended(plain))
    if text.isascii():
        return text
    return _BEYOND_ASCII.sub(_escape, text.decode()).encode()


def _mended(value: object) -> object:
    """Return *value* with question marks for halves; its bytes are JSON already."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case bytes():
            return msgspec.Raw(value)
        case dict():
            return {_mended(name): _mended(one) for name, one in value.items()}
        case list() | tuple():
            return [_mended(one) for one in value]
    return value


def decode(text: bytes | str, kind: type[T]) -> T:
    """Read JSON as *kind*; members it does not know are passed over.

    Raises:
        ValueError: it is not JSON, or not of that kind (`msgspec.ValidationError`).
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
