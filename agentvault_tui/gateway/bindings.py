"""The documents that a request names, and that an approval of it is about.

A request such as "send the draft 17" says nothing of the draft. Its route binds the
document: the person who decides is shown it, and its SHA-256 is part of the request.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway.sources import (
    ABSENT,
    Source,
    find_member,
    read_pointer,
    read_source,
)
from agentvault_tui.gateway.target import Target, parse_target
from agentvault_tui.json_document import encode_document, read_document
from agentvault_tui.text import visible

MOST: Final = 4
"""Bindings of one route: each is fetched twice for each approval."""
_NAME: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")
_ID: Final = "id"


class BindingTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One entry of ``binds`` of a route, as a file has it."""

    get: str
    id: str | None = None
    members: list[str] = []


@dataclass(frozen=True, slots=True)
class Binding:
    """A document that a request names."""

    get: str
    """Path and query of the document; ``{x}`` is a whole segment or query value."""
    target: Target
    """The same, with the names in braces."""
    id: Source | None
    """Where the request has the value of ``{id}``; None: the path captures all."""
    members: tuple[tuple[str, ...], ...] = ()
    """JSON Pointers of the members that count; none: the whole document."""

    def resolve(self, captures: Mapping[str, str], bound_id: str | None) -> Target:
        """Return the document's URL for one request.

        Args:
            captures: the segments of the request's path.
            bound_id: the value of ``{id}``.

        Raises:
            UnreadableRequestError: ``bad_path``, a value is no one segment of a path.
        """
        values = {**captures, **({} if bound_id is None else {_ID: bound_id})}

        def filled(text: str) -> str:
            name = _NAME.fullmatch(text)
            return text if name is None else _segment(values[name[1]])

        path = tuple(map(filled, self.target.segments))
        query = tuple((name, filled(value)) for name, value in self.target.query)
        # The same rules as for an agent's own target, above all its length.
        if parse_target(Target(path, query).encoded.encode()) != Target(path, query):
            raise _bad_id()
        return Target(path, query)


class Selected(NamedTuple):
    """The part of a document that counts."""

    content: bytes
    is_json: bool


def parse_binding(
    table: BindingTable, captures: Collection[str], rest: str | None
) -> Binding:
    """Check one binding of a route.

    Args:
        table: as the file has it.
        captures: the names that the route's path captures.
        rest: the one of them that captures the rest of the path, if any does.

    Raises:
        ServiceError: with the fault.
    """
    raw = _NAME.sub(lambda one: f"%7B{one[1]}%7D", table.get)
    try:
        target = parse_target(raw.encode("utf-8"))
    except UnreadableRequestError as error:
        raise ServiceError(f"binds: get is no path: {error.what}") from None
    texts = [*target.segments, *(value for _, value in target.query)]
    names = {match[1] for one in texts if (match := _NAME.fullmatch(one))}
    if len(_NAME.findall(table.get)) != sum(bool(_NAME.fullmatch(t)) for t in texts):
        raise ServiceError(
            "binds: {x} in get is a whole segment or the whole value of a query"
        )
    captured = (set(captures) - {rest}) | ({_ID} if table.id is not None else set())
    if unknown := sorted(names - captured):
        raise ServiceError(
            f"binds: get names {{{visible(unknown[0], 60)}}}, which is no segment of"
            " the path",
            'add id = "body:/POINTER" for {id}; the others are captured by the path',
        )
    if table.id is not None and (_ID not in names or _ID in captures):
        raise ServiceError("binds: id is for {id} in get, which the path has not")
    members = [(one, read_pointer(one)) for one in table.members]
    for text, pointer in members:
        if pointer is None:
            raise ServiceError(f"binds: {visible(text, 60)} is no JSON Pointer")
    source = None if table.id is None else read_source("binds", table.id, captures)
    if source is not None and source.counted:
        raise ServiceError("binds: id is one value, not a count")
    pointers = tuple(pointer for _, pointer in members if pointer is not None)
    return Binding(table.get, target, source, pointers)


def selected(content: bytes, members: tuple[tuple[str, ...], ...]) -> Selected:
    """Return the part of a document that counts: its SHA-256 is under the digest.

    Args:
        content: the document.
        members: of the binding.

    Returns:
        an object of the *members* at their places, as compact JSON, in which tokens of
        pointers are names; without them the whole document, byte for byte.

    Raises:
        ValueError: the document is no JSON, or lacks a member.
    """
    if not members:
        try:
            read_document(content)
        except ValueError:
            return Selected(content, is_json=False)
        return Selected(content, is_json=True)
    document = read_document(content)
    picked: dict[str, object] = {}
    for pointer in members:
        member = find_member(document, pointer)
        if member is ABSENT:
            raise ValueError("a member is missing")
        if any(pointer[:length] in members for length in range(1, len(pointer))):
            continue  # a member around it counts
        place: Any = picked
        for token in pointer[:-1]:
            place = place.setdefault(token, {})
        place[pointer[-1]] = member
    return Selected(encode_document(picked), is_json=True)


def _segment(value: str) -> str:
    """Return a value that is one segment of a path, by any decoder.

    Raises:
        UnreadableRequestError: ``bad_path``.
    """
    if value in {"", ".", ".."} or any(one in value for one in "/\\%;?#"):
        raise _bad_id()
    return value


def _bad_id() -> UnreadableRequestError:
    text = "the id of the document that this request names is no one segment of a path"
    return UnreadableRequestError("bad_path", text)
