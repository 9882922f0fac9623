"""Destinations are read from the request that is sent, all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.service_requests import FORM, JSON, action_of, read_request

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway import Service
from agentvault_tui.policy.facts import derive

Parse = Callable[[str], Service]
ROUTE = '[[routes]]\nmethod = "*"\npath = "/{host}"\nscope = "send:email"\n'
TO = 'destinations = "domains:body:/to"'
URL = 'destinations = "hosts:body:/url"'


def destinations(
    parse: Parse, rules: str, body: bytes, *headers: Any, **more: Any
) -> Any:
    """Return the parameter, None where it is unclear, False where it is absent."""
    service = parse(f"{ROUTE}[routes.parameters]\n{rules}")
    path = more.get("path", "/x")
    action = action_of(service, "POST", path, *(headers or (JSON,)), body=body)
    found = action.parameters.get("destinations", False)
    facts = derive(action)
    assert list(facts.destinations or ()) == (found or [])
    assert ("destinations" in facts.unclear) is (found is None)
    return found


@pytest.mark.parametrize(
    ("rules", "body", "found"),
    [
        (TO, b'{"to": "a@Acme.test"}', ["acme.test"]),
        (TO, b'{"to": ["b@x.test", "a@acme.test"]}', ["acme.test", "x.test"]),
        (URL, b'{"url": "https://hooks.acme.test/in"}', ["hooks.acme.test"]),
        (
            'destinations = ["domains:body:/to", "domains:body:/cc"]',
            b'{"to": "a@acme.test", "cc": ["b@x.test"]}',
            ["acme.test", "x.test"],
        ),
        (
            'destinations = ["domains:body:/to", "domains:body:/cc"]',
            b'{"to": "a@acme.test"}',
            ["acme.test"],
        ),
        (TO, b"{}", False),
        (TO, b'{"to": []}', False),
        (TO, b'{"to": null}', None),
        (TO, b'{"to": "a@acme.test, b@evil.test"}', None),
        (TO, b'{"to": ["a@acme.test", {"email": "b@evil.test"}]}', None),
        (TO, b'{"to": "a@acme.test", "cc": "b@evil.test"}', None),
        (TO, b'{"to": "a@acme.test", "Bcc": ["b@evil.test"]}', None),
        (TO, b'{"to": "a@acme.test", "mail": {"to": "b@evil.test"}}', None),
        (TO, b'{"to": "a@acme.test", "mail": {"bcc": "b@evil.test"}}', None),
        (TO, b'{"To": "b@evil.test"}', None),
        (URL, b'{"url": "https://acme.test", "x": {"url": "https://evil.test"}}', None),
        (URL, b'{"url": "https://acme.test@evil.test/"}', None),
        (URL, b'{"url": "acme.test"}', None),
    ],
)
def test_destinations_of_json_are_read_wholly(
    parse: Parse, rules: str, body: bytes, found: Any
) -> None:
    """An address that is elsewhere, or cannot be read, makes all of them unclear."""
    assert destinations(parse, rules, body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"to=a%40acme.test", ["acme.test"]),
        (b"to=a%40acme.test&to=b%40x.test", ["acme.test", "x.test"]),
        (b"to=a%40acme.test%2Cb%40evil.test", None),
        (b"to=a%40acme.test&cc=b%40evil.test", None),
        (b"", False),
    ],
)
def test_destinations_of_a_form_are_read_wholly(
    parse: Parse, body: bytes, found: Any
) -> None:
    """Each field of that name is one address."""
    assert destinations(parse, TO, body, FORM) == found


def test_destinations_are_read_from_query_header_and_path(parse: Parse) -> None:
    """A header lists with commas, and a service may read only one of two places."""
    query = 'destinations = "domains:query:to"'
    many = "/x?to=a%40acme.test&to=b%40x.test"
    assert destinations(parse, query, b"", path=many) == ["acme.test", "x.test"]
    body = b'{"to": "b@evil.test"}'
    assert destinations(parse, query, body, path="/x?to=a%40acme.test") is None
    header = 'destinations = "hosts:header:X-Url"'
    sent = (b"x-url", b"https://acme.test/")
    assert destinations(parse, header, b"", JSON, sent) == ["acme.test"]
    place = 'destinations = "domains:path:host"'
    assert destinations(parse, place, b"", path="/a@acme.test") == ["acme.test"]


@pytest.mark.parametrize(
    "rules",
    [
        *('destinations = "body:/to"', 'destinations = "count:body:/to"'),
        *("destinations = 3", 'to = "domains:body:/to"', 'destinations = "domains:to"'),
        'destinations = ["domains:body:/to", "body:/cc"]',
    ],
)
def test_a_form_that_is_for_destinations_is_for_them_alone(
    parse: Parse, rules: str
) -> None:
    """And destinations have no other form."""
    with pytest.raises(ServiceError):
        parse(f"{ROUTE}[routes.parameters]\n{rules}")


def test_a_destination_does_not_state_the_address(parse: Parse) -> None:
    """An elevated token does not open a request of which it names the domain alone."""
    service = parse(f"{ROUTE}[routes.parameters]\n{TO}")
    body = b'{"to": "a@acme.test"}'
    _, reading = read_request(service, "POST", "/x", JSON, body=body)
    assert reading.unsaid == ("body:/to",)
