"""The members that MCP's schema names for each method; messages are built from these.

A program that ignores case in names, such as Go's ``encoding/json``, reads ``Name`` as
``name``. So a member is refused if its name folds to a known one and is spelt
differently. Members that the schema does not name are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeGuard

from agentvault_tui.encoder import to_json
from agentvault_tui.gateway.headers import TRACE_BYTES, TRACEPARENT
from agentvault_tui.gateway.mcp.errors import INVALID_PARAMS, INVALID_REQUEST, McpError
from agentvault_tui.gateway.names import alike, fold_name
from agentvault_tui.json_document import is_exact
from agentvault_tui.text import visible

PREFIX: Final = "io.modelcontextprotocol/"
"""The prefix of names that MCP reserves for itself (basic/index, ``_meta``)."""
VERSION_KEY: Final = f"{PREFIX}protocolVersion"
CAPABILITIES: Final = f"{PREFIX}clientCapabilities"
CLIENT_INFO: Final = f"{PREFIX}clientInfo"
_LOG_LEVEL: Final = f"{PREFIX}logLevel"
PROTOCOL: Final = frozenset({VERSION_KEY, CAPABILITIES, CLIENT_INFO, _LOG_LEVEL})
"""Members with which each request of the modern era describes its client."""
_RELATED_TASK: Final = f"{PREFIX}related-task"
TASKS: Final = f"{PREFIX}tasks"
"""The extension by which a call continues after its answer, beyond any revocation."""
TOP: Final = ("jsonrpc", "id", "method", "params", "result", "error")
_META: Final = (
    *("progressToken", "traceparent", "tracestate", "baggage"),
    *(VERSION_KEY, CAPABILITIES, CLIENT_INFO, _LOG_LEVEL),
    *(f"{PREFIX}subscriptionId", _RELATED_TASK),
)
_PAGE: Final = {"cursor": str}
_RETRIED: Final = {"requestState": str, "inputResponses": dict}
"""Members of a retried request, in the modern era (basic/patterns/mrtr)."""
_METHODS: Final[Mapping[str, Mapping[str, type]]] = {
    "initialize": {"protocolVersion": str, "capabilities": dict, "clientInfo": dict},
    "tools/list": _PAGE,
    "prompts/list": _PAGE,
    "resources/list": _PAGE,
    "resources/templates/list": _PAGE,
    "tools/call": {"name": str, "arguments": dict, **_RETRIED},
    "prompts/get": {"name": str, "arguments": dict, **_RETRIED},
    "resources/read": {"uri": str, **_RETRIED},
    "completion/complete": {"ref": dict, "argument": dict, "context": dict},
    "notifications/cancelled": {"requestId": object, "reason": str},
}
"""The schemas of 2026-07-28, 2025-11-25 and 2025-06-18; other methods have none."""
CALLED: Final = frozenset({"resources/read", "prompts/get", "completion/complete"})
"""Requests other than of a tool that an entry with this name permits."""
_INNER: Final[Mapping[str, tuple[str, ...]]] = {
    "ref": ("type", "name", "title", "uri"),
    "argument": ("name", "value"),
    "context": ("arguments",),
    "clientInfo": (
        *("name", "title", "version", "description", "websiteUrl", "icons"),
    ),
}
"""Members of these members. Arguments have names that the server chooses."""
_CAPABILITY: Final = (
    *("experimental", "roots", "sampling", "elicitation", "extensions", "tasks"),
)
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
MOST_VALUES: Final = 50_000
MOST_OBJECTS: Final = 10_000
"""Of a message. The event loop unpickles a message that a worker process has parsed:
10,000 lists take 4 ms."""
_LONGEST_NAME: Final = 512
"""Characters of a name that is not ASCII: to fold 50,000 takes 60 ms."""
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_NO_TRACE: Final[Mapping[str, str]] = {}


class RequestMeta(NamedTuple):
    """The members of a request's ``_meta`` that are sent."""

    members: dict[str, Any]
    """Members that the digest covers."""
    trace: Mapping[str, str] = _NO_TRACE
    """Trace context (W3C), which is not part of the call."""
    token: str | int | None = None
    """The sender's progress token; the gateway sends one of its own."""
    dropped: Sequence[str] = ()
    """Names of the members that are not sent."""


def check_names(members: Mapping[str, object], names: Iterable[str]) -> None:
    """Refuse a member whose name folds to a known one and is spelt differently.

    Raises:
        McpError: -32600.
    """
    folds = _folds(tuple(names))
    for name in members:
        if name not in folds.values() and (meant := folds.get(_fold(name))):
            text = f"the member {visible(name, 60)} is spelt {meant}"
            raise McpError(INVALID_REQUEST, text)


def check_levels(value: object) -> None:
    """Refuse names that fold alike in one object, at any depth, and too many values.

    A number that some programs round is refused too: see `json_document.is_exact`.

    Raises:
        McpError: -32602.
    """
    waiting, objects, values = [value] if _is_nest(value) else [], 0, 0
    while waiting:
        one = waiting.pop()
        objects, values = objects + 1, values + len(one)
        if objects > MOST_OBJECTS or values > MOST_VALUES:
            text = (
                f"more than {MOST_VALUES} values, or {MOST_OBJECTS} objects and lists"
            )
            raise McpError(INVALID_PARAMS, text)
        inner = one.values() if isinstance(one, dict) else one
        if not all(map(is_exact, inner)):
            text = "a number is beyond 2^53-1, which some programs round: send text"
            raise McpError(INVALID_PARAMS, text)
        waiting += filter(_is_nest, inner)
        if isinstance(one, dict):
            for name in one:
                _check_name(name)
            if len(one) > 1 and (pair := alike(one)):
                first, other = (visible(name, 60) for name in pair)
                text = f"the members {first} and {other} may be one: leave one out"
                raise McpError(INVALID_PARAMS, text)


