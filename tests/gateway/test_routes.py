"""Routes: which action a real request is, and what policy may know of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service_files import TRANSFERS
from support.service_requests import JSON, action_of

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import RouteMatch, Service, match, parse_target
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.templates import (
    EarlierRoutes,
    RouteIndex,
    RouteTable,
    ServiceRoute,
    core_length,
    fold,
    parse_route,
)
from agentvault_tui.policy import shipped_catalogue

Parse = Callable[[str], Service]
STRIPE = f"""
unmatched = "read:records"
{TRANSFERS}recipients = "count:body:/to"
[[routes]]
method = "GET"
path = "/v1/{{rest*}}"
scope = "read:payments"
"""


def found(service: Service, method: str, path: str) -> RouteMatch | None:
    return match(service, method, parse_target(path.encode()))


def test_the_first_route_counts(parse: Parse) -> None:
    """A request is of the first route whose method and path it matches."""
    service = parse(STRIPE)
    pay = found(service, "POST", "/v1/transfers/acct_42")
    assert pay is not None
    assert (pay.scope, pay.resource) == ("send:payment", "stripe:acct_42")
    read = found(service, "GET", "/v1/transfers/acct_42")
    assert read is not None
    assert (read.scope, read.resource) == ("read:payments", "api:/v1/transfers/acct_42")
    assert read.captures == {"rest": "transfers/acct_42"}


def test_unmatched_requests_are_denied_or_of_one_scope(parse: Parse) -> None:
    """Without a route a request is none, or of the unmatched scope on NAME:PATH."""
    other = found(parse(STRIPE), "PUT", "/v2/caf%C3%A9/?x=1")
    assert other is not None
    assert other.route is None
    assert (other.scope, other.resource) == ("read:records", "api:/v2/café/")
    assert found(parse(""), "GET", "/v2") is None


@pytest.mark.parametrize(
    "path",
    [
        "/V1/transfers/a",
        "/v1/TRANSFERS/a",
        "/v1/transfers/a/",
        "/v1/transfers.json/a",
        "/v1/%74ransfers%20/a",
        "/v1/%2574ransfers/a",
        "/v1/transfer%EF%BD%93/a",
        "/v1/transfers%3Bv=1/a",
        "/v1/transfers%253B/a",
        "/v1/transfers%3Fx=1/a",
        "/v1/transfers%2523/a",
    ],
)
def test_another_spelling_of_a_route_is_no_milder_request(
    parse: Parse, path: str
) -> None:
    """What a lenient upstream takes for a payment is not the unmatched scope's."""
    assert found(parse(STRIPE), "POST", path) is None


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/transfers/a", "send:payment"),
        ("/v1/reports/a", "read:records"),
        ("/v1/TRANSFERS/a", None),
        ("/v1/transfers.json/a", None),
        ("/v1/transfers%3Bv=1/a", None),
        ("/v1/transfers/a/", None),
        ("/V1/transfers/a", None),
    ],
)
@pytest.mark.parametrize("later", ["/v1/{rest*}", "/v1/transfers/{rest*}", "/{all*}"])
def test_a_wide_route_takes_no_other_spelling_of_an_earlier_one(
    parse: Parse, later: str, path: str, scope: str | None
) -> None:
    """An upstream may take it for the earlier route's, whose action it would be."""
    service = parse(
        TRANSFERS
        + f'[[routes]]\nmethod = "POST"\npath = "{later}"\nscope = "read:records"\n'
    )
    one = found(service, "POST", path)
    matches = scope != "read:records" or "transfers" not in later
    assert (one and one.scope) == (scope if matches else None)


