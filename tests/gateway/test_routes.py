"""Routes: which action a real request is, and what policy may know of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service_files import TRANSFERS

from agentvault_tui.errors import BadPathError, UnreadableBodyError
from agentvault_tui.gateway import RouteMatch, Service, action_of, match, parse_target
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.templates import (
    RouteIndex,
    RouteTable,
    core_length,
    fold,
    parse_route,
)
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.policy.facts import derive

Parse = Callable[[str], Service]
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")

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


def parameters(
    parse: Parse,
    rules: str,
    body: bytes = b"",
    *headers: tuple[bytes, bytes],
    path: str = "/pay",
) -> dict[str, Any]:
    """Read the parameters that *rules* name from one request."""
    service = parse(
        '[[routes]]\nmethod = "*"\npath = "/{what}"\nscope = "send:payment"\n'
        f"[routes.parameters]\n{rules}"
    )
    target = parse_target(path.encode())
    one = match(service, "POST", target)
    assert one is not None
    return action_of(one, target, headers or (JSON,), body).parameters


def test_the_first_route_counts(parse: Parse) -> None:
    """A request is of the first route whose method and path it matches."""
    service = parse(STRIPE)
    pay = found(service, "POST", "/v1/transfers/acct_42")
    assert pay is not None
    assert (pay.scope, pay.resource) == ("send:payment", "stripe:acct_42")
    assert pay.reads_body([])
    read = found(service, "GET", "/v1/transfers/acct_42")
    assert read is not None
    assert (read.scope, read.resource) == ("read:payments", "api:/v1/transfers/acct_42")
    assert read.captures == {"rest": "transfers/acct_42"}
    assert not read.reads_body([])


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


def test_parameters_come_from_the_real_request(parse: Parse) -> None:
    """Body, path, query and header are read, and nothing the agent says beside."""
    read = parameters(
        parse,
        'amount = "body:/pay/0/amount~1minor"\nwho = "path:what"\ncount = "query:n"\n'
        'tag = "header:X-Tag"\nones = 1\nall = "count:body:/pay"',
        b'{"pay": [{"amount/minor": 7}, {}]}',
        JSON,
        (b"x-tag", b"blue"),
        path="/p%20q?n=12",
    )
    assert read == {
        "amount": 7,
        "who": "p q",
        "count": 12,
        "tag": "blue",
        "ones": 1,
        "all": 2,
    }


def test_a_form_is_an_object_of_its_fields(parse: Parse) -> None:
    """Numbers and currencies in a form are what they say."""
    read = parameters(
        parse,
        'amount = "body:/amount"\ncurrency = "body:/currency"\n'
        'count = "count:body:/ids[]"\nnote = "body:/n"',
        b"amount=4200&currency=usd&ids[]=a&ids%5B%5D=b&n=a+b%26",
        FORM,
    )
    assert read == {"amount": 4200, "currency": "USD", "count": 2, "note": "a b&"}


def test_absent_parameters_are_left_out(parse: Parse) -> None:
    """What the request does not have is no parameter, also without a body."""
    rules = (
        'amount = "body:/a/b"\ncount = "query:n"\nrecipients = "count:body:/to"\n'
        'x = "header:x-x"'
    )
    for body in (b"", b"{}", b'{"a": 3}', b'{"a": []}', b"[]", b"7"):
        assert parameters(parse, rules, body) == {}
    assert parameters(parse, 'amount = "body:/a/1"', b'{"a": [7]}') == {}


@pytest.mark.parametrize(
    ("said", "known"),
    [("usd", "USD"), ("u\u017fd", "u\u017fd"), ("us", "us"), ("usdt", "usdt")],
)
def test_a_currency_is_a_code_of_three_letters_in_any_case(
    parse: Parse, said: str, known: str
) -> None:
    """What only becomes one by Unicode's case rules is none that a rule names."""
    body = f'{{"currency": "{said}"}}'.encode()
    assert parameters(parse, 'currency = "body:/currency"', body) == {"currency": known}


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": null, "currency": "USD"}',
        b'{"amount": "20", "currency": "USD"}',
        b'{"amount": 20.0, "currency": "USD"}',
        b'{"amount": true, "currency": "USD"}',
        b'{"amount": [20], "currency": "USD"}',
        b'{"amount": {"v": 20}, "currency": "USD"}',
        b'{"amount": -1, "currency": "USD"}',
        b'{"amount": 9007199254740993, "currency": "USD"}',
        b'{"amount": 20, "Amount": 9000, "currency": "USD"}',
        b'{"amount": 20, "AMOUNT": 9000, "currency": "USD"}',
        '{"amount": 20, "\uff41mount": 9000, "currency": "USD"}'.encode(),
        b'{"Amount": 20, "currency": "USD"}',
    ],
)
def test_what_cannot_be_relied_on_is_unclear(parse: Parse, body: bytes) -> None:
    """An amount of a wrong type, or in two spellings, is unclear to policy."""
    service = parse(STRIPE)
    target = parse_target(b"/v1/transfers/acct_1")
    one = match(service, "POST", target)
    assert one is not None
    facts = derive(action_of(one, target, [JSON], body))
    assert facts.amount is None
    assert "amount" in facts.unclear


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"amount=20&amount=9000", "/pay"),
        (b"amount=20&Amount=9000", "/pay"),
        (b"amount=20&amount[]=9000", "/pay"),
        (b"amount=20&amount[0]=9000", "/pay"),
        (b"amount=20&a%6dount=9000", "/pay"),
        (b"memo=x;amount=9000&amount=20", "/pay"),
        (b"amount=20", "/pay?memo=x;amount=9000"),
        (b"amount=20", "/pay?amount=9000"),
        (b"amount=20", "/pay?AMOUNT=9000"),
        (b"amount=020", "/pay"),
        (b"amount=+20", "/pay"),
        (b"amount=2e3", "/pay"),
        (b"amount=", "/pay"),
        ("amount=\u0662".encode(), "/pay"),
    ],
)
def test_a_form_that_says_it_twice_is_unclear(
    parse: Parse, body: bytes, path: str
) -> None:
    """An amount that stands twice, in any spelling or place, is none."""
    read = parameters(parse, 'amount = "body:/amount"', body, FORM, path=path)
    assert not isinstance(read["amount"], int)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"to": ["a@x.test", "b@x.test"]}', 2),
        (b'{"to": "a@x.test"}', 1),
        (b'{"to": [{"email": "a@x.test"}, {"email": "b@x.test", "name": "B"}]}', 2),
        (b'{"to": []}', 0),
        (b'{"to": "a@x.test, b@x.test"}', None),
        (b'{"to": ["a@x.test,b@x.test"]}', None),
        (b'{"to": ["everyone"]}', None),
        (b'{"to": [{"email": "a@x.test,b@x.test"}]}', None),
        (b'{"to": [{"group": ["a@x.test", "b@x.test"]}]}', None),
        (b'{"to": [["a@x.test", "b@x.test"]]}', None),
        (b'{"to": 1}', None),
        (b'{"to": null}', None),
        (b'{"to": "a@x.test", "cc": ["b@x.test"]}', None),
        (b'{"to": "a@x.test", "BCC": "b@x.test"}', None),
        (b'{"to": "a@x.test", "cc": []}', 1),
    ],
)
def test_recipients_are_counted_or_unclear(
    parse: Parse, body: bytes, count: int | None
) -> None:
    """One text that may stand for many, or a cc beside the count, is unclear."""
    read = parameters(parse, 'recipients = "count:body:/to"', body)
    assert read == {"recipients": count}


