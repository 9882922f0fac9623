"""Bodies, pages and errors of the Management API, as Auth0 has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, UnsetType, ValidationError, convert, to_builtins

from agentvault_tui import strict_json
from agentvault_tui.text import visible

BODY_CAP: Final = 262_144
"""Bytes: an Action's code alone may have 100 kB."""
_SECRET: Final = frozenset(
    ("password", "client_secret", "secrets", "code", "pem", "value")
)
_LOGGED: Final = 2000

Word = Annotated[str, Meta(min_length=1, max_length=128)]
Uri = Annotated[str, Meta(min_length=1, max_length=2000)]
Scope = Annotated[str, Meta(min_length=1, max_length=1000)]
Scopes = Annotated[list[Scope], Meta(max_length=100)]
Maybe = None | UnsetType
"""The type of a member that is null, or left out."""


def read_json(content_type: str, raw: bytes) -> object:
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
    return value


def checked(body: Any, shape: type[Struct], *needed: str) -> dict[str, Any]:
    """Return the members of *body* that *shape* knows; others are passed over.

    A null stays one: the call gives it its meaning.

    Raises:
        ApiError: 400: it is no object, a *needed* member is missing, or one is wrong.
    """
    try:
        fields: dict[str, Any] = to_builtins(convert(body, shape))
    except ValidationError as error:
        message = f"Payload validation error: '{visible(str(error), 300)}'"
        raise ApiError(400, message, "invalid_body") from None
    for name in needed:
        if fields.get(name) is None:
            why = f"Payload validation error: 'Missing required property: {name}'."
            raise ApiError(400, why, "invalid_body")
    return fields


def redacted(body: object) -> object:
    """Return *body* for the log: without secrets, and bounded."""
    shown = _without_secrets(body)
    return shown if len(json.dumps(shown)) <= _LOGGED else {"truncated": True}


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: "*****" if name in _SECRET else _without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


class ApiError(Exception):
    """A refusal, as ``{statusCode, error, message, errorCode}``."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def envelope(self) -> dict[str, object]:
        envelope = {
            "statusCode": self.status,
            "error": HTTPStatus(self.status).phrase,
            "message": self.message,
        }
        # Some of Auth0's own have none.
        return envelope if self.code is None else {**envelope, "errorCode": self.code}


def no_client() -> ApiError:
    """Return the 404 for a client there is not."""
    return ApiError(404, "The client does not exist", "inexistent_client")


def no_api() -> ApiError:
    """Return the 404 for a resource server there is not."""
    return ApiError(
        404, "The resource server does not exist", "inexistent_resource_server"
    )


def bad_query(name: str, why: str) -> ApiError:
    """Return the 400 for a query parameter."""
    message = f"Query validation error: '{why}' on property {name}."
    return ApiError(400, message, "invalid_query_string")


def bad_body(name: str, why: str) -> ApiError:
    """Return the 400 for a member of the body."""
    message = f"Payload validation error: '{why}' on property {name}."
    return ApiError(400, message, "invalid_body")


_USUAL: Final = 50
_MOST: Final = 100
_REACHABLE: Final = 1000

Items = Sequence[Mapping[str, object]]


def number(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """Return a number of the query, at most *most*."""
    value = query.get(name)
    if value is None:
        return usual
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise bad_query(name, "Expected type integer")
    if int(value) > most:
        raise bad_query(name, f"Number must be less than or equal to {most}")
    return int(value)


def flagged(query: Mapping[str, str], name: str) -> bool:
    """Check whether a switch of the query is on."""
    value = query.get(name, "false").lower()
    if value not in {"true", "false"}:
        raise bad_query(name, "Expected type boolean")
    return value == "true"


def by_offset(
    query: Mapping[str, str], key: str, items: Items, *, length: bool = False
) -> object:
    """Return the page asked for: a bare array, or with totals an object."""
    page = number(query, "page", 0, _REACHABLE)
    size = number(query, "per_page", _USUAL, _MOST)
    start = page * size
    if start >= _REACHABLE:
        raise ApiError(
            400, "You can only page through the first 1000 records.", "invalid_paging"
        )
    shown = list(items[start : start + size])
    if not flagged(query, "include_totals"):
        return shown
    totals: dict[str, object] = {"total": len(items), "start": start, "limit": size}
    if length:
        totals["length"] = len(shown)
    return {**totals, key: shown}


def by_checkpoint(
    query: Mapping[str, str],
    key: str,
    items: Items,
    *,
    name: str = "id",
    most: int = _MOST,
    usual: int = _USUAL,
) -> dict[str, object]:
    """Return the items after ``from``; ``next`` names the last, if more come."""
    take = max(number(query, "take", usual, most), 1)
    begin = 0
    if (after := query.get("from")) is not None:
        places = [place for place, item in enumerate(items) if item[name] == after]
        # Who deletes what it reads comes back with the id of something that is gone:
        # what is left is then read from its start, and nothing is missed.
        begin = places[0] + 1 if places else 0
    shown = list(items[begin : begin + take])
    page: dict[str, object] = {key: shown}
    if begin + take < len(items):
        page["next"] = shown[-1][name]
    return page


def listed(
    query: Mapping[str, str], key: str, items: Items, *, name: str = "id"
) -> object:
    """Page as the query asks, by checkpoint or offset, with the ``fields`` it names."""
    if "from" in query or "take" in query:
        return chosen(query, by_checkpoint(query, key, items, name=name), key)
    return chosen(query, by_offset(query, key, items), key)


def chosen(query: Mapping[str, str], body: Any, key: str | None = None) -> Any:
    """Return the members in ``fields``, or without ``include_fields`` the others.

    *body* is one object, a list of them, or a page that has the list under *key*.
    """
    fields = query.get("fields")
    if not fields:
        return body
    names = set(fields.split(","))
    keep = query.get("include_fields", "true").lower() != "false"

    def pick(item: Mapping[str, object]) -> dict[str, object]:
        return {name: one for name, one in item.items() if (name in names) is keep}

    if isinstance(body, list):
        return [pick(item) for item in body]
    if key is not None and key in body:
        return {**body, key: [pick(item) for item in body[key]]}
    return pick(body)
