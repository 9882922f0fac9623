"""Management bodies: read strictly as JSON, checked member by member."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, UnsetType, ValidationError, convert, to_builtins

from agentvault_tui import strict_json
from agentvault_tui.tenant.management.problems import ApiError
from agentvault_tui.text import visible

BODY_CAP: Final = 262_144
"""Bytes: an Action's code alone may have 100 kB."""
_DEPTH: Final = 12
_VALUES: Final = 8192
_SECRET: Final = frozenset(
    ("password", "client_secret", "secrets", "code", "pem", "value")
)
_LOGGED: Final = 2000

Word = Annotated[str, Meta(min_length=1, max_length=128)]
Uri = Annotated[str, Meta(min_length=1, max_length=2000)]
Scope = Annotated[str, Meta(min_length=1, max_length=1000)]
Scopes = Annotated[list[Scope], Meta(max_length=100)]
Maybe = None | UnsetType
"""What a member that is null, or left out, is beside its type."""


def read_json(content_type: str, raw: bytes) -> Any:
    """Read a body; an empty one is an empty object.

    Raises:
        ApiError: it is not JSON that all read alike.
    """
    if not raw:
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "Unsupported Media Type", "invalid_content_type")
    try:
        value = strict_json.loads(raw)
    except ValueError:
        raise ApiError(400, "Invalid request payload JSON format", None) from None
    _bounded(value)
    return value


def checked(body: Any, shape: type[Struct], *needed: str) -> dict[str, Any]:
    """Return the members of *body* that *shape* knows; others are passed over.

    A null stays one: what it means is the call's to know.

    Raises:
        ApiError: 400: it is no object, a *needed* member is missing, or one is wrong.
    """
    try:
        known: dict[str, Any] = to_builtins(convert(body, shape))
    except ValidationError as error:
        said = f"Payload validation error: '{visible(str(error), 300)}'"
        raise ApiError(400, said, "invalid_body") from None
    for name in needed:
        if known.get(name) is None:
            why = f"Payload validation error: 'Missing required property: {name}'."
            raise ApiError(400, why, "invalid_body")
    return known


def redacted(body: Any) -> Any:
    """Return *body* for the log: without secrets, and not at any length."""
    shown = _without_secrets(body)
    return shown if len(json.dumps(shown)) <= _LOGGED else {"truncated": True}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "*****" if name in _SECRET else _without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _bounded(value: Any) -> None:
    level, depth, count = [value], 0, 0
    while level:
        count += len(level)
        depth += 1
        if depth > _DEPTH or count > _VALUES:
            raise ApiError(400, "The payload is too deep or too large.", "invalid_body")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner
