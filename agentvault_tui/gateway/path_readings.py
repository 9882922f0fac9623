"""Find the other paths that some servers read in a path.

A server of PHP, CGI or ASP.NET may run a script and hand it the rest of the path: the
script then runs under many paths (RFC 3875 section 4.1.5). A server of OData reads
``Orders(42)`` as ``Orders/42``, and an action with and without its namespace (URL
Conventions of OData 4.01, sections 4.3 and 4.5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

_SCRIPT: Final = re.compile(
    r".*\.(?:php[0-9]?|phtml|f?cgi|aspx?|ashx|asmx|svc|axd|jspx?|cfm|pl)\.*"
)
_OR_HOST: Final = re.compile(r".*\.pl\.*")
"""A script of Perl, or a host of Poland."""
_FRONT: Final = re.compile(r"(?:index|app|default)[._-].*")
"""A script that routes by the rest of the path, in any folder; a script of another name
does so in the first place of a path."""
_SESSION: Final = re.compile(r"/\((?:[a-z]\([^()/]*\))+\)")
"""ASP.NET takes it out of a path, wherever it is: ``/(S(x))/a``, ``/a/(S(x))``."""
_KEYED: Final = re.compile(r"([^()]*)\(([^()]*)\)")
"""An entity of OData by its key, or a function with its arguments."""
_VIEWS: Final = frozenset({"$value", "$count", "$ref", "$query", "$each", "$all"})
"""An action or a deletion before one of these runs, though only its answer differs."""
_QUALIFIED: Final = re.compile(r"(?:[a-z_]\w*\.)+([a-z_]\w*)")
"""An action of OData with its namespace."""
_ENDINGS: Final = frozenset(
    "css csv git gif htm html js json md pdf png txt xml zip".split()  # noqa: SIM905
)
"""Of files, and no names of actions."""
_MOST: Final = 8
"""Scripts of one path that are looked at, of which the first that exists runs, and
names of actions."""

Path = tuple[str, ...]
"""Segments, folded."""


class PathReading(NamedTuple):
    """Another path that a server may read in a path."""

    path: Path
    places: frozenset[int] = frozenset()
    """Places of the segments that the server takes otherwise. A route with a literal
    there names this path, and not what the server may read in it."""
    named: frozenset[int] = frozenset()
    """Places that are a literal of any route that is meant."""


def qualified_names(literals: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the literals of routes that may be actions, by their last names."""
    qualified: dict[str, tuple[str, ...]] = {}
    for one in sorted(literals):
        for last in _short(one):
            qualified[last] = (*qualified.get(last, ()), one)
    return qualified


def path_readings(
    folded: Path, qualified: Mapping[str, tuple[str, ...]]
) -> Iterator[PathReading]:
    """Yield other paths that a server may read in a path.

    Args:
        folded: the `fold` of each segment, a final slash left out.
        qualified: from `qualified_names`, of the service's routes.

    Yields:
        it without sessions of ASP.NET, as far as each script, and without a script that
        routes by the rest of the path; with keys in parentheses as segments, without
        ``$value`` at its end, and with actions of either name; most paths have none of
        these.
    """
    yield from _odata_readings(folded, qualified)
    if "(" in "".join(folded):
        whole = "/" + "/".join(folded)
        plain = _SESSION.sub("", whole)
        if plain != whole:
            path = tuple(plain.strip("/").split("/"))
            yield PathReading(path)
            yield from (PathReading(one.path) for one in _readings(path))
            return
    yield from _readings(folded)


def _odata_readings(
    folded: Path, qualified: Mapping[str, tuple[str, ...]]
) -> Iterator[PathReading]:
    path: list[str] = []
    end = len(folded)
    while end and folded[end - 1] in _VIEWS:
        end -= 1
    keyed = {*range(end, len(folded))}
    for place, one in enumerate(folded[:end]):
        entity = _KEYED.fullmatch(one) if one.endswith(")") else None
        if entity is None:
            path.append(one)
            continue
        keyed.add(place)
        keys = (part.rpartition("=")[2].strip(" '") for part in entity[2].split(","))
        path += filter(None, (entity[1].strip(), *keys))
    if keyed:
        yield PathReading(tuple(path), frozenset(keyed))
    named = [n for n, one in enumerate(path) if "." in one or one in qualified]
    for place in named[-_MOST:]:
        places = frozenset(keyed or {place})
        for name in (*_short(path[place]), *qualified.get(path[place], ())):
            yield PathReading((*path[:place], name, *path[place + 1 :]), places)


def _short(name: str) -> list[str]:
    """Return the last name of an action with a namespace; nothing of another name."""
    action = _QUALIFIED.fullmatch(name)
    return [] if action is None or action[1] in _ENDINGS else [action[1]]


def _readings(path: Path) -> Iterator[PathReading]:
    scripts = [n for n, one in enumerate(path) if "." in one and _SCRIPT.fullmatch(one)]
    last = len(path) - 1
    for place in scripts[:_MOST]:
        host = _OR_HOST.fullmatch(path[place]) is not None
        front = _FRONT.match(path[place]) is not None
        if place < last:
            yield PathReading(
                path[: place + 1],
                frozenset(range(place, last + 1)),
                frozenset({place} if host else ()),
            )
        routes = front or (place == 0 and not host)
        if routes and (place < last or (front and not last)):
            rest = (*path[:place], *path[place + 1 :]) or ("",)
            yield PathReading(rest, frozenset({place}))
