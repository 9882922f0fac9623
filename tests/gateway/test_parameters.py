"""Parameters are read from the parts of a request that are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.service_files import TRANSFERS
from support.service_requests import FORM, JSON, action_of, read_request

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.policy.facts import derive

Parse = Callable[[str], Service]


def parameters(
    parse: Parse,
    rules: str,
    body: bytes = b"",
    *headers: tuple[bytes, bytes],
    path: str = "/pay",
    keys: str = "",
) -> dict[str, Any]:
    """Read the parameters that *rules* name from one request."""
    service = parse(
        '[[routes]]\nmethod = "*"\npath = "/{what}"\nscope = "send:payment"\n'
        f"{keys}\n[routes.parameters]\n{rules}"
    )
    return action_of(service, "POST", path, *(headers or (JSON,)), body=body).parameters


def test_parameters_come_from_the_real_request(parse: Parse) -> None:
    """Body, path, query and header are read, and no other words of the agent."""
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


@pytest.mark.parametrize(
    "name",
    [
        *("cc", "bcc", "recipients", "recipient", "emails", "toRecipients"),
        *("ccRecipients", "bcc_recipients", "Emails", "emails[]", "recipients[0]"),
    ],
)
def test_recipients_by_another_name_are_unclear(parse: Parse, name: str) -> None:
    """At the top of a body or below, in JSON and in a form; absent ones are none."""
    for rules in (
        'recipients = "count:body:/to"',
        'destinations = "domains:body:/to"',
        'recipients = "count:body:/mail/to"',
    ):
        fact, inner = rules.partition(" ")[0], "/mail/" in rules
        to = b'"mail": {"to": ["a@x.test"]}' if inner else b'"to": ["a@x.test"]'
        for more in (b'"%b": ["b@x.test"]', b'"m": {"%b": ["b@x.test"]}'):
            body = b"{%b, %b}" % (to, more % name.encode())
            assert parameters(parse, rules, body) == {fact: None}
        plain = b'{%b, "%b": []}' % (to, name.encode())
        assert parameters(parse, rules, plain) in ({fact: 1}, {fact: ["x.test"]})
    form = b"to=a%%40x.test&%b=b%%40x.test" % name.encode()
    rules = 'recipients = "count:body:/to"'
    assert parameters(parse, rules, form, FORM) == {"recipients": None}


@pytest.mark.parametrize("name", ["cc", "Bcc", "recipients", "emails[]"])
def test_recipients_in_another_part_of_a_request_are_unclear(
    parse: Parse, name: str
) -> None:
    """Services merge query and body; the route may say that one is something else."""
    body, of_query = b'{"to": ["a@x.test"]}', 'recipients = "count:query:to"'
    for rules in ('recipients = "count:body:/to"', 'destinations = "domains:body:/to"'):
        fact = rules.partition(" ")[0]
        read = parameters(parse, rules, body, path=f"/p?{name}=b@x.test")
        assert read == {fact: None}
        keys = f'read = ["query:{name}"]\n'
        for path in (f"/p?{name}=", "/p?note=cc", f"/p?{name}=b@x.test"):
            assert parameters(parse, rules, body, path=path, keys=keys)[fact]
    for more in ('{"%s": ["b@x.test"]}', '{"m": {"%s": "b@x.test"}}'):
        text = (more % name).encode()
        assert parameters(parse, of_query, text, path="/p?to=a") == {"recipients": None}
    for text in (b"{}", b"", b'{"note": "cc"}', b'["cc"]'):
        assert parameters(parse, of_query, text, path="/p?to=a") == {"recipients": 1}


def test_recipients_next_to_a_counted_place_deep_in_a_body_are_unclear(
    parse: Parse,
) -> None:
    """A mail API takes several groups of them; a rule counts those that it names."""
    rules = 'recipients = ["count:body:/all/0/to", "count:body:/all/0/cc"]'
    one = b'{"to": ["a@x.test"], "cc": ["b@x.test"]}'
    assert parameters(parse, rules, b'{"all": [%b]}' % one) == {"recipients": 2}
    for body in (b'{"all": [%b, %b]}', b'{"all": [%b], "bcc": [%b]}'):
        assert parameters(parse, rules, body % (one, one)) == {"recipients": None}


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
    """A value that the request lacks is no parameter, also without a body."""
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
    """A code that only Unicode's case rules make a currency is not one."""
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
        b'{"Amount": 20, "currency": "USD"}',
        b'{"amount": 1, "currency": "USD", "payment": {"amount": 20}}',
        b'{"amount": 1, "currency": "USD", "items": [[{"A_mount": 20}]]}',
    ],
)
def test_what_cannot_be_relied_on_is_unclear(parse: Parse, body: bytes) -> None:
    """An amount of a wrong type, or stated again elsewhere, is unclear to policy."""
    service = parse(TRANSFERS)
    facts = derive(action_of(service, "POST", "/v1/transfers/acct_1", JSON, body=body))
    assert facts.amount is None
    assert "amount" in facts.unclear


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"amount=20&amount=9000", "/pay"),
        (b"amount=20&a%6dount=9000", "/pay"),
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
    """An amount that is there twice, in any spelling or place, is unclear."""
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
        (b'{"to": {"list": ["a@x.test", "b@x.test"]}}', None),
        (b'{"to": {"0": "a@x.test,b@x.test"}}', None),
        (b'{"to": {"a@x.test,b@x.test": "A"}}', None),
        (b'{"to": {"all": {"list": {"0": "a@x.test", "1": "b@x.test"}}}}', None),
        (b'{"to": {"email": "a@x.test", "name": "Ada Lovelace"}}', 2),
        (b'{"to": [1, 2]}', None),
        (b'{"to": 1}', None),
        (b'{"to": null}', None),
        (b'{"to": "a@x.test", "cc": ["b@x.test"]}', None),
        (b'{"to": "a@x.test", "BCC": "b@x.test"}', None),
        (b'{"to": "a@x.test", "cc": []}', 1),
        (b'{"to": ["a@x.test"], "message": {"cc": ["b@x.test"]}}', None),
        (b'{"to": ["a@x.test"], "x": [{"To": "b@x.test"}]}', None),
        (b'{"to": [{"a@x.test": "A", "b@x.test": "B"}]}', None),
    ],
)
def test_recipients_are_counted_or_unclear(
    parse: Parse, body: bytes, count: int | None
) -> None:
    """One text that may name many recipients, or a cc next to the count, is unclear."""
    read = parameters(parse, 'recipients = "count:body:/to"', body)
    assert read == {"recipients": count}


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"ids": ["a", "b", {"id": "c", "tags": ["d"]}, 4]}', 4),
        (b'{"ids": {"a": {"name": "A"}, "b": true}}', 2),
        (b'{"ids": "a"}', 1),
        (b'{"ids": [["a", "b", "c"]]}', None),
        (b'{"ids": {"list": ["a", "b"]}}', None),
        (b'{"ids": {"where": {"list": ["a", "b"]}}}', None),
        (b'{"ids": {"where": {"in": {"0": "a"}}}}', None),
        (b'{"ids": "1,2,3"}', None),
        (b'{"ids": ["1|2", "3"]}', None),
        (b'{"ids": {"1,2": true}}', None),
        ('{"ids": "1\uff1b2"}'.encode(), None),
        ('{"ids": "1\u061b2"}'.encode(), None),
    ],
)
def test_a_member_that_may_be_several_is_not_counted_as_one(
    parse: Parse, body: bytes, count: int | None
) -> None:
    """APIs flatten lists, and split texts, that a count sees as one."""
    assert parameters(parse, 'count = "count:body:/ids"', body) == {"count": count}


