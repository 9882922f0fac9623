"""Encodes JSON in ASCII, for state, replies and event details."""

from __future__ import annotations

import json
from typing import Final

import msgspec

_UTF8: Final = msgspec.json.Encoder()
_ESCAPING: Final = json.JSONEncoder(check_circular=False, separators=(",", ":"))


def to_json(value: object) -> str:
    """Return a value as compact JSON in ASCII.

    Escapes keep lone surrogates and NUL from an agent's JSON readable, and no log or
    pipe can be hurt. A value an agent sent takes its text's length in memory this way;
    as Python objects it can take twelve times as much.
    """
    try:
        text = _UTF8.encode(value).decode("ascii")
    except UnicodeError:
        text = "\x7f"
    return text if "\x7f" not in text else _ESCAPING.encode(msgspec.to_builtins(value))
