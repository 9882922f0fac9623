"""One object is decided, shown, recorded and sent."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.service_requests import JSON, read_request

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import Service

Parse = Callable[[str], Service]
ROUTE = """
[[routes]]
method = "POST"
path = "/pay/{to}"
scope = "send:payment"
headers = ["X-Tag"]
types = ["application/l+json"]
[routes.parameters]
amount = "body:/amount"
"""


def test_spellings_that_read_alike_are_the_same_call(parse: Parse) -> None:
    """The digest is over the call as it is sent, and trace context is not in it."""
    service = parse(ROUTE)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    one, _ = read_request(
        service, "POST", "/pay/a%2Cb?x=%41&y", JSON, body=b'{"amount": 5}'
    )
    two, _ = read_request(
        service,
        "POST",
        "/pay/a,b?x=A&y=",
        (b"content-type", b"application/json; charset=utf-8"),
        (b"traceparent", parent.encode()),
        (b"x-request-id", b"7"),
        body=b' {"amount":5}\n',
    )
    assert one.described("s", 1) == two.described("s", 1)
    assert one.content == two.content
    assert ("traceparent", parent) in two.lines()


@pytest.mark.parametrize(
    ("target", "header", "body"),
    [
        ("/pay/a?x=2", JSON, b'{"amount":5}'),
        ("/pay/b?x=1", JSON, b'{"amount":5}'),
        ("/pay/a?x=1", (b"content-type", b"application/l+json"), b'{"amount":5}'),
        ("/pay/a?x=1", (b"x-tag", b"1"), b""),
        ("/pay/a?x=1", (b"if-match", b"1"), b""),
    ],
)
def test_each_part_that_leaves_is_under_the_digest(
    parse: Parse, target: str, header: tuple[bytes, bytes], body: bytes
) -> None:
    """Another target, header or media type is another call."""
    service = parse(ROUTE)
    plain, _ = read_request(service, "POST", "/pay/a?x=1", JSON, body=b'{"amount":5}')
    other, _ = read_request(service, "POST", target, header, body=body)
    assert plain.described("s", 1) != other.described("s", 1)


@pytest.mark.parametrize(
    "path", ["/pay/a%3F", "/pay/a%23", "/pay/a%3fx=1", "/%23/pay/a", "/pay%23x/a"]
)
def test_a_path_with_an_escaped_mark_is_sent_only_where_the_file_says_so(
    parse: Parse, path: str
) -> None:
    """A proxy that decodes it makes a query or fragment of the rest of the path."""
    wide = '[[routes]]\nmethod = "POST"\npath = "/{rest*}"\nscope = "read:files"\n'
    for file in (ROUTE, ROUTE + wide):
        with pytest.raises(UnreadableRequestError) as refused:
            read_request(parse(file), "POST", path, JSON, body=b'{"amount": 5}')
        assert refused.value.code == "bad_path"
    service = parse("escaped_marks = true\n" + ROUTE)
    if path.startswith("/pay/"):
        request, _ = read_request(service, "POST", path, JSON, body=b'{"amount": 5}')
        assert request.head.target.encoded_path == path.replace("f", "F")


def test_record_and_request_name_what_is_sent(parse: Parse) -> None:
    """The row, the step-up and the wire have the same path, query and headers."""
    request, _ = read_request(
        parse(ROUTE), "POST", "/pay/%61?q=%20", JSON, (b"x-tag", b"1"), body=b"[1.50]"
    )
    detail = request.detail()
    assert (detail["path"], detail["query"]) == ("/pay/a", "q=%20")
    shown = json.loads(request.described("s", 6))
    assert shown["url"].endswith("/pay/a?q=%20")
    assert shown["headers"] == detail["headers"] == {"x-tag": "1"}
    assert (shown["body_kind"], shown["body_type"]) == ("json", "application/json")
    assert request.content.encoded == b"[1.50]"
    sent = dict(request.lines())
    assert (sent["x-tag"], sent["Content-Type"]) == ("1", "application/json")


def test_no_pair_of_the_query_is_like_the_credentials(parse: Parse) -> None:
    """A service may read the agent's value for the one that is attached."""
    service = parse(
        '[credential]\nkind = "query"\nname = "api_key"\nsecret = "key"\n' + ROUTE
    )
    for name in ("api_key", "API-Key", "apikey", "api_key[]", "api.key", "api[key"):
        with pytest.raises(UnreadableRequestError) as refused:
            read_request(service, "POST", f"/pay/a?{name}=mine")
        assert refused.value.code == "ambiguous_query"