def _is_nest(value: object) -> TypeGuard[dict[str, Any] | list[Any]]:
    return isinstance(value, dict | list)


def build_params(
    method: str, given: Mapping[str, Any], *, modern: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that are sent, and the names of those that are dropped.

    Args:
        method: of the message.
        given: its ``params``, without ``_meta``.
        modern: whether its era has retried requests (basic/patterns/mrtr).

    Raises:
        McpError: -32600 for a name in another spelling, -32602 for a wrong type.
    """
    names = _METHODS.get(method, {})
    check_names(given, (*names, "_meta", "task"))
    if method == "tools/call" and "task" in given:
        raise McpError(INVALID_PARAMS, "calls are not made as tasks here")
    sent = {}
    for name, kind in names.items():
        value = given.get(name)
        if value is None or (name in _RETRIED and not modern):
            continue
        if not isinstance(value, kind):
            raise McpError(INVALID_PARAMS, f"{name} is of the wrong type")
        sent[name] = _inner(name, value)
    dropped = [
        name
        for name, value in given.items()
        if name not in sent and (value is not None or name not in names)
    ]
    # The id of a client's request is replaced by ours.
    check_levels({n: v for n, v in sent.items() if n != "requestId"})
    return sent, dropped


def build_meta(given: Mapping[str, Any]) -> RequestMeta:
    """Return the ``_meta`` that is sent: MCP's own names, and trace context.

    Raises:
        McpError: -32600 for a name in another spelling, -32602 for a wrong type.
    """
    check_names(given, _META)
    members: dict[str, Any] = {}
    trace: dict[str, str] = {}
    dropped: list[str] = []
    for name, value in given.items():
        plain = name.removeprefix(PREFIX)
        if name == "progressToken":
            continue
        if name in {"traceparent", "tracestate"}:
            form = TRACEPARENT if name == "traceparent" else _TRACESTATE
            if isinstance(value, str) and form.fullmatch(value):
                trace[name] = value
                continue
        elif name == CAPABILITIES:
            members[name] = _capabilities(value)
            continue
        elif name == CLIENT_INFO and isinstance(value, dict):
            members[name] = _inner("clientInfo", value)
            continue
        elif name not in {plain, _RELATED_TASK} and _NAME.fullmatch(plain):
            members[name] = value
            continue
        elif name != _RELATED_TASK and _fold(name).startswith(PREFIX):
            text = f"the member {visible(name, 60)} is none of MCP's"
            raise McpError(INVALID_REQUEST, text)
        dropped.append(name)
    is_too_long = len(to_json(trace)) > TRACE_BYTES
    if "tracestate" in trace and ("traceparent" not in trace or is_too_long):
        del trace["tracestate"]
        dropped.append("tracestate")
    check_levels(members)
    return RequestMeta(members, trace, _token(given), dropped)


def _token(given: Mapping[str, Any]) -> str | int | None:
    """Return the progress token (basic/patterns/progress): a text or an integer.

    ``1.0`` and ``1e0`` are refused: programs compare them in different ways.
    """
    token = given.get("progressToken")
    if isinstance(token, bool) or not isinstance(token, str | int | None):
        raise McpError(INVALID_PARAMS, "progressToken is no text and no integer")
    return token


def _capabilities(value: object) -> dict[str, Any]:
    """Return the capabilities of a client, without tasks.

    A client may define capabilities of its own (schema, ``ClientCapabilities``).
    """
    if not isinstance(value, dict):
        raise McpError(INVALID_PARAMS, "clientCapabilities is no object")
    check_names(value, _CAPABILITY)
    offered = {name: one for name, one in value.items() if name != "tasks"}
    if isinstance(extensions := offered.get("extensions"), dict):
        offered["extensions"] = {
            name: one for name, one in extensions.items() if _fold(name) != TASKS
        }
    return offered


def _inner(name: str, value: Any) -> Any:
    if (names := _INNER.get(name)) is None:
        return value
    check_names(value, names)
    return {member: one for member, one in value.items() if member in names}


@cache
def _folds(names: tuple[str, ...]) -> dict[str, str]:
    return {fold_name(name): name for name in names}


def _fold(name: str) -> str:
    _check_name(name)
    return fold_name(name)


def _check_name(name: str) -> None:
    # NUL is where some programs end a text. What JavaScript copies by assignment takes
    # the members of __proto__ for its own (ECMA-262, B.2.2.1), and every object of a
    # shared process may get them.
    if "\0" in name or name == "__proto__":
        raise McpError(INVALID_PARAMS, f"{visible(name, 60)} is no name")
    if len(name) > _LONGEST_NAME and not name.isascii():
        text = f"a name has more than {_LONGEST_NAME} characters and is not ASCII"
        raise McpError(INVALID_PARAMS, text)
