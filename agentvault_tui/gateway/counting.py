"""Count the members of a value, where each member is one thing and not several."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from agentvault_tui.gateway.names import field_names
from agentvault_tui.policy.facts import MOST_ADDRESSES, NAMING, is_one_address

COUNTED: Final = frozenset(
    {"amount", "count", "currency", "destinations", "recipients"}
)
"""Parameters that policy reads by value."""
_MOST_SEARCHED: Final = 100_000
"""Names and objects of a document that are searched."""
_SEVERAL: Final = re.compile("[,;|\r\n\uff0c\uff1b\u061b\u3001]")
"""Separators of the members of one text, in Latin, Arabic and wide punctuation."""


class ArgumentPlace(NamedTuple):
    """Where the arguments are that state a parameter."""

    tokens: tuple[str, ...]
    """Of a JSON Pointer."""
    addressed: bool
    """Whether ``to``, ``cc`` and the other names of `NAMING` say the same."""


def how_many(name: str, value: Any) -> int | None:
    """Count the members of a list or object, or one text.

    A list inside a list is several members to APIs that flatten it, as Rails does, and
    so is a text such as ``1,2,3``. Recipients are addresses besides.

    Args:
        name: of the parameter.
        value: as JSON has it.

    Returns:
        the number; None where a member may stand for several, *value* is a number, or
        there are more than `MOST_ADDRESSES` recipients.
    """
    if isinstance(value, str):
        value = [value]
    if name == "recipients" and isinstance(value, list | dict):
        value = value if len(value) <= MOST_ADDRESSES else None
    if isinstance(value, list):
        return len(value) if all(_is_one(name, one) for one in value) else None
    if not isinstance(value, dict):
        return None
    names, about = all(_is_one(name, one) for one in value), list(value.values())
    return len(value) if names and all(map(_is_about_one, about)) else None


def is_elsewhere(
    document: Any, places: Collection[tuple[str, ...]], *, addressed: bool
) -> bool:
    """Check whether a document may state a parameter at another place too.

    A service may bind an inner object and read a member of the same name there;
    ``cc`` and ``bcc`` reach people as ``to`` does. It takes as long as to fold each
    name of the document, so a large one is for a worker process.

    Args:
        document: as JSON has it.
        places: where the parameter is read, as the names on the way there.
        addressed: whether the parameter is about all whom the members of `NAMING`
            name.

    Returns:
        True also if there is more to search than time for it.
    """
    names = frozenset().union(*(field_names(one[-1]) for one in places))
    if addressed:
        names |= NAMING

    @cache
    def is_other(key: str) -> bool:
        return names.isdisjoint(field_names(key))

    above = {one[:depth] for one in places for depth in range(1, len(one))}
    is_nest = isinstance(document, dict | list)
    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)] if is_nest else []
    left = _MOST_SEARCHED
    while waiting:
        path, value = waiting.pop()
        is_list = isinstance(value, list)
        for key, one in enumerate(value) if is_list else value.items():
            is_nest = isinstance(one, dict | list)
            if not one or (is_list and not is_nest):
                continue
            left, below = left - 1, (*path, str(key))
            if below in places:
                continue
            if left < 0 or not (is_list or below in above or is_other(str(key))):
                return True
            if is_nest:
                waiting.append((below, one))
    return False


def inner_document(
    text: str, of_pairs: Callable[[list[tuple[str, Any]]], Any] = dict
) -> Any:
    """Read a text that is a JSON object or array, as lenient servers do.

    The Python SDK of MCP reads each text as JSON whose parameter is not of the type
    text alone.

    Args:
        text: of an argument.
        of_pairs: makes the object of some members.

    Returns:
        the document, with the digits of numbers; None if it is none.

    Raises:
        ValueError: it has too many levels.
    """
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(
            *(text,),
            object_pairs_hook=of_pairs,
            parse_int=str,
            parse_float=str,
            strict=False,
        )
    except RecursionError as error:
        raise ValueError("a text has too many levels of JSON") from error
    except ValueError:
        return None


def stated_twice(
    places: Mapping[str, ArgumentPlace], arguments: Mapping[str, Any]
) -> frozenset[str]:
    """Return the parameters of *places* that arguments state elsewhere too.

    A document in a text counts like one that is not: see `inner_document`.
    """
    try:
        inner = {"\0": _inner_documents(arguments) if places else []}
    except ValueError:
        return frozenset(places)
    return frozenset(
        name
        for name, at in places.items()
        for document in (arguments, inner)
        if is_elsewhere(document, {at.tokens}, addressed=at.addressed)
    )


def _inner_documents(value: Any) -> list[Any]:
    """Return the documents in the texts of a value, and in texts of these.

    An object is a list of its members: a reader may take either of two with one name.
    """
    documents, waiting = list[Any](), [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            apart = inner_document(one, lambda pairs: [dict([one]) for one in pairs])
            documents += [] if apart is None else [apart]
            one = apart
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return documents


def _is_one(name: str, member: object) -> bool:
    """Check whether a member of a list, or a name in an object, is one thing."""
    if name == "recipients":
        if isinstance(member, str):
            return is_one_address(member)
        return isinstance(member, dict) and _is_about_one(member)
    if isinstance(member, str):
        return not _SEVERAL.search(member)
    return not isinstance(member, list)


def _is_about_one(value: object) -> bool:
    """Check whether a member's own members are texts and numbers, and no lists.

    A text with an ``@`` is one address.
    """
    if isinstance(value, dict):
        plain = not any(isinstance(one, dict) for one in value.values())
        named = sum("@" in name for name in value)  # addresses as names of members
        return plain and named <= 1 and all(map(_is_about_one, value.values()))
    if isinstance(value, str) and "@" in value:
        return is_one_address(value)
    return not isinstance(value, list)