@pytest.mark.parametrize("path", ["/files", "/FILES", "/f%C4%B1les/x", "/F%C4%B0LES"])
@pytest.mark.parametrize("wide", ["/{all*}", "/{one}", None])
def test_a_route_of_the_rest_of_a_path_is_meant_without_its_slash_too(
    parse: Parse, path: str, wide: str | None
) -> None:
    """A router that is not strict takes both paths for one, and i without a dot."""
    first = (
        '[[routes]]\nmethod = "POST"\npath = "/files/{p*}"\nscope = "delete:files"\n'
    )
    wider = f'[[routes]]\nmethod = "*"\npath = "{wide}"\nscope = "read:records"\n'
    head = "" if wide else 'unmatched = "read:records"\n'
    service = parse(head + first + (wider if wide else ""))
    assert found(service, "POST", path) is None
    own = parse(
        first + '[[routes]]\nmethod = "*"\npath = "/files"\nscope = "read:files"\n'
    )
    named = found(own, "POST", "/files")
    assert named is not None
    assert named.scope == "read:files"


@pytest.mark.parametrize("file", [STRIPE, 'unmatched = "read:records"'])
def test_a_resource_has_one_spelling(parse: Parse, file: str) -> None:
    """A rule about it compares characters: one composed in two ways is the same."""
    paths = ("/v1/transfers/caf%C3%A9", "/v1/transfers/cafe%CC%81")
    composed, apart = (found(parse(file), "POST", path) for path in paths)
    assert composed is not None
    assert apart is not None
    assert composed.resource == apart.resource
    assert composed.resource.endswith("caf\u00e9")


def test_spellings_that_the_file_names_are_told_apart(parse: Parse) -> None:
    """Two routes that differ in case alone are both reached."""
    service = parse(
        '[[routes]]\nmethod = "GET"\npath = "/Users/{id}"\nscope = "read:contacts"\n'
        '[[routes]]\nmethod = "GET"\npath = "/users/{id}"\nscope = "read:email"\n'
        '[[routes]]\nmethod = "GET"\npath = "/users/{id}/"\nscope = "read:files"\n'
    )
    scopes = [found(service, "GET", p) for p in ("/Users/1", "/users/1", "/users/1/")]
    assert [one and one.scope for one in scopes] == [
        "read:contacts",
        "read:email",
        "read:files",
    ]


@pytest.mark.parametrize("method", ["post", "POst", "P\xd6ST", ""])
def test_methods_have_one_spelling(parse: Parse, method: str) -> None:
    """A method that is not in capitals matches nothing, not even the unmatched."""
    assert found(parse(STRIPE), method, "/v1/transfers/a") is None


def routes_of(*routes: str) -> str:
    """Return a file with these routes, each ``METHOD PATH SCOPE``."""
    keys = ("method", "path", "scope")
    tables = (zip(keys, one.split(), strict=True) for one in routes)
    return "".join(
        "[[routes]]\n" + "".join(f'{key} = "{value}"\n' for key, value in table)
        for table in tables
    )


ACTS = "GET /unsubscribe/{id} delete:contacts"
WIDE = "GET /{rest*} read:contacts"


@pytest.mark.parametrize(
    ("routes", "scope"),
    [
        ((ACTS, "* /{rest*} read:contacts"), "delete:contacts"),
        ((ACTS, "HEAD /{rest*} read:contacts"), "delete:contacts"),
        ((ACTS,), "delete:contacts"),
        ((WIDE, "HEAD /unsubscribe/{id} delete:contacts"), "delete:contacts"),
        ((ACTS, "HEAD /unsubscribe/{person} read:email"), "read:email"),
        (("* /unsubscribe/{id} read:email",), "read:email"),
        (("POST /unsubscribe/{id} delete:contacts",), "read:files"),
        (("GET /other delete:contacts",), "read:files"),
    ],
)
def test_a_head_request_is_of_the_route_of_get(
    parse: Parse, routes: tuple[str, ...], scope: str
) -> None:
    """Frameworks run the handler of GET (RFC 9110 section 9.3.2), so a wide route or
    the unmatched scope takes none of its HEAD requests."""
    service = parse('unmatched = "read:files"\n' + routes_of(*routes))
    one = found(service, "HEAD", "/unsubscribe/b")
    assert one is not None
    assert one.scope == scope


