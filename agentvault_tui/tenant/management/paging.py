"""Auth0's two ways of paging: by offset, with totals if asked, and by checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentvault_tui.tenant.management.problems import ApiError, bad_query

_USUAL: Final = 50
_MOST: Final = 100
_REACHABLE: Final = 1000

Items = Sequence[Mapping[str, Any]]


def number(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """Return a number of the query.

    Raises:
        ApiError: it is none, or out of bounds.
    """
    said = query.get(name)
    if said is None:
        return usual
    if not said.isascii() or not said.isdigit() or len(said) > 9:
        raise bad_query(name, "Expected type integer")
    if int(said) > most:
        raise bad_query(name, f"Number must be less than or equal to {most}")
    return int(said)


def flagged(query: Mapping[str, str], name: str) -> bool:
    """Tell whether a switch of the query is on.

    Raises:
        ApiError: it is neither on nor off.
    """
    said = query.get(name, "false").lower()
    if said not in {"true", "false"}:
        raise bad_query(name, "Expected type boolean")
    return said == "true"


def by_offset(
    query: Mapping[str, str], key: str, items: Items, *, length: bool = False
) -> Any:
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
    totals: dict[str, Any] = {"total": len(items), "start": start, "limit": size}
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
) -> dict[str, Any]:
    """Return the items after ``from``; ``next`` names the last, if more come."""
    take = max(number(query, "take", usual, most), 1)
    begin = 0
    if (after := query.get("from")) is not None:
        places = [place for place, item in enumerate(items) if item[name] == after]
        # Who deletes what it reads comes back with the id of something that is gone:
        # what is left is then read from its start, and nothing is missed.
        begin = places[0] + 1 if places else 0
    shown = list(items[begin : begin + take])
    found: dict[str, Any] = {key: shown}
    if begin + take < len(items):
        found["next"] = shown[-1][name]
    return found


def either(
    query: Mapping[str, str], key: str, items: Items, *, name: str = "id"
) -> Any:
    """Page as the query asks: both ways are offered."""
    if "from" in query or "take" in query:
        return by_checkpoint(query, key, items, name=name)
    return by_offset(query, key, items)


def chosen(query: Mapping[str, str], body: Any, key: str | None = None) -> Any:
    """Keep the members that ``fields`` names, or with ``include_fields`` off drop them.

    Args:
        query: the request's.
        body: one object, a list of them, or a page that has the list under *key*.
        key: where a page has its list.
    """
    said = query.get("fields")
    if not said:
        return body
    names = set(said.split(","))
    keep = query.get("include_fields", "true").lower() != "false"
    if isinstance(body, list):
        return [_cut(item, names, keep=keep) for item in body]
    if key is not None and key in body:
        return {**body, key: [_cut(item, names, keep=keep) for item in body[key]]}
    return _cut(body, names, keep=keep)


def _cut(item: Mapping[str, Any], names: set[str], *, keep: bool) -> dict[str, Any]:
    return {name: value for name, value in item.items() if (name in names) is keep}
