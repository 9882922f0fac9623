"""Canonical bytes of an event's values: RFC 8785, bounded, and never a failure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from itertools import chain
from json.encoder import encode_basestring
from typing import Any, Final

import msgspec
import rfc8785

MAX_BODY: Final = 8192
"""Bytes a body may have, next to the `whole_members` of its detail."""
WHOLE: Final = frozenset({"facts", "counted"})
"""Members of a detail that are never truncated: the input of a decision, so that it can
be made again, and its counts. Their size is bounded by their writers. They are not
searched: they repeat the event's other members."""
MAX_TARGET: Final = 8192
"""Characters of a call's path, ``?`` and query that are recorded whole."""
MAX_DEPTH: Final = 12
"""Levels of a detail that are stored."""
MAX_INT: Final = 2**53 - 1
"""RFC 8785 knows no larger integer."""
_TARGET: Final = frozenset({"path", "query"})
_MAX_DIGITS: Final = 4096
_START: Final = 1024
"""Encoded bytes stored of an oversized member."""
_TOO_DEEP: Final = "$too-deep"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LAST_OF_PLANE: Final = re.compile("[\ue000-\uffff]")
_BEYOND_PLANE: Final = re.compile("[\U00010000-\U0010ffff]")
"""UTF-16 sorts these before the characters of `_LAST_OF_PLANE`."""

quote = encode_basestring
"""A JSON string as RFC 8785 section 3.2.2.2 writes it, with the fewest escapes."""
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def encode_plain(value: object) -> str:
    """Write a value that `is_plain` passed; UnicodeEncodeError: a lone surrogate."""
    return _ENCODER.encode(value).decode()


def is_plain(value: Any) -> bool:
    """Check whether `encode_plain` writes *value* exactly as RFC 8785 does.

    True only without floats, with integers both agree on, and with keys in the same
    order (one sorts by code point, RFC 8785 by UTF-16 unit).
    """
    level: Iterable[Any] = (value,)
    for _ in range(MAX_DEPTH + 2):
        inner: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is str or one is None or kind is bool:
                continue
            if kind is int:
                if not -MAX_INT <= one <= MAX_INT:
                    return False
            elif kind is dict:
                if set(map(type, one)) - {str} or not _sorts_alike("".join(one)):
                    return False
                inner.append(one.values())
            elif kind is list or kind is tuple:
                inner.append(one)
            else:
                return False
        if not inner:
            return True
        level = chain.from_iterable(inner)
    return False


def _sorts_alike(keys: str) -> bool:
    """Check whether names of these characters sort alike by code point and UTF-16."""
    if keys.isascii():
        return True
    if _SURROGATE.search(keys):
        return False
    return not (_LAST_OF_PLANE.search(keys) and _BEYOND_PLANE.search(keys))


def canonical(value: Any) -> str:
    """Write *value*, which `coerce` made or `is_plain` passed, as RFC 8785 does."""
    return encode_plain(value) if is_plain(value) else rfc8785.dumps(value).decode()


def coerce(value: Any, depth: int = 0) -> Any:
    """Return *value* as RFC 8785 can write it, whatever it was."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, int):
        return _coerce_int(int(value))
    if isinstance(value, float):
        # Written out, a float beyond 2**53-1 can read as an integer out of bounds.
        exact = math.isfinite(value) and abs(value) <= MAX_INT
        return value if exact else str(value)
    if isinstance(value, (dict, list, tuple)):
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        if isinstance(value, dict):
            return {_key(name): coerce(item, depth + 1) for name, item in value.items()}
        return [coerce(item, depth + 1) for item in value]
    return well_formed(str(value))


def well_formed(text: str) -> str:
    """Return *text* with each lone surrogate replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", str.__str__(text))


def clip(text: str, limit: int) -> str:
    """Return *text*, or its start and digest if it takes more than *limit* bytes."""
    encoded = text.encode()
    if len(quote(text).encode()) <= limit:
        return text
    digest = hashlib.sha256(encoded).hexdigest()
    return f"{_start(text, limit)}…[{len(encoded)} bytes, sha256:{digest}]"


def whole_members(detail: dict[str, object]) -> dict[str, object]:
    """Return the members of a detail that are never cut.

    These are the members in `WHOLE`, and ``path`` and ``query`` if both together have
    at most `MAX_TARGET` characters: a call's row has the complete target.
    """
    whole = {name: detail[name] for name in WHOLE & detail.keys()}
    target = {name: detail[name] for name in detail if name in _TARGET}
    texts = [one for one in target.values() if isinstance(one, str)]
    if texts and sum(map(len, texts)) + len(texts) - 1 <= MAX_TARGET:
        whole |= target
    return whole


def shrink_detail(detail: dict[str, object], limit: int) -> dict[str, object]:
    """Cut each member over 1 kB; where that is not enough, all of them."""
    whole = whole_members(detail)
    rest = {name: member for name, member in detail.items() if name not in whole}
    shrunk = {
        name: member if len(canonical(member).encode()) <= _START else _truncate(member)
        for name, member in rest.items()
    }
    if len(canonical(shrunk).encode()) <= limit:
        return shrunk | whole
    return _truncate(rest) | whole


def text_or_start(member: object) -> str:
    """Return a text of a detail, or the start of one that was cut; else nothing."""
    match member:
        case str():
            return member
        case {"$cut": {"start": str(start)}}:
            return start
        case _:
            return ""


def _truncate(value: object) -> dict[str, object]:
    """Return the size, digest and start that stand for a value that is too long."""
    text = canonical(value)
    encoded = text.encode()
    return {
        "$cut": {
            "bytes": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "start": _start(text, _START),
        }
    }


def _start(text: str, limit: int) -> str:
    """Return the longest start of *text* that takes at most *limit* bytes quoted."""
    size = 2
    for index, character in enumerate(text):
        size += len(quote(character).encode()) - 2
        if size > limit:
            return text[:index]
    return text


def _coerce_int(value: int) -> int | str:
    if -MAX_INT <= value <= MAX_INT:
        return value
    # str() of an int refuses more than 4,300 digits; hexadecimal has no such limit.
    return str(value) if value.bit_length() < 3 * _MAX_DIGITS else hex(value)


def _key(name: object) -> str:
    return well_formed(name if isinstance(name, str) else str(name))
