"""The index of routes: it leaves none out, and finds those that never match."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.gateway.route_index import EarlierRoutes, RouteIndex
from agentvault_tui.gateway.templates import (
    RouteDefaults,
    RouteTable,
    ServiceRoute,
    core_length,
    fold,
    parse_route,
)
from agentvault_tui.policy import shipped_catalogue

SEGMENTS = st.sampled_from(["a", "A", "a.json", "b", "{}", "{}:v", "b:v", "{*}", ""])


@pytest.mark.slow
@given(
    st.booleans(),
    st.lists(st.lists(SEGMENTS, min_size=1, max_size=4), max_size=6),
    st.lists(
        st.sampled_from(["a", "A", "a.json", "b", "c", "c:v", "c:V", ""]),
        min_size=1,
        max_size=5,
    ),
)
def test_the_index_leaves_no_route_out(
    colons: bool, templates: list[list[str]], segments: list[str]
) -> None:
    """What is not compared with a path is matched by it in no spelling."""
    routes = parsed(templates, colons=colons)
    path = (*(part for part in segments[:-1] if part), segments[-1])
    folded = tuple(map(fold, path[: core_length(path)]))
    found = RouteIndex(routes).candidates("GET", folded)
    for route in routes:
        matched = route.captures(path) is not None
        if matched or route.differences(folded) is not None:
            assert route in found
    places = [[one is route for one in routes].index(True) for route in found]
    assert places == sorted(places)


def parsed(templates: list[list[str]], *, colons: bool) -> list[ServiceRoute]:
    """Return routes of these segments, where ``{}`` captures one, ``{*}`` the rest."""
    routes = []
    for template in templates:
        parts = [p for n, p in enumerate(template) if p or n == len(template) - 1]
        last = len(parts) - 1
        parts = [
            p.replace("{", f"{{x{n}")
            if n == last
            else p.replace("{*}", "{}").partition(":")[0].replace("{", f"{{x{n}")
            for n, p in enumerate(parts)
        ]
        table = RouteTable(method="GET", path="/" + "/".join(parts), scope="read:files")
        defaults = RouteDefaults(colons=colons)
        routes.append(parse_route(table, shipped_catalogue(), defaults))
    return routes


PATHS = [
    (*inner, last)
    for length in range(4)
    for inner in itertools.product("abc", repeat=length)
    for last in ("a", "b", "c", "a:v", "b:v", "c:w", "")
]


@given(
    st.booleans(),
    st.lists(
        st.lists(
            st.sampled_from(["a", "b", "{}", "{}:v", "b:v", "{*}", ""]),
            min_size=1,
            max_size=3,
        ),
        min_size=2,
        max_size=5,
    ),
)
def test_a_route_that_can_never_match_is_found(
    colons: bool, templates: list[list[str]]
) -> None:
    """The first earlier route that matches all its requests is named, and no other."""
    *routes, last = parsed(templates, colons=colons)
    earlier = EarlierRoutes()
    for place, route in enumerate(routes):
        earlier.add(place, route)
    matched = [path for path in PATHS if last.captures(path) is not None]
    covering = [
        place
        for place, route in enumerate(routes)
        if all(route.captures(path) is not None for path in matched)
    ]
    assert earlier.covering(last) == min(covering, default=None)