def test_a_list_in_one_value_of_a_query_is_not_counted_as_one(parse: Parse) -> None:
    """``ids=1,2,3`` is three to many APIs."""
    read = parameters(parse, 'count = "count:query:ids"', path="/p?ids=1,2,3")
    assert read == {"count": None}


def test_counts_of_several_places_add_up(parse: Parse) -> None:
    """A route that names to, cc and bcc counts all of them; absent ones are none."""
    rules = 'recipients = ["count:body:/to", "count:body:/cc", "count:body:/bcc"]'
    body = b'{"to": "a@x.test", "bcc": ["b@x.test", "c@x.test"]}'
    assert parameters(parse, rules, body) == {"recipients": 3}
    assert parameters(parse, rules, b"{}") == {}


def test_repeated_queries_and_headers_are_unclear_or_counted(parse: Parse) -> None:
    """A repeated field is unclear; a count counts each."""
    rules = (
        'amount = "query:a"\nids = "count:query:id"\ntag = "header:tag"\n'
        'tags = "count:header:tag"'
    )
    header = (b"tag", b"a, b")
    read = parameters(parse, rules, b"", header, path="/p?a=1&a=2&id=1&id=2")
    assert read == {"amount": None, "ids": 2, "tag": "a, b", "tags": 2}


SUFFIXED = (
    *(b"amount[]", b"amount:int", b"amount(1i)", b"!amount", b":amount", b"amount'"),
    *(b"pay['amount']", b'pay["amount"]', b"pay(amount)", b"amount:int:required"),
)


