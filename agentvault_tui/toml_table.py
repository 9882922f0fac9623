"""Read TOML that a person wrote as a struct or dataclass; write as a person would."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from keyword import iskeyword
from pathlib import Path
from typing import (
    Any,
    Final,
    Literal,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from agentvault_tui.errors import ServiceError, SettingsError
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted

_T = TypeVar("_T")
_BARE: Final = re.compile("[A-Za-z0-9_-]+")
_LINE: Final = 76
"""Characters of a list that is on one line."""


def read_table(text: str, shape: type[_T], inner: Mapping[str, type[Any]]) -> _T:
    """Read TOML as *shape*; an unknown key names the nearest known one.

    A number with a fraction is a `Decimal` where the shape takes anything.

    Args:
        text: the file's text.
        shape: the struct of its top level.
        inner: the structs below it, by their place without numbers and names.

    Raises:
        ServiceError: it is no TOML, or no such table.
    """
    import tomllib  # noqa: PLC0415 - see `read_toml`

    try:
        table = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise ServiceError(f"it is not TOML ({visible(error, 200)})") from None
    return convert_table(table, shape, inner)


def convert_table(
    table: dict[str, Any], shape: type[_T], inner: Mapping[str, type[Any]]
) -> _T:
    """Read a table as *shape*; see `read_table`."""
    try:
        return msgspec.convert(table, shape)
    except msgspec.ValidationError as error:
        text = str(error).replace("got `decimal`", "got `float`")
        what, _, place = text.partition(" - at `$")
        place = place.removesuffix("`").lstrip(".")
        where = f"{visible(place, 80)}: " if place else ""
        if not (match := re.search(r"unknown field `(.*)`", what, re.DOTALL)):
            raise ServiceError(f"{where}{visible(what, 200)}") from None
        kind = inner.get(re.sub(r"\[[^\]]*\]", "[]", place), shape)
        names = kind.__struct_fields__
        near = difflib.get_close_matches(match[1], names, n=1)
        raise ServiceError(
            f"{where}unknown key '{visible(match[1], 60)}'",
            f"did you mean {near[0]}" if near else f"known: {', '.join(names)}",
        ) from None


def read_members(kind: type, table: object, name: str, source: str) -> dict[str, Any]:
    """Read the members of a dataclass from a table that a person wrote.

    Args:
        kind: the dataclass; a field such as ``for_`` is the key ``for``.
        table: the values of TOML or the environment; a list may be one string with
            commas.
        name: the table's name in errors.
        source: the table's place in errors.

    Returns:
        the members the table has, each of its field's type.

    Raises:
        SettingsError: an unknown key (with the nearest known one) or a bad value.
    """
    if not isinstance(table, Mapping):
        raise no_table(name, source)
    annotations = get_type_hints(kind, include_extras=True)
    hints = {key.removesuffix("_"): hint for key, hint in annotations.items()}
    members = {}
    for key, value in table.items():
        if key not in hints:
            raise unknown_setting(f"{name}.{key}", key, hints, source)
        hint = hints[key]
        try:
            field = f"{key}_" if iskeyword(key) else key
            members[field] = msgspec.convert(_plain(value, hint), hint, strict=False)
        except msgspec.ValidationError as error:
            words = get_args(hint) if get_origin(hint) is Literal else ()
            words = tuple(hint) if _is_enum(hint) else words
            what = f"it may be {', '.join(words)}" if words else f"{error}"
            raise SettingsError(
                f"{name}.{key} in {source} is {value!r:.60}",
                what[:1].lower() + what[1:],
            ) from None
    return members


def _is_enum(hint: object) -> TypeGuard[type[StrEnum]]:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _plain(value: Any, hint: object) -> Any:
    """Return *value* as `msgspec.convert` takes it for *hint*."""
    if _is_enum(hint) and isinstance(value, bool):
        return str(value).lower()
    if get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if isinstance(items, list):
            stripped = [one.strip() if isinstance(one, str) else one for one in items]
            return [one for one in stripped if one != ""]
    return value


def no_table(name: str, source: str) -> SettingsError:
    """Return the error of a value that should be a table of TOML."""
    return SettingsError(
        f"{name} in {source} is not a table",
        f"write [{name}] on a line of its own, and KEY = VALUE below it",
    )


def unknown_setting(
    shown: str, word: str, names: Iterable[str], source: str
) -> SettingsError:
    """Return the error of a key that is not there, with the nearest that is."""
    near = difflib.get_close_matches(word, names := list(names), n=1)
    remedy = f"did you mean {near[0]}" if near else f"known: {', '.join(sorted(names))}"
    return SettingsError(f"unknown setting {shown} in {source}", remedy)


def read_toml(path: Path, home: Path) -> dict[str, object]:
    """Read a file of TOML in the folder *home*; one that is not there is empty.

    Raises:
        SettingsError: it cannot be read, or others could have written it.
    """
    content = read_trusted(path, home)
    if not content:
        return {}
    # Most homes have no file, and commands start without the parser.
    import tomllib  # noqa: PLC0415

    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        # Not UTF-8, not TOML, or a number or nesting beyond what Python reads.
        raise SettingsError(f"{path} cannot be read ({error})") from error


def write_value(value: str | bool | Iterable[str]) -> str:
    """Return *value* as TOML 1.0 writes it; invisible characters are escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if '"' in value and "'" not in value and value.isprintable():
            return f"'{value}'"  # a JWK
        return f'"{"".join(map(_escaped, value))}"'
    items = [write_value(one) for one in value]
    line = f"[{', '.join(items)}]"
    if len(line) <= _LINE:
        return line
    return "".join(["[\n", *(f"  {one},\n" for one in items), "]"])


def write_key(name: str) -> str:
    """Return *name* as a key of TOML 1.0, quoted where it has to be."""
    return name if _BARE.fullmatch(name) else write_value(name)


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
