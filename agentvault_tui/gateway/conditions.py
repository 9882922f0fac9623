"""Conditions of a case: values of a request on which the effect of a route depends."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.names import fold_case
from agentvault_tui.gateway.sources import Source, read_source
from agentvault_tui.json_document import plain_name

_SEVERAL: Final = re.compile(r"[\s,;|]+")
"""Separators by which a service may split one text into several values."""
_MOST: Final = 1_000
"""Values of one member that are compared."""


@dataclass(frozen=True, slots=True)
class CaseCondition:
    """The values of one part of a request for which a case applies."""

    source: Source
    values: tuple[str, ...]
    """Folded; ``*`` in one is any text. None: any value counts, if one is stated."""
    excepted: bool = False
    """Whether `values` are those for which it does not apply."""

    def __str__(self) -> str:
        listed = " or ".join(self.values) or "any value"
        return f"{self.source} is {'not ' if self.excepted else ''}{listed}"

    def holds(self, stated: Any) -> bool:
        """Check whether a request has one of the values.

        A value that cannot be read in one way may be any of them.

        Args:
            stated: as JSON has it, or a list of texts; None if it is unclear.
        """
        if not self.values:
            return True
        texts = _texts(stated)
        if texts is None:
            return True
        if self.excepted:
            return not texts or any(not self._has(whole) for whole, *_ in texts)
        return any(self._has(one) for some in texts for one in some)

    def _has(self, text: str) -> bool:
        return any(has_form(text, one.split("*")) for one in self.values)


def parse_conditions(
    stated: Mapping[str, str | list[str]], names: Collection[str]
) -> tuple[CaseCondition, ...]:
    """Check ``when`` of a case.

    Args:
        stated: values by the place where each is read.
        names: the segments that the path captures.

    Raises:
        ServiceError: with the fault.
    """
    if not stated:
        raise ServiceError(
            "a case has no when", 'add when = { "body:/status" = ["cancelled"] }'
        )
    conditions = []
    for where, listed in stated.items():
        source = read_source("when", where, names)
        if source.counted:
            raise ServiceError("when: a count is no value", "name the place itself")
        values = [listed] if isinstance(listed, str) else listed
        excepted = {one.startswith("!") for one in values}
        if len(excepted) != 1 or not all(one.removeprefix("!") for one in values):
            raise ServiceError(
                "when: the values are empty, or some begin with ! and some do not",
                'write values, such as ["all"], or "!none" for all but that one',
            )
        folded = tuple(fold_case(one.removeprefix("!")) for one in values)
        if "*" in folded:
            if excepted == {True}:
                raise ServiceError("when: !* is no value", "leave the case out")
            folded = ()
        conditions.append(CaseCondition(source, folded, excepted == {True}))
    return tuple(conditions)


def has_form(text: str, literals: list[str]) -> bool:
    """Check whether a text is these literals with anything between them."""
    first, last = literals[0], literals[-1]
    if len(literals) == 1:
        return text == first
    if not text.startswith(first) or not text.endswith(last):
        return False
    place = len(first)
    for literal in literals[1:-1]:
        place = text.find(literal, place)
        if place < 0:
            return False
        place += len(literal)
    return place <= len(text) - len(last)


def _texts(stated: Any) -> list[list[str]] | None:
    """Return each value as a folded text and its parts.

    Returns:
        None if a value is neither a text, a whole number nor a truth value, or if
        there are more than `_MOST`.
    """
    values: Iterable[Any] = stated if isinstance(stated, list) else [stated]
    if isinstance(stated, list) and len(stated) > _MOST:
        return None
    texts = []
    for value in values:
        text = str(value) if isinstance(value, bool) else plain_name(value)
        if text is None:
            return None
        whole = fold_case(text).strip()
        texts.append([whole, *_SEVERAL.split(whole)])
    return texts
