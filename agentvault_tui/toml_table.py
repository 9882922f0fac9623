"""Read TOML that a person wrote as a struct, with what helps where it is none."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agentvault_tui.errors import ServiceError
from agentvault_tui.text import visible

_T = TypeVar("_T")


def read_table(text: str, shape: type[_T], inner: Mapping[str, type[Any]]) -> _T:
    """Read TOML as *shape*; an unknown key names the nearest known one.

    Args:
        text: what the file says.
        shape: the struct of its top level.
        inner: the structs below it, by their place without numbers and names.

    Returns:
        a *shape*.

    Raises:
        ServiceError: it is no TOML, or no such table.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"it is not TOML ({visible(error, 200)})") from None
    try:
        return msgspec.convert(table, shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = place.removesuffix("`").lstrip(".")
        where = f"{visible(place, 80)}: " if place else ""
        if not (found := re.search(r"unknown field `(.*)`", what, re.DOTALL)):
            raise ServiceError(f"{where}{visible(what, 200)}") from None
        kind = inner.get(re.sub(r"\[[^\]]*\]", "[]", place), shape)
        known = kind.__struct_fields__
        near = difflib.get_close_matches(found[1], known, n=1)
        raise ServiceError(
            f"{where}unknown key '{visible(found[1], 60)}'",
            f"did you mean {near[0]}" if near else f"known: {', '.join(known)}",
        ) from None