@pytest.mark.parametrize("name", SUFFIXED)
def test_a_name_with_a_suffix_is_another_spelling(parse: Parse, name: bytes) -> None:
    """Zope, Rails and Spring read it as the name without it, in query and form."""
    rule = 'amount = "query:amount"'
    query = name.decode().replace('"', "%22")
    assert parameters(parse, rule, path=f"/p?amount=5&{query}=9") == {"amount": None}
    rule = 'amount = "body:/amount"'
    assert parameters(parse, rule, name + b"=9", FORM) == {"amount": None}


@pytest.mark.parametrize(
    "query", ["n=1&n[]=2", "n=1&n[0]=2", "N=1", "n=1&n.x=2", "n=1&a.n=2", "n=1&a[n]=2"]
)
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
        (b"application/json", b'{"other": 9000}', True),
        (b"application/json", b"[9000]", True),
        (b"", b"", True),
        (b"application/json", b'{"amount": 9000}', False),
        (b"application/json", b'{"Amount": 9000}', False),
        (FORM[1], b"amount=9000", False),
        *[(FORM[1], one + b"=9000", False) for one in SUFFIXED],
    ],
)
def test_a_body_says_nothing_else_than_the_query(
    parse: Parse, kind: bytes, body: bytes, *, known: bool
) -> None:
    """A value of the query that may also be in the body is unclear."""
    service = parse(
        '[[routes]]\nmethod = "POST"\npath = "/pay"\nscope = "send:payment"\n'
        '[routes.parameters]\namount = "query:amount"'
    )
    header = (b"content-type", kind or b"text/plain")
    read = action_of(service, "POST", "/pay?amount=20", header, body=body).parameters
    assert read == {"amount": 20 if known else None}


@pytest.mark.parametrize(
    ("body", "query"),
    [(b'{"what": 9}', ""), (b'{"What": 9}', ""), (b"{}", "?what=9"), (b"", "?WHAT=9")],
)
def test_a_captured_value_that_is_stated_again_is_unclear(
    parse: Parse, body: bytes, query: str
) -> None:
    """Frameworks merge the values of path, query and body in different orders."""
    rule = 'amount = "path:what"'
    read = parameters(parse, rule, body, path=f"/1{query}")
    assert read == {"amount": None, "resource": None}


