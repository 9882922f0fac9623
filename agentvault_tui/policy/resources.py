"""Resource names: the one canonical spelling, and when two spellings read alike.

A rule compares resources character by character. A resource server may not: it may
ignore case, decode ``%2e``, or collapse ``//``. So each request's resource is brought
into one canonical form where the request is parsed. A resource without that form is
unclear, and a spelling that only *reads* like one that a rule names is never taken for
another resource.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote

from agentvault_tui.lookalikes import fold_text
from agentvault_tui.text import UNDRAWN

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)")
_HOST: Final = re.compile(
    r"(\[[0-9a-f:.]+\]|[a-z0-9_~-]+(?:\.[a-z0-9_~-]+)*|)(?::([1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS: Final = frozenset(
    {("http", "80"), ("https", "443"), ("ws", "80"), ("wss", "443"), ("ftp", "21")}
)
_SPECIAL: Final = re.compile(r"(?:https?|wss?|ftp):(?!//[^/?#])|file://(?!/)")
"""URLs of the schemes that WHATWG's URL standard calls special, section 4.2, without
the two slashes and the host: its parser reads any number of slashes as two, so that
``https:/a.example`` is ``https://a.example/``. ``file://localhost/`` is ``file:///``;
``file:/a`` is how hosts' maps name files, and the fold ignores the slashes."""
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_SETTLED: Final = re.compile(
    r"(?!(?:https?|wss?|ftp):)[a-z][a-z0-9+.-]*:(?!_all$)[A-Za-z0-9_~-]+"
)
"""The plainest resources, such as ``stripe:acct_42``, are canonical as they stand."""
_SEVERAL: Final = re.compile("[,*|]|(?:^|[:/])_all(?:[:/]|$)")
"""Lists and wildcards, as search engines and OpenAPI's ``style: simple`` read them."""
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DOTS: Final = re.compile(r"[. ]+(?:;.*)?")
"""A dot segment, as some servers read it: without parameters, space and more dots."""
_MOST_DECODING: Final = 4
_MOST_PASSES: Final = 8
"""Folding has settled after two or three."""
_CACHED: Final = 256
"""Characters of a cached resource; an agent could fill memory with longer ones."""
LONGEST: Final = 8_448
"""Characters of the longest path and query, with the service's name."""
_LONGEST_FOREIGN: Final = 512
"""The same if not all are ASCII: the Unicode forms of 8,400 marks or ligatures take
0.2 s, and have up to 18 times as many characters (UAX 15 section 10.4)."""
_SLASHES: Final = re.compile("/+")
_PATH_PARAMETERS: Final = re.compile(";[^/]*")
"""RFC 3986 section 3.3: a proxy may write ``%3B`` as ``;``, and the server behind it
may ignore the rest, as servlet containers do."""
_QUERIED: Final = re.compile(r"(?:https?|wss?|ftp):")
"""Beginnings of a URL whose query is a part of its fold, in which ``//`` is ``/``."""
_SEPARATORS: Final = re.compile("([/:])")
_OWN_FOLD: Final = re.compile(r"[a-z][a-z0-9+-]*:[a-z0-9_~-]+(?:/[a-z0-9_~-]+)*")
"""Resources that are their own fold, as most are, unless they have an `_ODD_NUMBER`."""
_ODD_NUMBER: Final = re.compile(
    r"(?:^|[:/])(?:-0|0[0-9xbo_]|-?[0-9]+[_e]|-?[0-9]{16}|[0-9]{8}-|[0-9a-f]{32}"
    r"|(?![0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:$|/))"
    r"[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+(?:$|/))"
)
_UUID: Final = re.compile(
    r"([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})"
    r"|([0-9a-f]+)-([0-9a-f]+)-(0+|[0-9a-f]{4,})-(0+|[0-9a-f]{4,})-([0-9a-f]+)"
)
"""A UUID (RFC 9562), or five groups that Java's ``UUID.fromString`` reads as one: it
pads short groups, and drops the surplus digits at the front of long ones. The third and
fourth begin with version and variant, so they are short only if they are zero: that
leaves ``2026-12-01-10-30`` out."""
_GROUPS: Final = (8, 4, 4, 4, 12)
_LONGEST_UUID: Final = 84
"""Java 8 reads groups of up to 16 digits; later ones take 36 characters at most."""
_BRACES: Final = "{}()"
"""Around a UUID, to .NET, PostgreSQL and Python."""
_URN: Final = re.compile(
    r"(?<=[/:])(?<![/:]urn:)(?<![/:]uuid:)(?:urn:|uuid:)++"
    r"(?=[{(]*+[0-9a-f]++(?:-[0-9a-f]++)*+[)}]*+(?:$|[/:]))"
)
_URN_WORD: Final = re.compile("urn:|uuid:", re.IGNORECASE)
_ODD_UUID: Final = re.compile(
    r"(?<![^/:])(?<![/:]urn:)(?<![/:]uuid:)(?:urn:|uuid:)*+[{(]*+"
    r"(?!(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[)}]*(?![^/:]))"
    r"(?:0x[0-9a-f]+,"
    r"|((?:0x)?(?:(?:urn:|uuid:)*+[0-9a-f_+]-*+){30,32})[)}]*+(?![^/:]))",
    re.IGNORECASE,
)
"""32 digits with hyphens, ``_``, ``+`` or ``0x`` where RFC 9562 has none, as Python's
`UUID` and PostgreSQL take some of them, and .NET's form with ``0x`` and commas."""
_NUMBER: Final = re.compile(
    r"[+-]?(?:0x[0-9a-f]{1,16}|0b[01]{1,64}|0o[0-7]{1,22}"
    r"|[0-9][0-9_]{0,39}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,2})?)"
)
"""As converters of frameworks read a number: ``int`` and ``float`` of Python,
``parseInt`` and ``Number`` of JavaScript."""
_INSECURE: Final = re.compile("(http|ws):")
"""Schemes that programs write as ``https`` and ``wss``: agent hosts before they fetch,
others as a site's HSTS (RFC 6797 section 8.3) or redirect says."""
_BASES: Final = {"0x": 16, "0b": 2, "0o": 8}
_EXACT: Final = 2**53
"""Whole numbers up to here are doubles; readers of doubles round larger ones."""


