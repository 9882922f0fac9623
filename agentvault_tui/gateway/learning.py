"""Draft routes for calls that no route of a service matched, for a person to finish."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.openapi import (
    METHODS,
    DraftedRoute,
    guess_scope,
    path_template,
    place_of,
    route_lines,
)
from agentvault_tui.gateway.routes import match
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.target import parse_target

_MOST_ROUTES: Final = 200
_MANY: Final = 4
"""Values at one place of otherwise equal paths, from which on they are a capture."""
_ID: Final = re.compile(
    r"[0-9]+|[0-9a-fA-F-]{12,}|(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{10,}|[^@]+@[^@]+"
)
"""The form of an id, and not of a name of a kind of things."""
_VERB: Final = re.compile("(.+)(:[A-Za-z][A-Za-z0-9]*)")
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LearnedRoute:
    """A route that would have matched calls of the past."""

    method: str
    path: str
    scope: str
    calls: int
    example: str
    """One of the paths."""


def learn_routes(
    service: Service, details: Iterable[Mapping[str, Any]]
) -> list[LearnedRoute]:
    """Draft routes for the calls of a service that none of its routes matches.

    Segments that are ids, or that differ between many calls, become captures. The scope
    is guessed by the method and the words of the path.

    Args:
        service: as its file describes it now.
        details: ``detail`` of events of calls and of refused requests.

    Returns:
        the drafts, narrower paths first; the most frequent ones if there are many.
    """
    calls: Counter[tuple[str, _Path]] = Counter()
    for method, path in _unmatched(service, details):
        calls[method, path] += 1
    varying = _varying(calls)
    entries: dict[tuple[str, str], tuple[int, str]] = {}
    for (method, path), count in calls.items():
        written = _template(method, path, varying)
        template = None if written is None else path_template(written)
        if template is None:
            continue
        entry, example = entries.get((method, template), (0, "/" + "/".join(path)))
        entries[method, template] = entry + count, example
    most = sorted(entries.items(), key=lambda one: -one[1][0])[:_MOST_ROUTES]
    drafts = [
        LearnedRoute(method, path, _scope(method, path), count, example)
        for (method, path), (count, example) in most
    ]
    return sorted(drafts, key=lambda one: place_of(_operation(one)))


def draft_text(routes: Iterable[LearnedRoute]) -> str:
    """Encode drafts as tables of a service's file."""
    head = [
        "# Drafted from calls of the last day that no route matched. Check each scope,",
        "# and add what policy reads, before you put a route into the service's file.",
    ]
    lines = (line for one in routes for line in route_lines(_operation(one)))
    return "\n".join([*head, *lines]) + "\n"


def _unmatched(
    service: Service, details: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, _Path]]:
    """Yield method and path of each call that no route of *service* matches."""
    for detail in details:
        method, path = detail.get("method"), detail.get("path")
        if detail.get("service") != service.name or not isinstance(path, str):
            continue
        if not isinstance(method, str) or method.lower() not in METHODS:
            continue
        try:
            target = parse_target(path.encode())
        except (UnreadableRequestError, UnicodeEncodeError):
            continue
        route_match = match(service, method, target)
        if route_match is None or route_match.route is None:
            yield method, target.segments


def _varying(calls: Iterable[tuple[str, _Path]]) -> set[tuple[str, int, _Path]]:
    """Return the places at which otherwise equal paths have many values."""
    values: dict[tuple[str, int, _Path], set[str]] = defaultdict(set)
    for method, path in calls:
        for at, segment in enumerate(path):
            values[_place(method, path, at)].add(segment)
    return {place for place, distinct in values.items() if len(distinct) >= _MANY}


def _place(method: str, path: _Path, at: int) -> tuple[str, int, _Path]:
    """Name a place in a path by the segments around it; ids do not count."""
    around = (*path[:at], *path[at + 1 :])
    return method, at, tuple("{}" if _ID.fullmatch(one) else one for one in around)


def _template(
    method: str, path: _Path, varying: set[tuple[str, int, _Path]]
) -> str | None:
    """Return the template of a path; None if a literal segment would be a capture."""
    parts: list[str] = []
    for at, segment in enumerate(path):
        custom = _VERB.fullmatch(segment) if at == len(path) - 1 else None
        name, verb = custom.groups() if custom else (segment, "")
        if _ID.fullmatch(name) or (at and _place(method, path, at) in varying):
            before = path[at - 1] if at else ""
            noun = re.sub(r"[^a-z0-9_]", "_", before.lower()).strip("_")
            parts.append(f"{{{noun.removesuffix('s') or 'id'}}}{verb}")
        elif "{" in segment or "}" in segment:
            return None
        else:
            parts.append(segment)
    return "/" + "/".join(parts)


def _scope(method: str, path: str) -> str:
    return guess_scope(method.lower(), path)


def _operation(one: LearnedRoute) -> DraftedRoute:
    note = f"{one.calls} calls, such as {one.method} {one.example}"
    return DraftedRoute(one.method, one.path, one.scope, {}, note)
