"""Encodes JSON in ASCII, for state, replies and event details; and base64url."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

_UTF8: Final = msgspec.json.Encoder()
_ESCAPING: Final = json.JSONEncoder(check_circular=False, separators=(",", ":"))


def to_json(value: object) -> str:
    """Return a value as compact JSON in ASCII.

    Escapes make lone surrogates and NUL from an agent's JSON readable, and no log or
    pipe can be hurt. A value an agent sent takes its text's length in memory this way;
    as Python objects it can take twelve times as much.
    """
    try:
        text = _UTF8.encode(value).decode("ascii")
    except UnicodeError:
        text = "\x7f"
    return text if "\x7f" not in text else _ESCAPING.encode(msgspec.to_builtins(value))


def to_base64url(raw: bytes) -> str:
    """Return *raw* in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode base64url, with or without its padding.

    Characters outside the alphabet are passed over: if a value may have only one
    spelling, compare the result of `to_base64url`.

    Raises:
        ValueError: it is cut off, or not ASCII.
    """
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