def canonical(text: str) -> str | None:
    """Return the canonical form of a resource, or nothing when it has none.

    Scheme and host are in lower case, escapes of characters that need none are decoded
    (RFC 3986 sections 6.2.2.1 and 6.2.2.2, RFC 3987 section 5.3.2.3), and text is in
    Unicode's composed form (NFC). Nothing else is changed: two resources may differ by
    the case of a path.

    Args:
        text: the resource as the request names it.

    Returns:
        The form, or nothing for a resource that programs may read in several ways: more
        than 8,448 characters, or 512 if not all are ASCII; control, invisible and
        unassigned ones, space other than single blanks inside, backslashes, a ``%``,
        empty, ``.`` and ``..`` segments, a fragment (RFC 8707 section 2), an empty
        query, one of a name that is no URL, because a program may make a URL of it; in
        what is neither a URL nor a file ``,``, ``*``, ``|`` and the name ``_all``,
        because a program may take them for several names; in a URL also an account, a
        port that goes without saying (RFC 3986 section 6.2.3), a host that has other
        spellings, and fewer or more than two slashes
        before the host; and in a UUID hyphens at other places than RFC 9562 has them.
    """
    if len(text) > LONGEST:
        return None
    if _SETTLED.fullmatch(text):
        return None if _has_odd_uuid(text) else text
    try:
        text = _composed(_ESCAPES.sub(_decoded, text))
    except ValueError:
        return None
    if scheme := _SCHEME.match(text):
        text = scheme.group().lower() + text[scheme.end() :]
        if _SPECIAL.match(text):
            return None
    start = 0
    if match := _AUTHORITY.match(text):
        start, authority = match.end(), match.group(2).lower()
        text = text[: match.start(2)] + authority + text[start:]
        if not _is_plain_authority(match.group(1), authority):
            return None
    if "#" in text or text.endswith("?") or ("?" in text and not start):
        return None
    if not start and not text.startswith("file:") and _SEVERAL.search(text):
        return None
    return text if _is_plain(text, start) else None


