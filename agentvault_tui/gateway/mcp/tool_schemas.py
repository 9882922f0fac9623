"""The input schemas of a server's tools: the arguments that a tool declares.

Only ``properties``, ``items`` and ``additionalProperties: false`` are read (JSON
Schema 2020-12, core sections 10.3.1 and 10.3.2). An object with ``$ref`` or
``patternProperties``, or one that ``anyOf`` and the like describe, counts as open: its
members are sent, shown and covered by the digest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeGuard

import msgspec

from agentvault_tui.clock import Clock
from agentvault_tui.gateway.body import read_apart
from agentvault_tui.gateway.counting import inner_document
from agentvault_tui.gateway.mcp.errors import INVALID_PARAMS, McpError, SessionGoneError
from agentvault_tui.gateway.mcp.messages import (
    PARAMETER,
    Envelope,
    member_of,
    mismatch,
    read_answer,
)
from agentvault_tui.gateway.sources import find_member
from agentvault_tui.model import AgentId
from agentvault_tui.text import visible
from agentvault_tui.web.reply import Header, decode_header, encode_header
from agentvault_tui.web.service_connection import UpstreamError

AGE_S: Final = 60.0
"""Seconds after which a server's list is requested again."""
WAIT_S: Final = 5.0
"""Seconds that a call waits for the list; after that the cached one counts, or none."""
_MOST_PAGES: Final = 20
MOST_TOOLS: Final = 2_000
"""Of one page; further ones are not shown."""
_MOST_MEMBERS: Final = 20_000
"""Members of the schemas of one page; a schema beyond them counts as open.
The event loop waits while these are copied from a worker process."""
_MOST_LISTS: Final = 1_000
"""Lists that are cached: one for each server, era and, by URL, agent."""
_QUICK: Final = 4
"""A list is parsed as fast as a body of a quarter of its size."""
_DEPTH: Final = 32
_ANNOTATION: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_ELSEWHERE: Final = frozenset(
    ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
)
"""Keywords whose schemas may declare further members of the same object."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,32}(?:\.[0-9]{1,32})?")

_UNREADABLE: Final = (
    *(UpstreamError, McpError, SessionGoneError, TimeoutError, ValueError),
)
Path = tuple[str, ...]
Page = Callable[[str | None], Awaitable[Envelope]]
"""Requests a page of the server's tools, after a cursor."""


class ArgumentShape(NamedTuple):
    """The members that a schema declares for a value."""

    members: Mapping[str, ArgumentShape]
    closed: bool
    """Whether it allows no other members."""
    items: ArgumentShape | None
    complete: bool
    """Whether *members* are all that the tool reads, also if it allows others."""


