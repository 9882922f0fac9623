"""Parse a request target once into segments and pairs, and encode it by one rule.

RFC 3986 and RFC 9112 section 3.2.1. The encoded form is sent, shown and recorded; the
bytes that an agent sent are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.names import alike_fields, field_names, readings
from agentvault_tui.text import visible

LONGEST: Final = 8_192
"""Bytes of path, ``?`` and query, as they are sent."""
_MOST_PAIRS: Final = 1_000
"""As of a form's fields."""
"""Pairs of a query: each is sent as a name, ``=`` and mostly ``&``."""
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN_MARKS: Final = re.compile(r"%(?:2e|2f|5c|00)", re.IGNORECASE)
"""Escapes that one program resolves to a dot segment, a separator or an end of text,
and another one does not."""
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]*")
"""RFC 3986 section 2.3."""
_LITERAL: Final = "!$&'()*+,=:@"
"""Characters that a segment holds unescaped next to unreserved ones: RFC 3986 section
3.3 without ``;``, which some programs take for the begin of a parameter."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Target:
    """The path and query of one request, decoded."""

    segments: tuple[str, ...]
    """The segments of the path; the last is empty after a final slash."""
    query: tuple[Pair, ...] = ()
    encoded_path: str = field(init=False, repr=False, compare=False)
    """The path as it is sent."""
    encoded_query: str = field(init=False, repr=False, compare=False)
    """The query as it is sent, without the ``?``."""

    def __post_init__(self) -> None:
        """Encode both."""
        path = "/" + "/".join(_encode(one, _LITERAL) for one in self.segments)
        pairs = [f"{_encode(name)}={_encode(value)}" for name, value in self.query]
        object.__setattr__(self, "encoded_path", path)
        object.__setattr__(self, "encoded_query", "&".join(pairs))

    @property
    def path(self) -> str:
        """Return the decoded path with its first slash."""
        return "/" + "/".join(self.segments)

    @property
    def encoded(self) -> str:
        """Return path and query as they are sent."""
        query = self.encoded_query
        return f"{self.encoded_path}?{query}" if query else self.encoded_path

    def query_values(self, name: str) -> tuple[list[str], bool]:
        """Return the values of the query parameter *name*.

        Returns:
            the values, and whether another name of the query reads like it, so that a
            service may use that value instead.
        """
        if not self.query:
            return [], False
        values = [value for key, value in self.query if key == name]
        most = max((self._readings[one] for one in field_names(name)), default=0)
        return values, most > len(values)

    @cached_property
    def _readings(self) -> Counter[str]:
        return Counter(one for name, _ in self.query for one in readings(name))


def parse_target(raw: bytes, *, marks: bool = True) -> Target:
    r"""Parse path and query of a request.

    Args:
        raw: the origin-form of the request target, from the path's first slash on.
        marks: whether the path may escape ``?`` and ``#``. A proxy that decodes the
            path before it sends it on (nginx's ``$uri``, Apache's mod_rewrite before
            2.4.60) makes a query or fragment of what follows.

    Returns:
        the target.

    Raises:
        UnreadableRequestError: ``bad_path`` for dot segments, empty segments, ``;``,
            ``\\``, control bytes, bytes outside ASCII and escapes that are malformed,
            not UTF-8 or hide a dot, a separator or a control byte; ``bad_query`` for
            the same of a query where it applies; ``ambiguous_query`` for two names
            that a service may take for one; 414 ``uri_too_long``.
    """
    if len(raw) > 3 * LONGEST:  # no longer target is sent in as few as LONGEST bytes
        raise _too_long()
    raw_path, _, raw_query = raw.partition(b"?")
    target = Target(_segments(raw_path), tuple(_pairs(raw_query)))
    if not marks and ("?" in target.path or "#" in target.path):
        raise _bad_path(
            "the path escapes ? or #, which a proxy may decode; if the service reads"
            " them as a part of a name, its file may say escaped_marks = true"
        )
    if len(target.encoded) > LONGEST:
        raise _too_long()
    if pair := alike_fields(dict.fromkeys(name for name, _ in target.query)):
        raise UnreadableRequestError(
            "ambiguous_query",
            f"the query has {visible(pair[0], 60)} and {visible(pair[1], 60)}, which"
            " a service may take for one name",
        )
    return target


def decode_form_text(raw: str) -> str:
    """Decode a name or value of ``application/x-www-form-urlencoded``.

    Raises:
        ValueError: an escape is malformed, not UTF-8, or NUL.
    """
    if "%" not in raw:
        return raw.replace("+", " ")
    if _BAD_ESCAPE.search(raw):
        raise ValueError("a percent-escape is malformed")
    try:
        text = unquote_to_bytes(raw.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise ValueError("a percent-escape is not UTF-8") from None
    if "\0" in text:
        raise ValueError("it holds NUL")
    return text


def _segments(raw: bytes) -> tuple[str, ...]:
    if not _VISIBLE.fullmatch(raw) or b"#" in raw:
        raise _bad_path("the path holds a byte that no URL has")
    path = raw.decode("ascii")
    if not path.startswith("/"):
        raise _bad_path("the path does not begin with a slash")
    if "//" in path or ";" in path or "\\" in path:
        raise _bad_path("the path holds //, ; or \\")
    if "%" not in path:
        segments = tuple(path[1:].split("/"))
    else:
        if _BAD_ESCAPE.search(path):
            raise _bad_path("a percent-escape is malformed")
        if _HIDDEN_MARKS.search(path):
            raise _bad_path("the path escapes a dot, a slash, a backslash or NUL")
        try:
            segments = tuple(
                unquote_to_bytes(one).decode() for one in path[1:].split("/")
            )
        except UnicodeDecodeError:
            raise _bad_path("a percent-escape is not UTF-8") from None
        if any(unicodedata.category(one) == "Cc" for one in "".join(segments)):
            raise _bad_path("the path escapes a control character")
    if "." in segments or ".." in segments:
        raise _bad_path("the path holds a . or .. segment")
    return segments


def _encode(text: str, literal: str = "") -> str:
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe=literal)


def _pairs(raw: bytes) -> list[Pair]:
    if not _VISIBLE.fullmatch(raw) or b"#" in raw:
        raise _bad_query("the query holds a byte that no URL has")
    pieces = [piece for piece in raw.decode("ascii").split("&") if piece]
    if len(pieces) > _MOST_PAIRS:
        raise _bad_query(f"a query may have {_MOST_PAIRS} values")
    try:
        pairs = [_decoded_pair(piece) for piece in pieces]
    except ValueError as error:
        raise _bad_query(f"the query cannot be decoded: {error}") from None
    if not all(name for name, _ in pairs):
        raise _bad_query("a value of the query has no name")
    return pairs


def _decoded_pair(piece: str) -> Pair:
    if "%" in piece:
        name, _, value = piece.partition("=")
        return decode_form_text(name), decode_form_text(value)
    name, _, value = piece.replace("+", " ").partition("=")
    return name, value


def _bad_path(what: str) -> UnreadableRequestError:
    return UnreadableRequestError("bad_path", what)


def _bad_query(what: str) -> UnreadableRequestError:
    return UnreadableRequestError("bad_query", what)


def _too_long() -> UnreadableRequestError:
    text = f"path and query may have {LONGEST} bytes"
    return UnreadableRequestError("uri_too_long", text, status=414)
