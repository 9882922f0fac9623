"""Names of members, fields and headers, as lenient programs compare them.

Go's ``encoding/json``, .NET, Jackson and protobuf's JSON accept other spellings of a
name; PHP, Rack and Express read ``to[]`` and ``to.x`` as parts of ``to``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_IGNORED: Final = re.compile(r"[\s_-]+")
_PARTS: Final = re.compile(r"[\[\].\0]")


def fold_name(name: str) -> str:
    """Return a name without case, compatibility forms, ``_``, ``-`` and blanks.

    Two names that are the same here may be one name to a service. The long s (U+017F)
    and the Kelvin sign (U+212A) become ``s`` and ``k``.
    """
    if name.isascii():
        return name.lower() if name.isalnum() else _IGNORED.sub("", name).lower()
    return _folded(name)


@lru_cache(maxsize=1024)
def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return _IGNORED.sub("", unicodedata.normalize("NFKC", plain).casefold())


def base_name(name: str) -> str:
    """Return the fold that ``to``, ``to[]``, ``to.x`` and ``[to]`` have in common."""
    if name.isalnum():
        return fold_name(name)
    return fold_name(_PARTS.split(name.lstrip("["), maxsplit=1)[0])


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two of *names* that fold alike and differ in spelling."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(fold_name(name), name)) != name:
            return other, name
    return None
