"""Shapes of the wire as they can be drawn: texts as `Shown`, moments as `datetime`.

`shapes.Text` and `shapes.Time` name the members, so mypy and the conversion agree: a
member that is not one of them stays raw, and has a raw type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    Final,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from msgspec.structs import fields

from agentvault_tui.clock import parse_iso
from agentvault_tui.operator_api.shapes import DRAWN, WireShape
from agentvault_tui.text import Shown, visible

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAME: Final = 80
_LINE: Final = 200
_WORDS: Final = 24_000
"""Cached short texts with their converted form: ids and names of 10,000 agents fit."""
_NOTHING: Final = Shown("")

ShapeT = TypeVar("ShapeT", bound="WireShape[Any, Any, Any]")
Convert: TypeAlias = Callable[["Displayer", Any], object]


class Displayer:
    """Makes texts of others displayable, alone or in a shape."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        self.ascii_only = ascii_only
        self._words: dict[object, Shown] = {}

    def shown(self, raw: object, limit: int = _LINE) -> Shown:
        """Make anything displayable; None becomes the empty text."""
        if raw is None:
            return _NOTHING
        if isinstance(raw, str) and len(raw) <= limit and not self.ascii_only:  # noqa: SIM102
            if raw.isascii() and raw.isprintable():
                return Shown(raw)  # as `visible` does, without its calls: four an event
        return visible(raw, limit, ascii_only=self.ascii_only)

    def word(self, raw: object) -> Shown:
        """Make a short text displayable, from a cache."""
        try:
            return self._words[raw]
        except (KeyError, TypeError):  # new, or nothing that can be remembered
            shown = self.shown(raw, _NAME)
        if raw is None or (isinstance(raw, str) and len(raw) <= _NAME):
            if len(self._words) >= _WORDS:
                self._words.clear()
            self._words[raw] = shown
        return shown

    def read(self, info: WireShape, kind: type[ShapeT]) -> ShapeT:
        """Return *info* as it can be drawn; a malformed moment is None, or the epoch.

        Args:
            info: a decoded shape; it stays as it is.
            kind: its class with ``[Shown, datetime]``.
        """
        displayed = copy(info)
        if not isinstance(displayed, kind):
            raise TypeError(f"{type(info).__name__} is no {kind.__name__}")
        for name, convert, maybe in plan(type(info)):
            value = getattr(info, name)
            if value or value == "":  # most members of most shapes are empty
                setattr(displayed, name, convert(self, value))
            elif maybe:
                setattr(displayed, name, _NOTHING)
        return displayed

    def extend(
        self, info: WireShape[Any, Any, Any], kind: type[ShapeT], **derived: object
    ) -> ShapeT:
        """Return *info* as it can be drawn, with members that are derived from it.

        Args:
            info: a decoded shape; it stays as it is.
            kind: a subclass of its class with ``[Shown, datetime]``.
            derived: members of the subclass, and others that replace those of *info*.
        """
        displayed = self.read(info, type(info))  # an answer may have more members
        shared = {*kind.__struct_fields__} & {*displayed.__struct_fields__}
        names = shared.difference(derived)
        return kind(**{one: getattr(displayed, one) for one in names}, **derived)

    def read_all(
        self, infos: Iterable[WireShape], kind: type[ShapeT]
    ) -> tuple[ShapeT, ...]:
        """Return several shapes as they can be drawn; see `read`."""
        return tuple(self.read(one, kind) for one in infos)


def moment(raw: str | None) -> datetime | None:
    """Parse a moment of the wire; None where it is malformed."""
    try:
        return parse_iso(raw) if raw else None
    except ValueError:
        return None


@cache
def plan(kind: type[WireShape]) -> tuple[tuple[str, Convert, bool], ...]:
    """List the members of a shape to convert, and whether null is drawn as empty."""
    plans = ((one.name, _convert(one.type), one.type) for one in fields(kind))
    return tuple(
        (name, convert, _is_maybe(hint)) for name, convert, hint in plans if convert
    )


def _is_maybe(hint: Any) -> bool:
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else ()
    return bool(inner) and type(None) in get_args(inner[0])


def _convert_drawn(hint: Any, *, optional: bool) -> Convert:
    """Return the conversion of a marked text, moment or shape."""
    limits = [one for one in hint.__metadata__ if isinstance(one, int)]
    if get_args(hint)[0] is not str and not _is_maybe(hint):
        return lambda displayer, value: displayer.read(value, type(value))
    if not limits:
        return lambda _, raw: moment(raw) or (None if optional else EPOCH)
    if limits[-1] == _NAME:
        return Displayer.word
    return lambda displayer, raw: displayer.shown(raw, limits[-1])


def _convert(hint: Any, *, optional: bool = False) -> Convert | None:
    """Return the conversion of values of a member's type; None where they stay raw.

    Raises:
        TypeError: a text is in it, in a place that is not converted.
    """
    parts, origin = get_args(hint), get_origin(hint)
    if origin is Annotated and DRAWN in hint.__metadata__:
        return _convert_drawn(hint, optional=optional)
    if origin is tuple and parts[1] is ... and (one := _convert(parts[0])):
        return lambda displayer, values: tuple([one(displayer, x) for x in values])
    if origin is dict and any(map(_convert, parts)):
        name, value = (_convert(one) or (lambda _, raw: raw) for one in parts)
        return lambda displayer, values: {
            name(displayer, key): value(displayer, each) for key, each in values.items()
        }
    if origin in {Union, UnionType}:
        optional = type(None) in parts
        converted = [one for x in parts if (one := _convert(x, optional=optional))]
        if len(converted) == 1:
            return converted[0]
        if len(converted) == 2 and get_origin(parts[1]) is tuple:  # one, or several
            alone, several = converted
            return lambda displayer, value: (
                several if isinstance(value, tuple) else alone
            )(displayer, value)
    if DRAWN in repr(hint):
        raise TypeError(f"no conversion for a member of type {hint}")
    return None
