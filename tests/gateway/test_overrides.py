"""Fields by which a service would take a request for another method or path."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

import pytest
from support.gateway_stand import Stand
from support.service_requests import FORM, JSON, action_of

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.overrides import is_override
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.policy import shipped_catalogue

ROUTES = """
[[routes]]
method = "POST"
path = "/items/{id}"
scope = "write:calendar"
"""
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\nDELETE\r\n--b--\r\n'
MULTIPART = (b"content-type", b"multipart/form-data; boundary=b")
NAMES = [
    *(
        "_method",
        "_METHOD",
        "__method",
        "_Meth-od",
        ".method",
        "_method[]",
        "[_method]",
    ),
    *("$httpMethod", "$HTTP_METHOD", "_HttpMethod", "X-HTTP-Method", "x_http_method"),
    *("$httpHeaders", "$HTTPHEADERS"),
    *("X-HTTP-Method-Override", "x.http.method.override", "X-Method-Override"),
    *("X-HTTP-Verb", "x http verb", "\uff3fmethod"),
]


def read(
    keys: str, path: str, *headers: Any, body: bytes = b"", route: str = ""
) -> str:
    """Return the scope of a request."""
    text = f'origin = "https://a.test"\n{keys}\n{ROUTES}{route}'
    service = parse_service("a", text, shipped_catalogue(), None)  # type: ignore[arg-type]
    return action_of(service, "POST", path, *headers, body=body).action


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_method_are_known_in_every_spelling(name: str) -> None:
    """Frameworks differ in case, ``_``, ``-``, dots and brackets."""
    assert is_override(name, "anything")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[("method", "DELETE", True), ("Method", " patch ", True)],
        *[("method", "eth_call", False), ("method", 1, False), ("method", "", False)],
        *[("payment_method", "DELETE", False), ("methods", "GET", False)],
    ],
)
def test_a_plain_method_counts_by_its_value(
    name: str, value: object, *, expected: bool
) -> None:
    """JSON-RPC and payments have members of that name."""
    assert is_override(name, value) is expected


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/items/1?_method=DELETE", (), b""),
        ("/items/1?a=1&%5fmethod=delete", (), b""),
        ("/items/1?method=delete", (), b""),
        ("/items/1", ((b"x-http-method-override", b"DELETE"),), b""),
        ("/items/1", ((b"x-http-verb", b"DELETE"),), b""),
        ("/items/1", (FORM,), b"a=1&_method=delete"),
        ("/items/1", (FORM,), b"a=1&%2Emethod=delete"),
        ("/items/1", (JSON,), b'{"amount": 1, "_method": "DELETE"}'),
        ("/items/1", (JSON,), b'{"\\u005fm\\u0065thod": "DELETE"}'),
        ("/items/1", (JSON,), b'{"method": "DELETE"}'),
        ("/items/1", (MULTIPART,), PART % b"_method"),
    ],
)
def test_no_part_of_a_request_asks_for_another_method(
    path: str, headers: Any, body: bytes
) -> None:
    """Query, headers and the top level of a body, unless the file says otherwise."""
    multipart = body.startswith(b"--b")
    route = 'body = "multipart"\n' if multipart else ""
    with pytest.raises(UnreadableRequestError) as refused:
        read("", path, *headers, body=body, route=route)
    assert (refused.value.code, refused.value.status) == ("method_override", 400)
    read("method_override = false", path, *headers, body=body, route=route)


def test_a_route_may_declare_a_name_that_it_reads() -> None:
    """``read`` says that the service takes the field for something else."""
    route = 'read = ["query:method", "body:/method"]\n'
    read("", "/items/1?method=GET", JSON, body=b'{"method": "GET"}', route=route)
    with pytest.raises(UnreadableRequestError):
        read("", "/items/1?_method=GET", route=route)


@pytest.mark.parametrize(
    "name",
    [
        *("rest_route", "REST_ROUTE", "rest.route", "rest[route", "rest+route"),
        *("+rest_route", "%72est_route", "rest_route[]", "[rest_route]", "restRoute"),
        "%EF%BD%92est_route",
        *("x:method", ":method", "x:action", "x:default_method", "x:int:method"),
        *("x:method.x", "method:x", "Action:x", "x%EF%BC%9Amethod"),
    ],
)
@pytest.mark.parametrize("place", ["query", "form", "multipart"])
def test_no_field_asks_for_another_path(name: str, place: str) -> None:
    """WordPress reads it instead of the path, whichever method has it, and Zope and
    Struts read a name with ``:method``. A service file that reads methods from the
    request line alone changes nothing."""
    spelling = unquote_plus(name)
    path, route, header, body = "/items/1", "", FORM, b"a=1"
    if place == "query":
        path = f"/items/1?a=1&{name}=/wp/v2/users"
    elif place == "form":
        body = f"a=1&{name}=/wp/v2/users".encode()
    elif not spelling.isascii() or ":" in spelling:
        pytest.skip("the name of a part is ASCII without a colon")
    else:
        route, header = 'body = "multipart"\n', MULTIPART
        body = PART % spelling.encode()
    for keys in ("", "method_override = false"):
        with pytest.raises(UnreadableRequestError) as refused:
            read(keys, path, header, body=body, route=route)
        assert (refused.value.code, refused.value.status) == ("route_override", 400)


def test_other_fields_and_declared_ones_are_no_path() -> None:
    """``q`` searches, and a route may say that it reads the name for something else."""
    read("", "/items/1?q=admin/users&route=1&rest=2&name:exact=x&filter[action]=x")
    read("", "/items/1", JSON, body=b'{"rest_route": "north"}')
    route = 'read = ["query:rest_route", "body:/rest_route"]\n'
    form = "/items/1?rest_route=1", FORM
    assert read("", *form, body=b"rest_route=1", route=route) == "write:calendar"
    with pytest.raises(UnreadableRequestError):
        read("", "/items/1?rest_route=1", FORM, body=b"rest_route=1")


TYPE_NAMES = (
    *("$ct", "%24CT", "$ct[]", "source_content_type", "Source-Content-Type"),
    *("_content_type", "_ContentType", "_content", "_CONTENT[]", "%5Fcontent"),
)


@pytest.mark.parametrize("name", TYPE_NAMES)
@pytest.mark.parametrize("place", ["query", "form", "json"])
def test_no_field_asks_for_another_type(name: str, place: str) -> None:
    """Google, Elasticsearch, Parse and Django REST framework would read the body as
    another one than it was decided as; a route may declare the name."""
    path, header, body = "/items/1", FORM, b"a=1"
    if place == "query":
        path = f"/items/1?a=1&{name}=message/rfc822"
    elif place == "form":
        body = f"a=1&{name}=message/rfc822".encode()
    else:
        header, body = JSON, f'{{"{unquote_plus(name)}": "message/rfc822"}}'.encode()
    for keys in ("", "method_override = false"):
        with pytest.raises(UnreadableRequestError) as refused:
            read(keys, path, header, body=body)
        assert (refused.value.code, refused.value.status) == ("type_override", 400)
    declared = unquote_plus(name)
    route = f'read = ["query:{declared}", "body:/{declared}"]\n'
    read("", path, header, body=body, route=route)


@pytest.mark.parametrize("place", ["query", "form", "json"])
@pytest.mark.parametrize(
    "name",
    [
        *("access_token", "Access-Token", "api_token[]", "private_token", "sudo"),
        *("user_token", "authorization", "$cred", "X-Amz-Credential"),
        *("X-Goog-Credential", "AWSAccessKeyId"),
    ],
)
def test_no_field_is_another_credential(name: str, place: str) -> None:
    """LoopBack, Laravel and GitLab would act as the account of the agent's token."""
    path, header, body = "/items/1", FORM, b"a=1"
    if place == "query":
        path = f"/items/1?a=1&{name}=mine"
    elif place == "form":
        body = f"a=1&{name}=mine".encode()
    else:
        header, body = JSON, f'{{"{name}": "mine"}}'.encode()
    with pytest.raises(UnreadableRequestError) as refused:
        read("", path, header, body=body)
    assert (refused.value.code, refused.value.status) == ("credential_override", 400)
    read(
        "", path, header, body=body, route=f'read = ["query:{name}", "body:/{name}"]\n'
    )