def canonical_resource(resource: str | None) -> str | None:
    """Return the canonical form of a resource; as it was sent when it has none.

    The policy holds one without a form to be unclear.
    """
    return (canonical(resource) or resource) if resource else None


def shortened(resource: str) -> str:
    """Return a URL without its query and parameters, which some programs ignore.

    A URL without a path is that of its root (RFC 3986 section 6.2.3).
    """
    if not (match := _AUTHORITY.match(resource)):
        return resource
    path = re.sub(r";[^/]*", "", resource[match.end() :].partition("?")[0])
    return match.group() + (path or "/")


def reads_like(text: str, same_as: tuple[str, ...] = ()) -> str:
    """Return the fold of a resource: everything that programs may ignore is removed.

    Case, escapes, look-alike and hidden characters, blanks, the missing ``s`` of
    ``http`` and ``ws``, repeated slashes, dot segments, a slash at the end, path
    parameters, a fragment, a query except that of a web URL, and a dot or one of
    *same_as* at the end of a segment are folded. A UUID has four hyphens, as in RFC
    9562, and no braces or ``urn:uuid:``. A segment that is a whole number is written in
    plain digits: ``042``, ``+42``, ``42.0``, ``420e-1``, ``4_2`` and ``0x2a`` are
    ``42``; one above 2^53 is rounded to a double. The fold of a fold is itself. Two
    resources with the same fold may be the same to a resource server. The fold can make
    an answer stricter, never milder.

    Args:
        text: the resource.
        same_as: suffixes that a service ignores, such as ``.json``, in lower case.

    Returns:
        the fold.
    """
    if _OWN_FOLD.fullmatch(text) and not (
        _ODD_NUMBER.search(text) or _INSECURE.match(text)
    ):
        return text
    return (_fold if len(text) <= _CACHED else _fold_long)(text, same_as)


def _fold_once(text: str, same_as: tuple[str, ...]) -> str:
    for _ in range(_MOST_PASSES):
        before, text = text, _PATH_PARAMETERS.sub("", _without_tail(_plain_text(text)))
        text = _secure(_without_dots(text))
        text = _without_endings(text.replace(":/", ":").strip("/"), same_as)
        text = _with_plain_numbers(text)
        if text == before:
            break
    return text


_fold: Final = lru_cache(maxsize=1024)(_fold_once)
_fold_long: Final = lru_cache(maxsize=4)(_fold_once)
"""Few: an agent chooses them. Each limit of one request asks for the same one."""