def test_counts_of_several_places_add_up(parse: Parse) -> None:
    """A route that names to, cc and bcc counts all of them; absent ones are none."""
    rules = 'recipients = ["count:body:/to", "count:body:/cc", "count:body:/bcc"]'
    body = b'{"to": "a@x.test", "bcc": ["b@x.test", "c@x.test"]}'
    assert parameters(parse, rules, body) == {"recipients": 3}
    assert parameters(parse, rules, b"{}") == {}


def test_repeated_queries_and_headers_are_unclear_or_counted(parse: Parse) -> None:
    """Said twice is unclear; a count counts each."""
    rules = (
        'amount = "query:a"\nids = "count:query:id"\ntag = "header:tag"\n'
        'tags = "count:header:tag"'
    )
    headers = (b"tag", b"a, b"), (b"tag", b"c")
    read = parameters(parse, rules, b"", *headers, path="/p?a=1&a=2&id=1&id=2")
    assert read == {"amount": None, "ids": 2, "tag": None, "tags": 3}


@pytest.mark.parametrize("query", ["n=1&N=2", "n=1&n[]=2", "n=1&n[0]=2", "n=1;n[0]=2"])
@pytest.mark.parametrize("source", ["query:n", "count:query:n"])
def test_a_query_in_two_spellings_is_unclear(
    parse: Parse, source: str, query: str
) -> None:
    """An upstream may read the other one."""
    read = parameters(parse, f'count = "{source}"', path=f"/p?{query}")
    assert read == {"count": None}


