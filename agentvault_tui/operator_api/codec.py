"""Shapes to JSON and back."""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()


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
    return _in_ascii(text.decode()).encode()


def _mended(value: object) -> object:
    """Replace lone surrogates by question marks; bytes in *value* are JSON already."""
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


def _in_ascii(text: str) -> str:
    """Escape non-ASCII characters in a JSON text, without a call for each character.

    An agent chooses how much of it there is. Encoded as one JSON string, the text has
    its own quotes and backslashes escaped as well; that is taken back. It holds no NUL.
    """
    escaped = encode_basestring_ascii(text)[1:-1]
    return escaped.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")
