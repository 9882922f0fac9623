"""Names of members, fields and headers, as lenient programs compare them.

Go's ``encoding/json``, .NET, Jackson and protobuf's JSON accept other spellings of a
name; PHP, Rack and Express read ``to[]`` and ``to.x`` as parts of ``to``. Zope reads
``to:lines``, Rails ``to(1i)``, and Spring ``to['x']`` and ``!to`` as ``to``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

_IGNORED: Final = re.compile(r"[\s_-]+")
_PARTS: Final = re.compile(r"[^\w\s$@/-]+")
"""Ends a part of a name: all but letters, digits, blanks and ``_$@/-``."""
_MANGLED: Final = str.maketrans(".[", "__")
_MOST_FOLDED: Final = 50_000
"""Characters of distinct names that are folded for one body. NFKC makes 18 of one
character (U+FDFA), which takes 3 us."""


def are_too_long(names: Iterable[str]) -> bool:
    """Check whether it takes too long to fold all of some names, each of them once."""
    odd = {name for name in names if not name.isascii()}
    return sum(map(len, odd)) > _MOST_FOLDED


def fold_name(name: str) -> str:
    """Return a name as `fold_case` does, without ``_``, ``-`` and blanks.

    Two names that are the same here may be one name to a service.
    """
    if name.isascii():
        return name.lower() if name.isalnum() else _IGNORED.sub("", name).lower()
    return _folded(name)


@lru_cache(maxsize=1024)
def _folded(name: str) -> str:
    return _IGNORED.sub("", fold_case(name))


def fold_case(text: str) -> str:
    """Return a text without case and compatibility forms.

    The long s (U+017F) and the Kelvin sign (U+212A) become ``s`` and ``k``, and the
    Turkish i (U+0130, U+0131) is ``i``, as it is to Java's ``equalsIgnoreCase``.
    """
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text).casefold()
    return text.replace("i\u0307", "i").replace("\u0131", "i")


def field_readings(name: str) -> tuple[str, str]:
    """Return the names by which servers know the field *name*, its parts left out.

    Rack and qs end the name at the first bracket, some readers at a dot, Zope at a
    colon, Rails at a parenthesis. PHP writes a dot, and a bracket that is not closed,
    as ``_``: ``pay.to`` and ``pay[to`` are ``pay_to``.
    """
    head, _, rest = name.partition("[")
    whole = head if "]" in rest else name
    parts = split_parts(name)
    return parts[0] if parts else "", whole.translate(_MANGLED)


def split_parts(name: str) -> list[str]:
    """Return the parts of a field's name, such as ``to`` and ``lines``."""
    return [part for part in _PARTS.split(name) if part]


def field_names(name: str) -> frozenset[str]:
    """Return the folds of all that servers may take for the name of a field."""
    if name.isalnum():
        return frozenset((fold_name(name),))
    one, other = field_readings(name)
    first = fold_name(one)
    both = (first,) if one == other else (first, fold_name(other))
    return frozenset(both) if all(both) else frozenset(filter(None, both))


def last_part(name: str) -> str | None:
    """Return the fold of the last part of a field's name; None where it has no parts.

    ASP.NET Core reads ``payment.amount`` and ``payment[amount]`` as ``amount`` where
    its handler calls the object ``payment``, and then no longer ``amount`` itself.
    """
    parts = split_parts(name)
    return fold_name(parts[-1]) if len(parts) > 1 else None


def readings(name: str) -> frozenset[str]:
    """Return `field_names` and `last_part` of a field's name."""
    if name.isalnum():
        return frozenset((fold_name(name),))
    names, last = field_names(name), last_part(name)
    return names if last is None or last in names else names | {last}


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two of *names* that fold alike and differ in spelling."""
    return _first_two(fold_name, names)


def alike_fields(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names of fields that a server may read as one name."""
    return _first_two(lambda name: fold_name(_mangled(name)), names)


def _mangled(name: str) -> str:
    """Return a name as PHP writes it, its parts included."""
    if name.isalnum():
        return name
    head, bracket, rest = name.partition("[")
    if bracket and "]" not in rest:
        return name.translate(_MANGLED)
    return head.replace(".", "_") + bracket + rest


def _first_two(
    fold: Callable[[str], str], names: Iterable[str]
) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(fold(name), name)) != name:
            return other, name
    return None