def test_a_route_of_head_matches_no_get(parse: Parse) -> None:
    """A route that names HEAD is for HEAD alone."""
    service = parse(routes_of("HEAD /a read:email", "GET /a read:files"))
    scopes = [found(service, method, "/a") for method in ("HEAD", "GET", "OPTIONS")]
    assert [one and one.scope for one in scopes] == ["read:email", "read:files", None]


def test_an_empty_segment_is_no_value(parse: Parse) -> None:
    """A template's segment is never empty; the rest of a path may be."""
    service = parse(
        '[[routes]]\nmethod = "GET"\npath = "/a/{x}"\nscope = "read:files"\n'
        '[[routes]]\nmethod = "GET"\npath = "/b/{x*}"\nscope = "read:files"\n'
    )
    assert found(service, "GET", "/a/") is None
    assert found(service, "GET", "/b") is None
    rest = found(service, "GET", "/b/")
    assert rest is not None
    assert rest.captures == {"x": ""}


SERVICE = parse_service(
    "api", 'origin = "https://api.test"\n' + TRANSFERS, shipped_catalogue(), Path("/")
)


@given(
    st.sampled_from(["GET", "POST", "PATCH"]),
    st.text("/v1Vtransfe%24.5aA-", max_size=24).map("/v1/{}".format),
    st.binary(max_size=60),
)
def test_any_request_is_an_action_or_refused(
    method: str, path: str, body: bytes
) -> None:
    """No request fails otherwise, and no POST that folds to a transfer is milder."""
    try:
        action = action_of(SERVICE, method, path, JSON, body=body)
        target = parse_target(path.encode())
    except UnreadableRequestError:
        return
    folded = tuple(map(fold, target.segments[: core_length(target.segments)]))
    if method == "POST" and folded[:-1] == ("v1", "transfers"):
        assert action.action == "send:payment"


SEGMENTS = st.sampled_from(["a", "A", "a.json", "b", "{}", "{*}", ""])


@pytest.mark.slow
@given(
    st.lists(st.lists(SEGMENTS, min_size=1, max_size=4), max_size=6),
    st.lists(
        st.sampled_from(["a", "A", "a.json", "b", "c", ""]), min_size=1, max_size=5
    ),
)
def test_the_index_leaves_no_route_out(
    templates: list[list[str]], segments: list[str]
) -> None:
    """What is not compared with a path is matched by it in no spelling."""
    routes = parsed(templates)
    path = (*(part for part in segments[:-1] if part), segments[-1])
    folded = tuple(map(fold, path[: core_length(path)]))
    found = RouteIndex(routes).candidates("GET", folded)
    for route in routes:
        matched = route.captures(path) is not None
        if matched or route.differences(folded) is not None:
            assert route in found
    places = [[one is route for one in routes].index(True) for route in found]
    assert places == sorted(places)


def parsed(templates: list[list[str]]) -> list[ServiceRoute]:
    """Return routes of these segments, where ``{}`` captures one, ``{*}`` the rest."""
    routes = []
    for template in templates:
        parts = [p for n, p in enumerate(template) if p or n == len(template) - 1]
        parts = [
            f"{{x{n}{p[1:-1] if n == len(parts) - 1 else ''}}}" if "{" in p else p
            for n, p in enumerate(parts)
        ]
        table = RouteTable(method="GET", path="/" + "/".join(parts), scope="read:files")
        routes.append(parse_route(table, shipped_catalogue()))
    return routes


PATHS = [
    (*inner, last)
    for length in range(4)
    for inner in itertools.product("abc", repeat=length)
    for last in ("a", "b", "c", "")
]


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "{}", "{*}", ""]), min_size=1, max_size=3),
        min_size=2,
        max_size=5,
    )
)
def test_a_route_that_can_never_match_is_found(templates: list[list[str]]) -> None:
    """The first earlier route that matches all its requests is named, and no other."""
    *routes, last = parsed(templates)
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
