"""Parse a request target once: policy and the upstream see the same object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus, unquote_to_bytes

from agentvault_tui.errors import BadPathError
from agentvault_tui.policy.facts import plain_name

_VISIBLE: Final = re.compile(rb"[\x21-\x7e]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN_MARKS: Final = re.compile(r"%(?:2e|2f|5c|00)", re.IGNORECASE)
"""Escapes that one program resolves to a dot segment, a separator or an end of text,
and another one does not."""


@dataclass(frozen=True, slots=True)
class Target:
    """The path and query of one request (RFC 9112 section 3.2.1)."""

    raw_path: str
    """As it was received, ASCII, with its first slash: what is sent upstream."""
    raw_query: str | None
    """As it was received, without the ``?``; None where there was none."""
    segments: tuple[str, ...]
    """The path's segments, decoded once; the last is empty after a final slash."""

    @property
    def raw(self) -> str:
        """Return path and query, byte for byte as received."""
        query = "" if self.raw_query is None else f"?{self.raw_query}"
        return self.raw_path + query

    @property
    def path(self) -> str:
        """Return the decoded path with its first slash, without the query."""
        return "/" + "/".join(self.segments)

    def query_values(self, name: str) -> tuple[list[str], bool]:
        """Return the values of the query parameter *name*.

        Returns:
            the decoded values, and whether another parameter's name reads alike, so
            that an upstream may take its value instead.
        """
        values, alike, plain = [], False, plain_name(name.partition("[")[0])
        for piece in (self.raw_query or "").split("&"):
            raw_name, _, value = piece.partition("=")
            decoded = unquote_plus(raw_name)
            if decoded == name:
                values.append(unquote_plus(value))
            elif raw_name and plain_name(decoded.partition("[")[0]) == plain:
                alike = True
            for hidden in piece.split(";")[1:]:  # some servers separate by it too
                decoded = unquote_plus(hidden.partition("=")[0]).partition("[")[0]
                alike = alike or plain_name(decoded) == plain
        return values, alike


def parse_target(raw: bytes) -> Target:
    r"""Parse path and query of a request; refuse what programs read in several ways.

    Args:
        raw: the origin-form of the request target, from the path's first slash on.

    Returns:
        the target; its raw parts are *raw*, byte for byte.

    Raises:
        BadPathError: the path has dot segments, empty segments, ``;``, ``\\``, or an
            escaped dot, separator or NUL; or path or query hold control bytes, bytes
            outside ASCII, ``#``, a malformed escape or one that is not UTF-8.
    """
    if not _VISIBLE.fullmatch(raw) or b"#" in raw:
        raise BadPathError("the target holds a byte that no URL has")
    path, mark, query = raw.decode("ascii").partition("?")
    if not path.startswith("/"):
        raise BadPathError("the path does not begin with a slash")
    if "//" in path or ";" in path or "\\" in path:
        raise BadPathError("the path holds //, ; or \\")
    if _BAD_ESCAPE.search(path) or _BAD_ESCAPE.search(query):
        raise BadPathError("a percent-escape is malformed")
    if _HIDDEN_MARKS.search(path):
        raise BadPathError("the path escapes a dot, a slash, a backslash or NUL")
    try:
        segments = tuple(unquote_to_bytes(one).decode() for one in path[1:].split("/"))
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise BadPathError("a percent-escape is not UTF-8") from None
    if "." in segments or ".." in segments:
        raise BadPathError("the path holds a . or .. segment")
    return Target(path, query if mark else None, segments)
