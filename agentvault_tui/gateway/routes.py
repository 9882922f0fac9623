"""Find the route of a request, by its method and path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from agentvault_tui.gateway.conditions import has_form
from agentvault_tui.gateway.config_folder import DENY
from agentvault_tui.gateway.path_readings import path_readings
from agentvault_tui.gateway.services import Service
from agentvault_tui.gateway.target import Target
from agentvault_tui.gateway.templates import ServiceRoute, core_length, fold
from agentvault_tui.model import Action
from agentvault_tui.policy.resources import canonical

_CAPTURE: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The route of a request, by its method and path."""

    route: ServiceRoute | None
    """None for one that no route matches and `Service.unmatched` has a scope for."""
    scope: str
    resource: str
    """In canonical form where it has one."""
    captures: dict[str, str]
    exact: bool = True
    """Whether the resource is spelt like the request, and not its canonical form."""


def match(service: Service, method: str, target: Target) -> RouteMatch | None:
    """Find the route of a request: the first whose method and path match.

    A path that an earlier route has in another spelling (case, escapes, a suffix such
    as ``.json``, a final slash) is not matched by a later one that leaves that part
    open: the upstream may take it for the earlier one. Neither is one that a server of
    scripts or of OData may read as the path of an earlier route.

    Args:
        service: the service that is called.
        method: the request's, in capitals.
        target: its path and query.

    Returns:
        the match; None when the service has no route for it.
    """
    if not (method.isascii() and method.isupper()):
        return None
    segments = target.segments
    folded = tuple(map(fold, segments[: core_length(segments)]))
    passed: list[frozenset[int]] = []
    reread = list(_reread(service, method, folded))
    for route in service.index.candidates(method, folded):
        captures = route.captures(segments)
        if captures is not None:
            if route.scope == DENY:
                return None
            fixed = {
                i for i, (text, name) in enumerate(route.segments) if text or not name
            }
            if not route.rest:
                fixed.add(core_length(segments))
            if any(not odd <= fixed for odd in passed) or any(
                fixed.isdisjoint(places) and _is_first(service, other, route)
                for other, places in reread
            ):
                return None
            resource, exact = _resource(route, service, target, captures)
            return RouteMatch(route, route.scope, resource, captures, exact)
        if (odd := route.differences(folded)) is not None:
            passed.append(odd)
    if passed or reread or service.unmatched == DENY:
        return None
    resource, exact = _resource(None, service, target, {})
    return RouteMatch(None, service.unmatched, resource, {}, exact)


def _reread(
    service: Service, method: str, folded: tuple[str, ...]
) -> Iterator[tuple[ServiceRoute, frozenset[int]]]:
    """Yield a route of each path that a server may read in another one.

    With each are the places that a route has to name, to be about that path itself.
    """
    for reading in path_readings(folded, service.index.qualified):
        for route in service.index.candidates(method, reading.path):
            literals = route.differences(reading.path)
            if literals is not None and reading.named <= literals:
                yield route, reading.places
                break


def _is_first(service: Service, one: ServiceRoute, other: ServiceRoute) -> bool:
    """Check whether the file has *one* before *other*."""
    if one is other:
        return False
    return next(r for r in service.routes if r is one or r is other) is one


def as_case(
    whole: RouteMatch, service: Service, target: Target, place: int
) -> RouteMatch:
    """Return the match of a request to which a case of its route applies.

    Args:
        whole: of the route.
        service: the service that is called.
        target: path and query of the request.
        place: of the case, from `parameters.case_of`.
    """
    assert whole.route is not None  # noqa: S101 - only a route has cases
    route = whole.route.cases[place].route
    resource, exact = _resource(route, service, target, whole.captures)
    return RouteMatch(route, route.scope, resource, whole.captures, exact)


def unstated(route_match: RouteMatch) -> tuple[str, ...]:
    """Return the parts of a request that its scope and resource do not determine."""
    if route_match.route is None or route_match.route.method == "*":
        return ("the method",)
    if not route_match.exact or not _is_split(route_match.route, route_match.captures):
        return ("this spelling of the path",)
    return ()


def other_reading(
    services: Iterable[Service], action: Action, own: object
) -> str | None:
    """Return another route that has requests of the same action.

    A person who approved only the action, and not a request, may have meant that route.

    Args:
        services: all services.
        action: the action of a call.
        own: the route of the call, if it has one; it is skipped.

    Returns:
        a part of a sentence; None if no other route has this action.
    """
    for other in services:
        unmatched = f"{other.name}:/" if other.unmatched == action.action else None
        if unmatched and (action.resource or "").startswith(unmatched):
            return f"which request of {other.name} it is"
        for route in chain.from_iterable(one.variants for one in other.routes):
            if route is not own and _may_be(route, other.name, action):
                return f"whether it is {route.method} {route.path}"
    return None


def _is_split(route: ServiceRoute, captures: Mapping[str, str]) -> bool:
    """Check whether the resource determines the captures.

    In ``{a}-{b}``, ``x-y`` and ``z`` give the same resource as ``x`` and ``y-z``.
    """
    parts = _CAPTURE.split(route.resource or "")
    pairs = zip(parts[1:-2:2], parts[2:-1:2], strict=True)
    return all(mark and mark not in captures[name] for name, mark in pairs)


def _may_be(route: ServiceRoute, service: str, action: Action) -> bool:
    """Check whether some request of a route is an action."""
    if route.scope != action.action:
        return False
    fixed = {
        name: sources[0].value
        for name, sources in route.parameters.items()
        if sources[0].kind in {"path", "constant"}
    }
    stated = action.parameters
    if not fixed.keys() <= stated.keys() <= route.parameters.keys():
        return False
    if any(
        route.parameters[name][0].kind == "constant" and stated[name] != value
        for name, value in fixed.items()
    ):
        return False
    template = route.resource
    if template is None:
        names = (f"{{{name}}}{text}" if name else text for text, name in route.segments)
        template = f"{service}:/{'/'.join(names)}"
    return has_form(action.resource or "", _CAPTURE.split(template)[::2])


def _resource(
    route: ServiceRoute | None,
    service: Service,
    target: Target,
    captures: dict[str, str],
) -> tuple[str, bool]:
    """Return the resource of a request, and whether that is its own spelling.

    If a decoded segment still has a ``%``, the resource has no canonical form and is
    unclear for policy: a service that decodes twice would read another segment.
    """
    if route is None or route.resource is None:
        resource = f"{service.name}:{as_part(target.path)}"
    else:
        parts = route.resource.split("{")
        resource = parts[0]
        for part in parts[1:]:
            name, _, text = part.partition("}")
            resource += as_part(captures[name]) + text
    form = canonical(resource) or resource
    return form, form == resource


def as_part(text: str) -> str:
    """Return a decoded text as a part of a resource."""
    return text.replace("%", "%25")