@pytest.mark.parametrize("name", ["X-Api-Key", "api_key", "apiKey[]", "x_api_key"])
def test_no_other_place_has_the_name_of_the_credential(name: str) -> None:
    """A service that takes its key from a header may prefer one in query or body."""
    own = 'credential = { kind = "header", name = "X-Api-Key", secret = "a" }'
    body = f'{{"{name}": "mine"}}'.encode()
    for given in ((f"/items/1?{name}=mine",), ("/items/1", JSON)):
        with pytest.raises(UnreadableRequestError) as refused:
            read(own, *given, body=body if JSON in given else b"")
        assert refused.value.code == "credential_override"
        read("", *given, body=body if JSON in given else b"")
    route = f'read = ["query:{name}"]\n'
    assert read(own, f"/items/1?{name}=mine", route=route) == "write:calendar"


def test_content_of_an_api_asks_for_no_other_type() -> None:
    """Contentful has the query ``content_type``, and Stripe the field ``source``."""
    body = b'{"content": "x", "content_type": "image/png"}'
    assert read("", "/items/1?content_type=page&source=x&ct=1") == "write:calendar"
    assert read("", "/items/1", JSON, body=body) == "write:calendar"


async def test_an_override_reaches_no_service_and_no_person(stand: Stand) -> None:
    """It is recorded as refused before a person is asked."""
    await stand.service(ROUTES.replace("write:calendar", "send:payment"))
    agent = await stand.agent("send:payment", "read:calendar")
    token = await stand.token(agent, "read:calendar")
    for path, code in (("1", "method_override"), ("1?rest_route=/x", "route_override")):
        reply = await stand.client.post(
            f"/gw/api/items/{path}",
            headers={"authorization": f"Bearer {token}"},
            json={"_method": "DELETE"},
        )
        assert (reply.status_code, reply.json()["error"]) == (400, code)
        assert (await stand.records())[-1] == ("refused", code)
    assert not stand.bench.broker.stepups.open()
    assert stand.upstream.received == []
