"""Find the routes that a path may match, and those that hide a later one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentvault_tui.gateway.path_readings import qualified_names
from agentvault_tui.gateway.templates import ServiceRoute, core_length, fold

_Segment = tuple[str, str]
"""See `ServiceRoute.segments`."""
_VERB: Final = "\0"
"""No segment has it: before a custom verb, where it is a literal of the tree."""


@dataclass(slots=True)
class _Node:
    """A place in the tree of templates: the segments up to here."""

    literals: dict[str, _Node] = field(default_factory=dict)
    """By text."""
    capture: _Node | None = None
    ends: list[int] = field(default_factory=list)
    """Routes whose template ends here, by their place in the file."""
    rests: list[int] = field(default_factory=list)
    """Routes that capture the rest from here on."""


class _Tree:
    """Routes by method and by the segments of their templates."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}

    def roots(self, *methods: str) -> list[_Node]:
        """Return where the routes of these methods begin, and those of any method."""
        return [self._roots[one] for one in {*methods, "*"} if one in self._roots]

    def add(self, place: int, route: ServiceRoute, own: Iterable[_Segment]) -> None:
        """Add a route under *own*, its segments without the rest that it captures."""
        node = self._roots.setdefault(route.method, _Node())
        for text, name in own:
            if name:
                node.capture = node = node.capture or _Node()
            else:
                node = node.literals.setdefault(text, _Node())
        (node.rests if route.rest else node.ends).append(place)


class EarlierRoutes:
    """The routes before one in a file, to find those that match all that it does."""

    def __init__(self) -> None:
        """Hold no route yet."""
        self._tree = _Tree()

    def add(self, place: int, route: ServiceRoute) -> None:
        """Add a route, by its place in the file."""
        own = route.segments[: len(route.segments) - route.rest]
        literals = (
            (_VERB + text, "") if text and name else (text, name) for text, name in own
        )
        self._tree.add(place, route, literals)

    def covering(self, route: ServiceRoute) -> int | None:
        """Return the place of the first that matches every request of *route*."""
        nodes, places = self._tree.roots(route.method), set[int]()
        last = core_length(route.segments) - 1
        for index, (text, name) in enumerate(route.segments):
            places.update(place for one in nodes for place in one.rests)
            if route.rest and index == len(route.segments) - 1:
                break
            verb = index == last and ":" in text
            names = [] if name else [text]
            before, colon, custom = text.rpartition(":")
            if verb and (name or before):
                names.append(_VERB + colon + custom)
            literals = (one.literals.get(text) for one in nodes for text in names)
            # Where a colon begins a verb, a capture leaves it to other routes.
            captures = (
                one.capture
                for one in nodes
                if (name or text) and (route.colons or not verb)
            )
            nodes = [one for one in (*literals, *captures) if one is not None]
        else:
            places.update(place for one in nodes for place in one.ends)
        return min(places, default=None)


class RouteIndex:
    """Routes by method and literal segments, so that few are compared with a path.

    A route of ``GET`` is one of ``HEAD`` too, because frameworks run the same handler
    (RFC 9110 section 9.3.2). A route of ``HEAD`` alone comes before those of ``GET``
    that match all that it does.
    """

    def __init__(self, routes: Sequence[ServiceRoute]) -> None:
        """Index *routes*, whose order counts."""
        self._routes = routes
        texts = [text for route in routes for text, _ in route.segments]
        folds = {fold(text) for text in texts}
        self._longest = max(map(len, folds), default=0)
        self.qualified = qualified_names(folds)
        self._tree = _Tree()
        self._heads: dict[int, int] = {}
        """Of a route of ``HEAD`` alone, the place that it comes before."""
        gets = EarlierRoutes()
        for place, route in enumerate(routes):
            own = route.segments[: core_length(route.segments) - route.rest]
            self._tree.add(place, route, ((fold(text), name) for text, name in own))
            if route.method == "GET":
                gets.add(place, replace(route, method="HEAD"))
            elif route.method == "HEAD":
                before = gets.covering(route)
                self._heads[place] = place if before is None else before

    def candidates(self, method: str, folded: tuple[str, ...]) -> list[ServiceRoute]:
        """Return every route that a path matches in any spelling, in their order.

        Args:
            method: the request's.
            folded: the `fold` of each segment, a final slash left out.

        Returns:
            those, and some that it does not match.
        """
        nodes = self._tree.roots(method, *(["GET"] if method == "HEAD" else []))
        matches = {place for one in nodes for place in one.rests}
        for segment in folded:
            names = self._names(segment)
            inner = [
                *(one.literals[n] for one in nodes for n in names if n in one.literals),
                *(one.capture for one in nodes if one.capture is not None),
            ]
            matches.update(place for one in inner for place in one.rests)
            nodes = inner
            if not nodes:
                break  # an agent chooses how many segments follow
        matches.update(place for one in nodes for place in one.ends)
        return [self._routes[place] for place in sorted(matches, key=self._order)]

    def _order(self, place: int) -> tuple[int, bool, int]:
        return self._heads.get(place, place), place not in self._heads, place

    def _names(self, segment: str) -> list[str]:
        """Return the literals that a segment reads like: itself, or before a dot."""
        names = [segment]
        place = segment.find(".")
        while 0 <= place <= self._longest:
            names.append(segment[:place])
            place = segment.find(".", place + 1)
        return names