def fold_pattern(
    parts: tuple[str, ...], same_as: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the fold of a ``like`` pattern that is split at its wildcards."""
    last = len(parts) - 1
    return tuple(
        _part_reads_like(part, same_as, begins=index == 0, ends=index == last)
        for index, part in enumerate(parts)
    )


def _part_reads_like(
    part: str, same_as: tuple[str, ...], *, begins: bool, ends: bool
) -> str:
    """Return the fold of a piece of a ``like`` pattern, between its wildcards.

    A slash next to a wildcard stays, because the wildcard matches a segment.

    Args:
        part: the piece.
        same_as: see `reads_like`.
        begins: whether the pattern begins with it.
        ends: whether the pattern ends with it.

    Returns:
        the fold.
    """
    if begins and ends:
        return reads_like(part, same_as)
    text = _without_dots(_plain_text(part)).replace(":/", ":")
    text = _secure(text.lstrip("/")) if begins else text
    text = text.rstrip("/") if ends else text
    text = _without_endings(text, same_as, begins=begins, ends=ends)
    return _with_plain_numbers(text, begins=begins, ends=ends)


def _secure(text: str) -> str:
    insecure = _INSECURE.match(text)
    return f"{insecure[1]}s{text[insecure.end(1) :]}" if insecure else text


def _without_tail(text: str) -> str:
    """Leave out a fragment, and a query that is empty or that of no web URL."""
    text = text.partition("#")[0]
    return text.rstrip("?") if _QUERIED.match(text) else text.partition("?")[0]


def _plain_text(text: str) -> str:
    """Return *text* decoded, in lower case, without invisible characters.

    Of a long one that is not ASCII, which has no canonical form, the ASCII is left.
    """
    for _ in range(_MOST_DECODING):
        decoded = unquote(text, errors="replace")
        if decoded == text:
            break
        text = decoded
    if len(text) > _LONGEST_FOREIGN and not text.isascii():
        text = text.encode("ascii", "ignore").decode()
    return _SLASHES.sub("/", fold_text(text).replace("\\", "/"))


def _without_endings(
    text: str, same_as: tuple[str, ...], *, begins: bool = True, ends: bool = True
) -> str:
    """Leave out dots and suffixes at the ends of segments.

    A segment is never empty afterwards, except in a pattern next to a wildcard.
    """
    if "." not in text:
        return text
    pieces = _SEPARATORS.split(text)
    last = len(pieces) - 1
    for index in range(0, len(pieces) if ends else last, 2):
        least = 0 if index == 0 and not begins else 1
        pieces[index] = _without_ending(pieces[index], same_as, least)
    return "".join(pieces)


def _without_ending(segment: str, same_as: tuple[str, ...], least: int) -> str:
    while len(segment) > least:
        shorter = segment.rstrip(".")
        for suffix in same_as:
            shorter = shorter.removesuffix(suffix)
        if len(shorter) < least or shorter == segment:
            break
        segment = shorter
    return segment


def _with_plain_numbers(text: str, *, begins: bool = True, ends: bool = True) -> str:
    """Write whole numbers in plain digits, and UUIDs as in RFC 9562.

    In a pattern a segment next to a wildcard may go on, so it stays as it is. If the
    digits of a UUID are a number, it is that number.
    """
    pieces = _SEPARATORS.split(_URN.sub("", text))
    first, last = (0 if begins else 2), len(pieces) - (0 if ends else 1)
    for index in range(first, last, 2):
        groups = _uuid_groups(pieces[index])
        digits = "".join(groups) or pieces[index]
        if _NUMBER.fullmatch(digits):
            pieces[index] = _plain_number(digits)
        elif groups:
            pieces[index] = "-".join(groups)
    return "".join(pieces)


def _uuid_groups(segment: str) -> list[str]:
    """Return the five groups of digits of a UUID; none of any other name."""
    match = _UUID.fullmatch(segment.strip(_BRACES))
    if match is None or len(segment.strip(_BRACES)) > _LONGEST_UUID:
        return []
    groups = (one for one in match.groups() if one is not None)
    return [one[-size:].zfill(size) for one, size in zip(groups, _GROUPS, strict=True)]


def _plain_number(text: str) -> str:
    sign = "-" if text.startswith("-") else ""
    digits = text.lstrip("+-").replace("_", "")
    if base := _BASES.get(digits[:2]):
        value = int(digits, base)
    else:
        number = Decimal(digits)
        if number != number.to_integral_value():
            return text
        value = int(number)
    if value > _EXACT:
        value = int(float(value))
    return f"{sign if value else ''}{value}"


def _without_dots(text: str) -> str:
    """Resolve ``.`` and ``..`` segments, as RFC 3986 section 5.2.4 does."""
    if "." not in text:
        return text
    segments: list[tuple[str, str]] = []
    parts = _SEPARATORS.split(text)
    for segment, mark in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if segment == "..":
            if segments and segments[-1][1] == "/":
                segments.pop()
        elif segment != ".":
            segments.append((segment, mark))
    return "".join(segment + mark for segment, mark in segments)


class SameAs:
    """The suffixes that services ignore, by the prefixes of their resources.

    The resource alone determines them, so a token request, an evaluation, a call and a
    later approval are all compared in the same way.
    """

    def __init__(self) -> None:
        """Start without services."""
        self._by_prefix: dict[str, frozenset[str]] = {}
        self._cached_find = lru_cache(maxsize=1024)(self._find)

    def put(self, services: Iterable[tuple[Iterable[str], Iterable[str]]]) -> None:
        """Replace all services.

        Args:
            services: for each, the literal prefixes of its resources, and its suffixes.
        """
        suffixes_of: dict[str, frozenset[str]] = {}
        for beginnings, suffixes in services:
            for one in beginnings:
                prefix = _part_reads_like(one, (), begins=True, ends=False)
                suffixes_of[prefix] = suffixes_of.get(prefix, frozenset()) | frozenset(
                    suffixes
                )
        if suffixes_of != self._by_prefix:
            self._by_prefix = suffixes_of
            self._cached_find.cache_clear()

    def of(self, resource: str) -> tuple[str, ...]:
        """Return the suffixes that count for *resource*, the longest first."""
        return self._cached_find(resource[:_CACHED]) if self._by_prefix else ()

    def _find(self, resource: str) -> tuple[str, ...]:
        folded = reads_like(resource)
        endings = frozenset[str]().union(
            *(
                suffixes
                for prefix, suffixes in self._by_prefix.items()
                if folded.startswith(prefix[: _CACHED // 2])
            )
        )
        return tuple(sorted(endings, key=lambda one: (-len(one), one)))


def _composed(text: str) -> str:
    """Return *text* in NFC.

    Raises:
        ValueError: it is too long for that.
    """
    if text.isascii():
        return text
    if len(text) > _LONGEST_FOREIGN:
        raise ValueError("too long for Unicode's forms")
    return unicodedata.normalize("NFC", text)


def _decoded(match: re.Match[str]) -> str:
    """Decode a run of percent-escapes as UTF-8; reserved ASCII has no other form.

    Raises:
        ValueError: it is no UTF-8, or holds a character that must stay escaped.
    """
    text = bytes.fromhex(match.group().replace("%", "")).decode()
    if any(c.isascii() and not (c.isalnum() or c in "-._~") for c in text):
        raise ValueError("a reserved character is escaped")
    return text


def _is_plain_authority(scheme: str, authority: str) -> bool:
    """Check whether host and port of a URL, in lower case, have no other spelling.

    Names in other scripts are written as in DNS (``xn--``), addresses as
    RFC 5952 and dotted decimals have them.
    """
    match = _HOST.fullmatch(authority)
    if match is None or (scheme, match.group(2)) in _DEFAULT_PORTS:
        return False
    host = match.group(1)
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1])) == host[1:-1]
        return not _NUMERIC.fullmatch(host) or str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_plain(text: str, path: int) -> bool:
    """Check whether *text*, with its path at that index, has only one reading."""
    if text != text.strip() or any(odd in text for odd in ("  ", "\\", "%")):
        return False
    for character in text if not (text.isascii() and text.isprintable()) else "":
        kind = unicodedata.category(character)
        if kind in _HIDDEN or (kind == "Zs" and character != " "):
            return False
    if not text.isascii() and UNDRAWN.search(text):
        return False
    segments = re.split(r"[/:]", text[path:].partition("?")[0])
    if any(map(_DOTS.fullmatch, segments)) or "//" in text[path:]:
        return False
    return not _has_odd_uuid(text)


def _has_odd_uuid(text: str) -> bool:
    """Check whether a name of *text* is a UUID that programs read in several ways."""
    for match in _ODD_UUID.finditer(text):
        digits = match[1]
        if digits is None or len(_URN_WORD.sub("", digits).replace("-", "")) == 32:
            return True
    return False