@pytest.mark.parametrize(
    ("kind", "body", "known"),
    [
        (b"application/octet-stream", None, True),
        (b"application/json", b'{"other": 9000}', True),
        (b"application/json", b"[9000]", True),
        (b"", b"", True),
        (b"application/json", b'{"amount": 9000}', False),
        (b"application/json", b'{"Amount": 9000}', False),
        (FORM[1], b"amount=9000", False),
        (FORM[1], b"x=;amount=9000", False),
        (b"multipart/form-data; boundary=x", None, False),
        (b"", None, False),
    ],
)
def test_a_body_says_nothing_else_than_the_query(
    parse: Parse, kind: bytes, body: bytes | None, *, known: bool
) -> None:
    """A value of the query that may also stand in the body is unclear."""
    service = parse(
        '[[routes]]\nmethod = "POST"\npath = "/pay"\nscope = "send:payment"\n'
        '[routes.parameters]\namount = "query:amount"'
    )
    target = parse_target(b"/pay?amount=20")
    one = match(service, "POST", target)
    assert one is not None
    headers = [(b"content-type", kind)] if kind else []
    assert one.reads_body(headers) == (kind in {FORM[1], JSON[1]})
    read = action_of(one, target, headers, body).parameters
    assert read == {"amount": 20 if known else None}