@pytest.mark.parametrize(
    "body",
    [
        b'{"items": [{"amount": 1}, {"amount": 9}]}',
        b'{"items": [{"amount": 1}], "amount": 9}',
        b'{"items": [{"amount": 1}], "x": [{"y": {"Amount": 9}}]}',
    ],
)
def test_a_value_deep_in_a_body_that_is_stated_again_is_unclear(
    parse: Parse, body: bytes
) -> None:
    """A service may act on the other items too, or on the top."""
    rule = 'amount = "body:/items/0/amount"'
    assert parameters(parse, rule, b'{"items": [{"amount": 1}, {"id": 2}]}') == {
        "amount": 1
    }
    assert parameters(parse, rule, body) == {"amount": None}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        *((b'{"amount": 9}', ""), (b'{"x-amount": 9}', ""), (b"{}", "?X_Amount=9")),
        *((b"", "?amount=9"), (b'{"pay": [{"amount": 9}]}', "")),
    ],
)
def test_a_header_that_is_stated_again_is_unclear(
    parse: Parse, body: bytes, query: str
) -> None:
    """Services differ in which place they prefer."""
    rule, headers = 'amount = "header:X-Amount"', (JSON, (b"x-amount", b"1"))
    assert parameters(parse, rule, b'{"id": 9}', *headers) == {"amount": 1}
    read = parameters(parse, rule, body, *headers, path=f"/pay{query}")
    assert read == {"amount": None}


@pytest.mark.parametrize("source", ["path:what", "query:amount"])
def test_a_value_that_an_inner_object_states_again_is_unclear(
    parse: Parse, source: str
) -> None:
    """A service may bind the object and read the parameter there."""
    name = source.partition(":")[2].encode()
    read = parameters(
        parse,
        f'amount = "{source}"',
        b'{"payment": {"%b": 9}}' % name,
        path="/1?amount=1",
    )
    assert read == {"amount": None}


def part(head: bytes, content: bytes) -> bytes:
    """Write one part of a multipart body."""
    head = b"Content-Disposition: form-data; " + head
    return b"--x\r\n%b\r\n\r\n%b\r\n" % (head, content)


@pytest.mark.parametrize("file", [b"", b'; filename="blob"'])
@pytest.mark.parametrize("name", [b"amount", b"AMOUNT"])
def test_a_part_of_json_that_states_a_field_again_makes_it_unclear(
    parse: Parse, file: bytes, name: bytes
) -> None:
    """A framework may bind the part, which each Blob of a browser is a file of."""
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    head = b'name="pay"%b\r\nContent-Type: application/json' % file
    for inner, amount in ((b'{"id": 1}', 1), (b'[{"%b": 9}]' % name, None)):
        body = part(b'name="amount"', b"1") + part(head, inner) + b"--x--\r\n"
        read = parameters(
            parse, 'amount = "body:/amount"', body, kind, keys='body = "multipart"'
        )
        assert read == {"amount": amount}


@pytest.mark.parametrize(
    ("name", "content"), [("pay", b"{"), ("amount", b"1"), ("AMOUNT", b"1")]
)
def test_a_json_field_that_is_no_json_or_states_a_parameter_is_refused(
    parse: Parse, name: str, content: bytes
) -> None:
    """Busboy and formidable take it for a file, so that no field states the value."""
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    head = b'name="%b"\r\nContent-Type: application/json' % name.encode()
    body = part(head, content) + b"--x--\r\n"
    rule, keys = 'amount = "body:/amount"', 'body = "multipart"'
    with pytest.raises(UnreadableRequestError) as refused:
        parameters(parse, rule, body, kind, keys=keys)
    assert refused.value.code == "ambiguous_body"


def test_a_captured_segment_that_decodes_again_is_unclear(parse: Parse) -> None:
    """A service that decodes ``%2541`` twice reads another segment."""
    service = parse(
        '[[routes]]\nmethod = "GET"\npath = "/a/{x}"\nscope = "read:files"\n'
        'resource = "a:{x}"\n[routes.parameters]\nwho = "path:x"\n'
        '[[routes]]\nmethod = "GET"\npath = "/b/{x*}"\nscope = "read:files"\n'
    )
    for path in ("/a/%2541", "/b/c/%2541", "/b/100%25"):
        action = action_of(service, "GET", path)
        assert derive(action).unclear == ("resource",)
    assert action_of(service, "GET", "/a/%2541").parameters == {"who": None}