_OPEN: Final = ArgumentShape({}, closed=False, items=None, complete=False)


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """The input schema of one tool."""

    shape: ArgumentShape
    headers: Mapping[bytes, Path]
    """By header: the path of the argument that it repeats."""

    def check(self, arguments: Mapping[str, Any], paths: Iterable[Path] = ()) -> None:
        """Refuse arguments that a closed schema does not declare.

        A text where it declares an object or a list is read as the server may do.

        Args:
            arguments: of the call.
            paths: of the arguments that the action is read from. An open schema must
                declare them, too: the tool would act on others.

        Raises:
            McpError: -32602.
        """
        for path in paths:
            self._check_path(arguments, path)
        waiting: list[tuple[ArgumentShape, Any, str]] = [(self.shape, arguments, "")]
        while waiting:
            shape, value, where = waiting.pop()
            if isinstance(value, str) and shape != _OPEN:
                try:
                    value = inner_document(value)
                except ValueError as error:
                    raise McpError(INVALID_PARAMS, str(error)) from None
            if isinstance(value, dict):
                for name, one in value.items():
                    inner = shape.members.get(name)
                    if inner is not None:
                        waiting.append((inner, one, f"{where}/{name}"))
                    elif shape.closed:
                        raise _undeclared(f"{where}/{name}")
            elif isinstance(value, list) and shape.items is not None:
                waiting += [(shape.items, one, where) for one in value]

    def _check_path(self, arguments: Mapping[str, Any], path: Path) -> None:
        """Refuse an argument on *path* that the tool does not read.

        Raises:
            McpError: -32602.
        """
        shape = self.shape
        for depth, name in enumerate(path):
            value = find_member(arguments, path[:depth])
            if isinstance(value, list):
                shape = shape.items or _OPEN
            elif not isinstance(value, dict) or name not in value:
                return
            elif shape.complete and name not in shape.members:
                raise _undeclared("/" + "/".join(path[: depth + 1]))
            else:
                shape = shape.members.get(name, _OPEN)

    def check_headers(
        self, headers: Sequence[Header], arguments: Mapping[str, Any]
    ) -> None:
        """Compare each ``Mcp-Param-*`` with the argument that it names.

        Raises:
            McpError: -32020; one names no argument, comes twice, or differs.
        """
        seen = set()
        for header, raw in headers:
            if not header.startswith(PARAMETER):
                continue
            shown, given = visible(header.decode("latin-1"), 80), decode_header(raw)
            path = self.headers.get(header)
            if path is None or header in seen:
                raise mismatch(shown, given, "no such argument")
            seen.add(header)
            value = _text(_at(arguments, path))
            if given is None or value is None or not _is_same(given, value):
                raise mismatch(shown, given, value)

    def headers_for(self, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the headers that repeat *arguments*."""
        values = ((h, _text(_at(arguments, path))) for h, path in self.headers.items())
        return [(h.decode(), encode_header(v)) for h, v in values if v is not None]


@dataclass(slots=True)
class ToolList:
    """The tools of one server, as it last listed them."""

    tools: dict[str, ToolSchema] = field(default_factory=dict)
    read_at: float | None = None
    """In seconds since boot; None if it has to be requested."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class ToolLists:
    """A cache of the servers' lists of tools, which are requested when needed."""

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        self._lists: dict[object, ToolList] = {}

    async def schema(
        self, key: object, agent_id: AgentId, tool: str, ask: Page
    ) -> ToolSchema | None:
        """Return the schema of a *tool*; None if it is not available.

        Args:
            key: of the list; differs between servers.
            agent_id: the agent that makes the call.
            tool: the tool's name.
            ask: requests a page from the server.

        Raises:
            CallRefusedError: the agent is revoked, or has too many pending requests.
        """
        cached = self._lists.get(key)
        if cached is None:
            if len(self._lists) >= _MOST_LISTS:
                self._lists.pop(next(iter(self._lists)))
            cached = self._lists[key] = ToolList()
        async with cached.asking:
            now = self._clock.boot()
            if cached.read_at is None or now - cached.read_at >= AGE_S:
                cached.read_at = now
                try:
                    async with asyncio.timeout(WAIT_S):
                        cached.tools = await _read_all(agent_id, ask)
                except _UNREADABLE:
                    pass  # the last list that could be read counts
                except BaseException:
                    cached.read_at = None
                    raise
        return cached.tools.get(tool)

    async def note(self, key: object, agent_id: AgentId, result: bytes) -> None:
        """Cache the schemas of a page that the server sent to a client."""
        if (cached := self._lists.get(key)) is not None:
            page, _ = await _read_page(agent_id, result)
            if len(cached.tools) + len(page) <= MOST_TOOLS:
                cached.tools = cached.tools | page

    def changed(self, server: str) -> None:
        """Request a server's changed list again before its next call."""
        for key, cached in self._lists.items():
            if isinstance(key, tuple) and key[0] == server:
                cached.read_at = None


async def _read_all(agent_id: AgentId, ask: Page) -> dict[str, ToolSchema]:
    schemas: dict[str, ToolSchema] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        answered = await ask(cursor)
        if "result" not in answered:
            break
        result = bytes(answered["result"])
        page, cursor = await _read_page(agent_id, result)
        schemas |= page
        if cursor is None or len(schemas) >= MOST_TOOLS:
            return schemas
    raise ValueError("the list of tools is not available")


async def _read_page(
    agent_id: AgentId, result: bytes
) -> tuple[dict[str, ToolSchema], str | None]:
    """Return the tools of a page, and the cursor after which the next one is."""
    return await read_apart(agent_id, len(result) // _QUICK, read_page, result)


def read_page(result: bytes) -> tuple[dict[str, ToolSchema], str | None]:
    """Return the tools of a page, and the cursor after which the next one is.

    Raises:
        ValueError: it is no list of tools.
    """
    members = read_answer(result)
    try:
        tools = msgspec.json.decode(members.get("tools", b"[]"), type=list[Envelope])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("it is no list of tools") from error
    schemas, left = {}, _MOST_MEMBERS
    for tool in tools[:MOST_TOOLS]:
        name = member_of(tool, "name", str)
        if name is None:
            continue
        written = bytes(tool.get("inputSchema", b"{}"))
        left -= written.count(b":")
        try:
            schema = msgspec.json.decode(written) if left >= 0 else None
        except (msgspec.DecodeError, RecursionError):
            schema = None
        schemas[name] = read_schema(schema)
    return schemas, member_of(members, "nextCursor", str)


def _undeclared(pointer: str) -> McpError:
    text = f"the tool declares no argument {visible(pointer, 120)}"
    return McpError(INVALID_PARAMS, text)


def read_schema(schema: object) -> ToolSchema:
    """Read an ``inputSchema``; one that is no object is open."""
    headers: dict[bytes, Path] = {}
    for name, path in _annotated(schema):
        key = PARAMETER + name.lower().encode() if _is_token(name) else b""
        if not key or key in headers:
            headers = {}  # clients ignore such a tool (transports, x-mcp-header)
            break
        headers[key] = path
    return ToolSchema(_shape(schema, _DEPTH), headers)


def _shape(schema: object, depth: int) -> ArgumentShape:
    if not isinstance(schema, dict) or depth == 0:
        return _OPEN
    properties, items = schema.get("properties", {}), schema.get("items")
    readable = (
        isinstance(properties, dict)
        and not {
            *("$ref", "$dynamicRef", "$recursiveRef", "patternProperties"),
        }
        & schema.keys()
    )
    members = properties.items() if readable else ()
    other = schema.get("additionalProperties", False)
    shape = ArgumentShape(
        {name: _shape(one, depth - 1) for name, one in members},
        closed=readable and schema.get("additionalProperties") is False,
        items=_shape(items, depth - 1) if isinstance(items, dict) else None,
        # A tool that declares none, and takes others, reads those.
        complete=readable
        and "properties" in schema
        and bool(properties or other is False)
        and _ELSEWHERE.isdisjoint(schema),
    )
    return _OPEN if shape == _OPEN else shape  # one object is copied once


def _annotated(schema: object) -> list[tuple[object, Path]]:
    """Return the annotations on a chain of ``properties``, each with its path."""
    annotated: list[tuple[object, Path]] = []
    waiting: list[tuple[object, Path]] = [(schema, ())]
    while waiting:
        one, path = waiting.pop()
        if not isinstance(one, dict):
            continue
        if path and _ANNOTATION in one:
            annotated.append((one[_ANNOTATION], path))
        properties = one.get("properties")
        if isinstance(properties, dict) and len(path) < _DEPTH:
            waiting += [(inner, (*path, name)) for name, inner in properties.items()]
    return annotated


def _is_token(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None


def _at(arguments: Mapping[str, Any], path: Path) -> object:
    value: object = arguments
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: object) -> str | None:
    """Return a value as a header writes it; None if no header can."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
    return None


def _is_same(given: str, value: str) -> bool:
    """Check whether a header has a value; numbers are compared as such."""
    if _NUMBER.fullmatch(given) and _NUMBER.fullmatch(value):
        return Decimal(given) == Decimal(value)
    return given == value
