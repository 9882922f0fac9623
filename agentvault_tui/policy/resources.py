"""Resource names: the one canonical spelling, and when two spellings read alike.

A rule compares resources character by character.
A resource server may not: it may ignore case, decode ``%2e``, or collapse ``//``.
So each request's resource is brought into one canonical form where the request is
parsed, what has none is unclear, and a spelling that only *reads* like one that a rule
names is never taken for another resource.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote

from agentvault_tui.lookalikes import skeleton

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)")
_HOST: Final = re.compile(
    r"(\[[0-9a-f:.]+\]|[a-z0-9_~-]+(?:\.[a-z0-9_~-]+)*|)(?::([1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS: Final = frozenset({("http", "80"), ("https", "443")})
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_SETTLED: Final = re.compile(r"[a-z][a-z0-9+.-]*:[A-Za-z0-9_~-]+")
"""The plainest resources, such as ``stripe:acct_42``, are canonical as they stand."""
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DOTS: Final = re.compile(r"[. ]+(?:;.*)?")
"""A dot segment, as some servers read it: without parameters, space and more dots."""
_MOST_DECODING: Final = 4


def canonical(text: str) -> str | None:
    """Return the canonical form of a resource, or nothing when it has none.

    Scheme and host are in lower case, escapes of characters that need none are
    decoded (RFC 3986 sections 6.2.2.1 and 6.2.2.2, RFC 3987 section 5.3.2.3), and
    text is in Unicode's composed form (NFC). Nothing else is changed: case in a path
    may tell two resources apart.

    Args:
        text: the resource as the request names it.

    Returns:
        The form, or nothing for what programs are known to read in several ways:
        control, invisible and unassigned characters, space other than single blanks
        inside, backslashes, a ``%``, empty, ``.`` and ``..`` segments; in a URL also
        a fragment (RFC 8707 section 2), an empty query, an account, a port that goes
        without saying (RFC 3986 section 6.2.3), and a host that has other spellings.
    """
    if _SETTLED.fullmatch(text):
        return text
    try:
        text = unicodedata.normalize("NFC", _ESCAPES.sub(_decoded, text))
    except ValueError:
        return None
    if scheme := _SCHEME.match(text):
        text = scheme.group().lower() + text[scheme.end() :]
    start = 0
    if found := _AUTHORITY.match(text):
        start, authority = found.end(), found.group(2).lower()
        text = text[: found.start(2)] + authority + text[start:]
        if "#" in text or text.endswith("?"):
            return None
        if not _is_plain_authority(found.group(1), authority):
            return None
    return text if _is_plain(text, start) else None


def canonical_resource(resource: str | None) -> str | None:
    """Return the canonical form of a resource; as it was sent when it has none.

    The policy holds one without a form to be unclear.
    """
    return (canonical(resource) or resource) if resource else None


def shortened(resource: str) -> str:
    """Return what a program reads of a URL that ignores its query and parameters.

    A URL without a path is that of its root (RFC 3986 section 6.2.3).
    """
    if not (found := _AUTHORITY.match(resource)):
        return resource
    path = re.sub(r";[^/]*", "", resource[found.end() :].partition("?")[0])
    return found.group() + (path or "/")


@lru_cache(maxsize=256)
def reads_like(text: str) -> str:
    """Return what is left of a spelling when all that programs may ignore is folded.

    Two resources that are the same here may be the same to a resource server. Only
    ever compared, never decided by alone: it makes an answer stricter.
    """
    for _ in range(_MOST_DECODING):
        decoded = unquote(text, errors="replace")
        if decoded == text:
            break
        text = decoded
    folded = unicodedata.normalize("NFKC", skeleton(text)[0]).casefold()
    kept = (c for c in folded if unicodedata.category(c) not in _HIDDEN)
    text = "".join("".join(kept).split()).replace("\\", "/")
    text = re.sub(r"/+", "/", text)
    return _without_dots(text).replace(":/", ":").strip("/")


def _without_dots(text: str) -> str:
    """Resolve ``.`` and ``..`` segments, as RFC 3986 section 5.2.4 does."""
    if "." not in text:
        return text
    kept: list[tuple[str, str]] = []
    parts = re.split("([/:])", text)
    for segment, mark in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if segment == "..":
            if kept and kept[-1][1] == "/":
                kept.pop()
        elif segment != ".":
            kept.append((segment, mark))
    return "".join(segment + mark for segment, mark in kept)


def _decoded(found: re.Match[str]) -> str:
    """Decode a run of percent-escapes as UTF-8; reserved ASCII has no other form.

    Raises:
        ValueError: it is no UTF-8, or holds a character that must stay escaped.
    """
    text = bytes.fromhex(found.group().replace("%", "")).decode()
    if any(c.isascii() and not (c.isalnum() or c in "-._~") for c in text):
        raise ValueError("a reserved character is escaped")
    return text


def _is_plain_authority(scheme: str, authority: str) -> bool:
    """Tell whether host and port of a URL, in lower case, have no other spelling.

    Names in other scripts are written as in DNS (``xn--``), addresses as
    RFC 5952 and dotted decimals have them.
    """
    found = _HOST.fullmatch(authority)
    if found is None or (scheme, found.group(2)) in _DEFAULT_PORTS:
        return False
    host = found.group(1)
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1])) == host[1:-1]
        return not _NUMERIC.fullmatch(host) or str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_plain(text: str, path: int) -> bool:
    """Tell whether *text*, whose path starts there, can be read in one way only."""
    if text != text.strip() or any(odd in text for odd in ("  ", "\\", "%")):
        return False
    for character in text if not (text.isascii() and text.isprintable()) else "":
        kind = unicodedata.category(character)
        if kind in _HIDDEN or (kind == "Zs" and character != " "):
            return False
    segments = re.split(r"[/:]", text[path:].partition("?")[0])
    return not any(map(_DOTS.fullmatch, segments)) and "//" not in text[path:]