def test_no_query_asks_for_another_method(parse: Parse) -> None:
    """Frameworks take ``_method`` for the request's method: no route has it."""
    service = parse(STRIPE)
    assert found(service, "POST", "/v1/transfers/acct_1?method=DELETE")
    for query in ("_method=DELETE", "a=1&%5fmethod=delete", "_method="):
        assert found(service, "POST", f"/v1/transfers/acct_1?{query}") is None


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([JSON], b'{"amount": 1, "amount": 2}'),
        ([JSON], b'{"amount": 1, "\\u0061mount": 2}'),
        ([JSON], b"amount=1"),
        ([JSON], b'{"amount": 1} {}'),
        ([JSON], b'\xef\xbb\xbf{"amount": 1}'),
        ([JSON], '{"amount": 1}'.encode("utf-16")),
        ([JSON], b'{"amount": NaN}'),
        ([JSON], b'{"amount": "\\ud800"}'),
        ([JSON], b"[" * 100_000),
        ([JSON], b'{"amount": ' + b"9" * 5000 + b"}"),
        ([FORM], b'{"amount": 1}'),
        ([FORM], b"amount=%f"),
        ([FORM], b"amount=%ff"),
        ([FORM], b"amount=%00"),
        ([FORM], b"&".join([b"a=1"] * 10_001)),
        ([], b'{"amount": 1}'),
        ([(b"content-type", b"text/plain")], b'{"amount": 1}'),
        ([(b"content-type", b"multipart/form-data; boundary=x")], b"--x--"),
        ([JSON, JSON], b'{"amount": 1}'),
        ([JSON, FORM], b'{"amount": 1}'),
        ([(b"content-type", b"application/json; charset=utf-16")], b'{"amount": 1}'),
        ([(b"content-type", FORM[1] + b",+json")], b'{"amount": 1}'),
        ([(b"content-type", FORM[1] + b"+json")], b'{"amount": 1}'),
        ([(b"content-type", b"application/json; x=urlencoded")], b'{"amount": 1}'),
        (
            [(b"content-type", b"application/json; charset=utf-8; charset=utf-16")],
            b'{"amount": 1}',
        ),
        ([FORM], b"amount=1&_method=delete"),
        ([JSON], b'{"amount": 1, "_method": "DELETE"}'),
        ([JSON, (b"content-encoding", b"gzip")], b'{"amount": 1}'),
        ([JSON, (b"content-encoding", b"GZIP")], b""),
        ([JSON, (b"content-encoding", b"identity, br")], b'{"amount": 1}'),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(
    parse: Parse, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """What is compressed, lies about its type, or says a key twice is unreadable."""
    headers = headers or [(b"accept", b"*/*")]
    with pytest.raises(UnreadableBodyError):
        parameters(parse, 'amount = "body:/amount"', body, *headers)


def test_a_body_that_no_route_reads_is_not_looked_at(parse: Parse) -> None:
    """Any bytes are taken where no parameter is read from them."""
    assert parameters(parse, 'who = "path:what"', b"\xff\x00") == {"who": "pay"}


def test_large_values_are_unclear(parse: Parse) -> None:
    """A value that no record should hold is not carried into one."""
    body = b'{"a": "%s", "amount": 5}' % (b"x" * 5000)
    rules = 'a = "body:/a"\namount = "body:/amount"'
    assert parameters(parse, rules, body) == {"a": None, "amount": 5}
    assert parameters(parse, 'a = "body:/a"', b'{"a": ["\\u0000"]}') == {"a": None}
    assert parameters(parse, 'a = "query:a"', path="/p?a=%00") == {"a": None}
    for number in (2**53, -(2**53)):
        large = parameters(parse, 'a = "body:/a"', b'{"a": %d}' % number)
        assert large == {"a": None}
    many = b"{" + b",".join(b'"k%d": 1' % n for n in range(1001)) + b',"amount": 5}'
    assert parameters(parse, 'amount = "body:/amount"', many) == {"amount": None}


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
        target = parse_target(path.encode())
        one = match(SERVICE, method, target)
        action = one and action_of(one, target, [JSON], body)
    except (BadPathError, UnreadableBodyError):
        return
    folded = tuple(map(fold, target.segments[: core_length(target.segments)]))
    if action and method == "POST" and folded[:-1] == ("v1", "transfers"):
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
    routes = []
    for template in templates:
        parts = [p for n, p in enumerate(template) if p or n == len(template) - 1]
        parts = [
            f"{{x{n}{p[1:-1] if n == len(parts) - 1 else ''}}}" if "{" in p else p
            for n, p in enumerate(parts)
        ]
        table = RouteTable(method="GET", path="/" + "/".join(parts), scope="read:files")
        routes.append(parse_route(table, shipped_catalogue()))
    path = (*(part for part in segments[:-1] if part), segments[-1])
    folded = tuple(map(fold, path[: core_length(path)]))
    found = RouteIndex(routes).candidates("GET", folded)
    for route in routes:
        matched = route.captures(path) is not None
        if matched or route.differences(folded) is not None:
            assert route in found
    places = [[one is route for one in routes].index(True) for route in found]
    assert places == sorted(places)
