"""Find the route of a request, by its method and path."""

from __future__ import annotations

from dataclasses import dataclass

from agentvault_tui.gateway.services import DENY, Service
from agentvault_tui.gateway.target import Target
from agentvault_tui.gateway.templates import ServiceRoute, core_length, fold
from agentvault_tui.policy.resources import canonical


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a request is, by its method and path."""

    route: ServiceRoute | None
    """None for one that no route matches and `Service.unmatched` has a scope for."""
    scope: str
    resource: str
    """In canonical form where it has one."""
    captures: dict[str, str]


def match(service: Service, method: str, target: Target) -> RouteMatch | None:
    """Find the route of a request: the first whose method and path match.

    A path that an earlier route has in another spelling (case, escapes, a suffix such
    as ``.json``, a final slash) is not matched by a later one that leaves that part
    open: the upstream may take it for the earlier one.

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
    for route in service.index.candidates(method, folded):
        captures = route.captures(segments)
        if captures is not None:
            fixed = {i for i, (_, name) in enumerate(route.segments) if not name}
            if not route.rest:
                fixed.add(core_length(segments))
            if any(not odd <= fixed for odd in passed):
                return None
            resource = _resource(route, service, target, captures)
            return RouteMatch(route, route.scope, resource, captures)
        if (odd := route.differences(folded)) is not None:
            passed.append(odd)
    if passed or service.unmatched == DENY:
        return None
    return RouteMatch(None, service.unmatched, _resource(None, service, target, {}), {})


def _resource(
    route: ServiceRoute | None,
    service: Service,
    target: Target,
    captures: dict[str, str],
) -> str:
    """Return the resource of a request.

    A segment that holds ``%`` once it is decoded has no canonical form: a service that
    decodes twice reads another one, so that policy takes the resource for unclear.
    """
    if route is None or route.resource is None:
        resource = f"{service.name}:{_once(target.path)}"
    else:
        parts = route.resource.split("{")
        resource = parts[0]
        for part in parts[1:]:
            name, _, text = part.partition("}")
            resource += _once(captures[name]) + text
    return canonical(resource) or resource


def _once(text: str) -> str:
    return text.replace("%", "%25")
