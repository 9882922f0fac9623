"""The json module's own encoder, made once instead of once a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final

__all__ = [
    "compact_encoder",
    "encode_basestring",
    "to_json",
]


def compact_encoder(
    quote: Callable[[str], str], *, sort_keys: bool = False
) -> Callable[[Any], str]:
    """Return what JSONEncoder(separators=(",", ":")).encode does, in half the time.

    The module builds its C encoder anew for every call; where there is none (another
    Python), its ordinary way is taken.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(
            ensure_ascii=quote is encode_basestring_ascii,
            check_circular=False,
            separators=(",", ":"),
            sort_keys=sort_keys,
        ).encode
    run = make(None, _refuse, quote, None, ":", ",", sort_keys, False, True)

    def encode(value: Any) -> str:
        return "".join(run(value, 0))

    return encode


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


to_json: Final = compact_encoder(encode_basestring_ascii)
"""Return a value as compact JSON in ASCII.

Escapes keep lone surrogates and NUL from an agent's JSON readable, and no log or pipe
can be hurt. A value an agent sent takes its text's length in memory this way; as
Python objects it can take twelve times as much.
"""