def test_a_number_in_another_spelling_is_its_text(parse: Parse) -> None:
    """``1.50`` is not ``1.5`` on any face."""
    rules = 'price = "body:/price"\nlist = "body:/list"'
    read = parameters(parse, rules, b'{"price": 1.50, "list": [1.5, 2e0]}')
    assert read == {"price": "1.50", "list": [1.5, "2e0"]}


@pytest.mark.parametrize(
    ("body", "path", "headers", "unsaid"),
    [
        (b'{"to": {"a": [1, {"b": 2}]}}', "/pay", (), ()),
        (b"{}", "/pay", (), ()),
        (b'{"to": 1, "memo": "x"}', "/pay", (), ("body:/memo",)),
        (b'{"ids": [1]}', "/pay", (), ("body:/ids",)),
        (b'{"deep": {"in": 1, "out": 2}}', "/pay", (), ("body:/deep/out",)),
        (b'{"deep": {}}', "/pay", (), ("body:/deep",)),
        (b"[1]", "/pay", (), ("body:/0",)),
        (b'{"to": 1}', "/pay?page=2&n=1", (), ("query:page",)),
        (b'{"to": 1}', "/pay?n=1&n=2", (), ("query:n", "query:n")),
        (b'{"to": 1}', "/pay", ((b"x-note", b"a"),), ("header:x-note",)),
        (b'{"to": 1}', "/pay", ((b"x-as", b"a"), (b"accept", b"*/*")), ()),
    ],
)
def test_parts_that_no_parameter_states_are_named(
    parse: Parse,
    body: bytes,
    path: str,
    headers: tuple[tuple[bytes, bytes], ...],
    unsaid: tuple[str, ...],
) -> None:
    """An elevated token opens a route only where its action states all that is sent."""
    service = parse(
        '[[routes]]\nmethod = "POST"\npath = "/pay"\nscope = "send:payment"\n'
        'headers = ["X-Note"]\n[routes.parameters]\nto = "body:/to"\n'
        'count = "count:body:/ids"\ndeep = "body:/deep/in"\nn = "query:n"\n'
        'as = "header:X-As"'
    )
    _, reading = read_request(service, "POST", path, JSON, *headers, body=body)
    assert reading.unsaid == unsaid


def test_a_capture_that_the_resource_leaves_out_is_not_stated(parse: Parse) -> None:
    """A token for a mailbox does not say which message it deletes."""
    service = parse(
        '[[routes]]\nmethod = "POST"\npath = "/{user}/{message}/trash"\n'
        'scope = "send:payment"\nresource = "mail:{user}"\n'
    )
    _, reading = read_request(service, "POST", "/me/7/trash")
    assert reading.unsaid == ("path:message",)


def test_large_values_are_unclear(parse: Parse) -> None:
    """A value that no record should hold is not carried into one."""
    body = b'{"a": "%s", "amount": 5}' % (b"x" * 5000)
    rules = 'a = "body:/a"\namount = "body:/amount"'
    assert parameters(parse, rules, body) == {"a": None, "amount": 5}
    assert parameters(parse, 'a = "body:/a"', b'{"a": ["\\u0000"]}') == {"a": None}


@pytest.mark.parametrize("field", ["pay.amount", "pay[amount", "pay%20amount"])
def test_a_name_that_php_writes_as_another_is_unclear(parse: Parse, field: str) -> None:
    """PHP reads all of these as ``pay_amount``."""
    rule = 'amount = "body:/pay_amount"'
    assert parameters(parse, rule, f"{field}=90".encode(), FORM) == {"amount": None}


@pytest.mark.parametrize("field", ["pay.amount", "pay%5Bamount%5D"])
def test_a_part_of_an_object_that_has_the_name_is_unclear(
    parse: Parse, field: str
) -> None:
    """ASP.NET Core prefers it where its handler calls the object so."""
    body = f"amount=1&{field}=90".encode()
    assert parameters(parse, 'amount = "body:/amount"', body, FORM) == {"amount": None}
