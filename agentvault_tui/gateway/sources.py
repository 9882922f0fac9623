"""Where in a request a value is read, as the words of a service file say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from agentvault_tui.errors import ServiceError
from agentvault_tui.json_document import Number, read_document
from agentvault_tui.text import visible

HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""RFC 9110 section 5.6.2."""
COMMIT_ID: Final = re.compile(r"[0-9a-f]{40}")
"""A commit of git by its whole SHA-1. 64 digits may be a branch there, which moves."""
DESTINATIONS: Final = "destinations"
"""The parameter of the hosts and mail domains that a request reaches."""
UNCLEAR: Final = "unclear"
"""In the place of a source: no request of a route states the parameter clearly."""
PLACES: Final = frozenset({"domains", "hosts"})
_INDEX: Final = re.compile("0|[1-9][0-9]{0,8}")
_DIGITS: Final = frozenset(bytes([one]) for one in b"-0123456789")
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


@dataclass(frozen=True, slots=True)
class Source:
    """Where in a request a parameter is read."""

    kind: Literal["body", "path", "query", "header", "constant"]
    name: str = ""
    pointer: tuple[str, ...] = ()
    """The reference tokens of a JSON Pointer (RFC 6901), unescaped."""
    counted: bool = False
    """Whether the parameter is the number of the values, and not a value."""
    places: Literal["", "domains", "hosts"] = ""
    """Whether the parameter is the domains of mail addresses or the hosts of URLs."""
    value: int | None = 0
    """Of a constant; None is a value that no request states."""
    commit: bool = False
    """Whether a request is refused unless its value is a `COMMIT_ID`."""

    def __str__(self) -> str:
        if self.kind == "constant":
            return UNCLEAR if self.value is None else str(self.value)
        form = "count:" * self.counted + "commit:" * self.commit
        form += f"{self.places}:" if self.places else ""
        return f"{form}{self.kind}:{self.name or write_pointer(self.pointer)}"


def write_pointer(tokens: tuple[str, ...]) -> str:
    """Return a JSON Pointer (RFC 6901) from its reference tokens."""
    escaped = (one.replace("~", "~0").replace("/", "~1") for one in tokens)
    return "".join(f"/{one}" for one in escaped)


def split_pointer(
    tokens: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the tokens before the first ``*`` of a pointer, the star, and the rest."""
    place = tokens.index("*") if "*" in tokens else len(tokens)
    return tokens[:place], tokens[place : place + 1], tokens[place + 1 :]


def read_pointer(text: str) -> tuple[str, ...] | None:
    """Return the reference tokens of a JSON Pointer; None where *text* is none."""
    if not _POINTER.fullmatch(text):
        return None
    return tokens_of(text)


def tokens_of(pointer: str) -> tuple[str, ...]:
    """Return the reference tokens of a valid JSON Pointer, unescaped."""
    tokens = pointer.split("/")[1:]
    return tuple(one.replace("~1", "/").replace("~0", "~") for one in tokens)


ABSENT: Final = object()
"""The result of `find_member` for a document without that member."""


def find_member(document: Any, tokens: Iterable[str]) -> Any:
    """Return the member of *document* at a JSON Pointer, or `ABSENT`."""
    value = document
    for token in tokens:
        if isinstance(value, Mapping) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token):
            if int(token) >= len(value):
                return ABSENT
            value = value[int(token)]
        else:
            return ABSENT
    return value


def find_number(document: bytes, tokens: Iterable[str]) -> Number | None:
    """Return the number at a JSON Pointer of encoded JSON, if it has its own digits.

    Only the members on the way there become objects: a document with 50,000 numbers
    would hold the event loop.

    Args:
        document: JSON without a name twice in one object.
        tokens: of the pointer.

    Returns:
        the number, such as ``1.50``; None for anything else, also for an integer.
    """
    text = document
    try:
        for token in tokens:
            if text.startswith(b"[") and _INDEX.fullmatch(token):
                text = bytes(msgspec.json.decode(text, type=list[Raw])[int(token)])
            else:
                text = bytes(msgspec.json.decode(text, type=dict[str, Raw])[token])
    except (KeyError, IndexError, msgspec.DecodeError):
        return None
    number = read_document(text) if text[:1] in _DIGITS else None
    return number if isinstance(number, Number) else None


def read_source(parameter: str, text: str, names: Collection[str]) -> Source:
    """Read where a value is found.

    Args:
        parameter: the name of the parameter or key, for an error.
        text: the file's text.
        names: the segments that the path captures.

    Raises:
        ServiceError: it names no place of a request.
    """
    form, _, rest = text.partition(":")
    is_places = parameter == DESTINATIONS and form in PLACES
    if parameter == DESTINATIONS and not is_places:
        raise ServiceError(
            f"{DESTINATIONS} is read from '{visible(text, 80)}'",
            "write domains: before the place of mail addresses, hosts: before that of"
            ' URLs, as in "domains:body:/to"',
        )
    marked: dict[str, Any] = {"counted": form == "count"}
    if is_places:
        marked = {"places": form}
    elif parameter == "requires" and form == "commit":
        marked = {"commit": True}
    kind, _, name = (rest if any(marked.values()) else text).partition(":")
    pointer = read_pointer(name) if kind == "body" else None
    if pointer is not None:
        return Source("body", pointer=pointer, **marked)
    if kind == "path" and name in names and not marked.get("counted"):
        return Source("path", name, **marked)
    if kind == "query" and name:
        return Source("query", name, **marked)
    if kind == "header" and HEADER_NAME.fullmatch(name):
        return Source("header", name.lower(), **marked)
    raise ServiceError(
        f"{visible(parameter, 60)} is read from '{visible(text, 80)}': nowhere",
        "write body:/pointer, path:NAME of the path, query:NAME or header:NAME, with"
        " count: before it for how many (not of a path)",
    )
