"""Routes: which action a real request is, and what policy may know of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service_files import TRANSFERS
from support.service_requests import JSON, action_of

from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway import RouteMatch, Service, match, parse_target
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.templates import (
    core_length,
    fold,
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


SECRETS = """
[[routes]]
method = "GET"
path = "/v1/secrets/{secret}/versions/{version}"
scope = "read:records"
resource = "secret:{secret}/{version}"
"""
ACCESS = """
[[routes]]
method = "GET"
path = "/v1/secrets/{secret}/versions/{version}:access"
scope = "read:finance"
resource = "secret:{secret}/{version}"
"""
WIDE = """
[[routes]]
method = "GET"
path = "/v1/{rest*}"
scope = "read:calendar"
"""
VERSION = "/v1/secrets/s/versions/latest"


@pytest.mark.parametrize(
    "verb",
    [
        *(":access", "%3Aaccess", "%253Aaccess", ":ACCESS", ":access/", ":access.json"),
        *("%3Bx:access", ":1", ":", "%EF%BC%9Aaccess", ":access:access"),
    ],
)
def test_no_capture_takes_a_custom_verb(parse: Parse, verb: str) -> None:
    """Neither does a wider route behind it, or unmatched."""
    for text in (SECRETS, SECRETS + WIDE, 'unmatched = "read:calendar"\n' + SECRETS):
        service = parse(text)
        assert match(service, "GET", parse_target((VERSION + verb).encode())) is None
        found = match(service, "GET", parse_target(VERSION.encode()))
        assert found is not None
        assert found.scope == "read:records"


@pytest.mark.parametrize("text", [ACCESS + SECRETS, SECRETS + ACCESS + WIDE])
def test_a_custom_verb_is_a_route_of_its_own(parse: Parse, text: str) -> None:
    """In any place of the file, and its capture is the name alone."""
    service = parse(text)
    target = parse_target(f"{VERSION}:access".encode())
    found = match(service, "GET", target)
    assert found is not None
    assert (found.scope, found.resource) == ("read:finance", "secret:s/latest")
    for other in ("/v1/secrets/s/versions/:access", f"{VERSION}:destroy"):
        assert match(service, "GET", parse_target(other.encode())) is None


def test_another_spelling_of_a_custom_verb_is_no_wider_route(parse: Parse) -> None:
    """Also where the API has colons in names."""
    service = parse("colons = true\n" + ACCESS + SECRETS + WIDE)
    for spelling in (":ACCESS", "%253Aaccess", ":access.json", ":access/"):
        path = f"{VERSION}{spelling}".encode()
        assert match(service, "GET", parse_target(path)) is None
    found = match(service, "GET", parse_target(f"{VERSION}:2026".encode()))
    assert found is not None
    assert (found.scope, found.resource) == ("read:records", "secret:s/latest:2026")


def test_a_colon_in_the_middle_of_a_path_begins_no_verb(parse: Parse) -> None:
    """A verb is at the end of a path (AIP-136); the rest of a path may have it."""
    service = parse(SECRETS + WIDE)
    path = b"/v1/secrets/urn:s/versions/1"
    found = match(service, "GET", parse_target(path))
    assert found is not None
    assert found.resource == "secret:urn:s/1"
    assert match(service, "GET", parse_target(b"/v1/x/latest:access")) is not None


@pytest.mark.parametrize("path", ["/a/{x}:v/b", "/a/{x*}:v", "/a/{x}:", "/a/b{x}:v"])
def test_a_custom_verb_is_at_the_end_behind_a_name(parse: Parse, path: str) -> None:
    """Anything else is an error in the file."""
    text = ACCESS.replace("/v1/secrets/{secret}/versions/{version}:access", path)
    with pytest.raises(ServiceError, match=r"verb|more than a capture"):
        parse(text.replace("secret:{secret}/{version}", "s"))
