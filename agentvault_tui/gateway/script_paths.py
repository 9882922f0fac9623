"""Find the paths that servers of scripts may read in another path.

A server of PHP, CGI or ASP.NET may run a script and hand it the rest of the path: the
script then runs under many paths (RFC 3875 section 4.1.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
_MOST: Final = 8
"""Scripts of one path that are looked at; the first that exists runs."""

Path = tuple[str, ...]
"""Segments, folded."""


class ScriptReading(NamedTuple):
    """Another path that a server may read in a path."""

    path: Path
    places: frozenset[int] = frozenset()
    """Places of the segments that the server takes otherwise. A route with a literal
    there names this path, and not what the server may read in it."""
    named: frozenset[int] = frozenset()
    """Places that are a literal of any route that is meant."""


def script_readings(folded: Path) -> Iterator[ScriptReading]:
    """Yield other paths that a server may read in a path.

    Args:
        folded: the `fold` of each segment, a final slash left out.

    Yields:
        it without sessions of ASP.NET, as far as each script, and without a script that
        routes by the rest of the path; most paths have none of these.
    """
    if "(" in "".join(folded):
        whole = "/" + "/".join(folded)
        plain = _SESSION.sub("", whole)
        if plain != whole:
            path = tuple(plain.strip("/").split("/"))
            yield ScriptReading(path)
            yield from (ScriptReading(one.path) for one in _readings(path))
            return
    yield from _readings(folded)


def _readings(path: Path) -> Iterator[ScriptReading]:
    scripts = [n for n, one in enumerate(path) if "." in one and _SCRIPT.fullmatch(one)]
    last = len(path) - 1
    for place in scripts[:_MOST]:
        host = _OR_HOST.fullmatch(path[place]) is not None
        front = _FRONT.match(path[place]) is not None
        if place < last:
            yield ScriptReading(
                path[: place + 1],
                frozenset(range(place, last + 1)),
                frozenset({place} if host else ()),
            )
        routes = front or (place == 0 and not host)
        if routes and (place < last or (front and not last)):
            rest = (*path[:place], *path[place + 1 :]) or ("",)
            yield ScriptReading(rest, frozenset({place}))
