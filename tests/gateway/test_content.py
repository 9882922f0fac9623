"""Content is parsed once, and encoded again with the same meaning."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service_requests import FORM, JSON, ROUNDED, read_request

from agentvault_tui import strict_json
from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.content import Content, encode_form
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.policy import shipped_catalogue

Parse = Callable[[str], Service]
MULTIPART = (b"content-type", b"multipart/form-data; boundary=x")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def kind(text: str) -> tuple[bytes, bytes]:
    return b"content-type", text.encode()


def service(keys: str = "", parameters: str = "", method: str = "POST") -> Service:
    text = (
        f'origin = "https://a.test"\n[[routes]]\nmethod = "{method}"\npath = "/x"\n'
        f'scope = "write:files"\n{keys}\n[routes.parameters]\n{parameters}\n'
    )
    return parse_service("a", text, shipped_catalogue(), None)  # type: ignore[arg-type]


def content(keys: str, *headers: Any, body: bytes = b"", **more: str) -> Content:
    method = more.pop("method", "POST")
    one = service(keys, more.get("parameters", ""), method)
    request, _ = read_request(one, method, "/x", *headers, body=body)
    return request.content


def refusal(
    keys: str, *headers: Any, body: bytes = b"", **more: str
) -> tuple[str, int]:
    with pytest.raises(UnreadableRequestError) as refused:
        content(keys, *headers, body=body, **more)
    return refused.value.code, refused.value.status


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=8))
def test_another_parser_reads_the_pairs_of_a_form(pairs: list[tuple[str, str]]) -> None:
    """The encoded form has the same pairs in the same order."""
    encoded = encode_form(pairs).decode("ascii")
    assert parse_qsl(encoded, keep_blank_values=True) == pairs


@pytest.mark.parametrize(
    ("header", "body", "sent", "encoded"),
    [
        (
            JSON,
            b' {"b": 1.50, "a":\n[1e2]} ',
            "application/json",
            b'{"b":1.50,"a":[1e2]}',
        ),
        (kind("Application/JSON; Charset=UTF-8"), b"[]", "application/json", b"[]"),
        (kind("application/vnd.x+json"), b"7", "application/json", b"7"),
        (FORM, b"a=%41+b%2b&&c&a=;d=e", FORM[1].decode(), b"a=A+b%2B&c=&a=%3Bd%3De"),
        (kind(f"{FORM[1].decode()};charset=utf-8"), b"a=1", FORM[1].decode(), b"a=1"),
    ],
)
def test_readable_content_leaves_encoded_again(
    header: tuple[bytes, bytes], body: bytes, sent: str, encoded: bytes
) -> None:
    """The type is written by us, without parameters."""
    one = content("", header, body=body)
    assert (one.type, one.encoded) == (sent, encoded)


@pytest.mark.parametrize(
    "text",
    [
        *("text/json", "application/jsonrequest", "text/plain; a=b/json", "text/plain"),
        *("application/json; charset=utf-7", "application/json; charset=utf8"),
        *("application/json; charset=utf-8; charset=utf-16", "application/x+json, a/b"),
        *("application/json; odata=verbose", "application/json; boundary=x", ""),
        *("application/x-www-form-urlencoded; charset=latin1", "multipart/form-data"),
        *("application/x-www-form-urlencoded+json", "image/png", "*/*", "json"),
    ],
)
def test_content_of_any_other_type_is_refused(text: str) -> None:
    """Laravel, Express and Rack read fields in bodies of many types."""
    with pytest.raises(UnreadableRequestError) as refused:
        content("", *([kind(text)] if text else []), body=b'{"a": 1}')
    error = refused.value
    assert (error.code, error.status) == ("unsupported_body", 415)
    assert "application/json" in error.more["accepts"]  # type: ignore[operator]
    named = text.partition(";")[0]
    assert named in str(error) or "Content-Type" in str(error)


@pytest.mark.parametrize("header", [JSON, FORM])
@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"identity, br"])
def test_compressed_content_is_refused(
    header: tuple[bytes, bytes], coding: bytes
) -> None:
    """A service would decompress bytes that the gateway did not read."""
    code = refusal("", header, (b"content-encoding", coding), body=b"x")
    assert code == ("unsupported_body", 415)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_a_body_where_none_is_expected_is_refused(method: str) -> None:
    """A service that leaves it unread takes it for the next request."""
    body = b"POST /pay HTTP/1.1\r\n\r\n"
    code = refusal("", JSON, body=body, method=method)
    assert code == ("unexpected_body", 400)
    with pytest.raises(UnreadableRequestError, match=r'add a body .* body = "json"'):
        content("", JSON, body=body, method=method)
    assert content("", JSON, method=method) == Content()
    assert content('body = "json"', JSON, body=b"{}", method=method).encoded == b"{}"


def test_a_route_without_a_body_takes_none() -> None:
    """Whatever the method is."""
    assert refusal('body = "none"', JSON, body=b"{}") == ("unexpected_body", 400)
    assert content('body = "none"', JSON).headers == []


@pytest.mark.parametrize(
    ("keys", "header", "code"),
    [
        ('body = "json"', FORM, "unsupported_body"),
        ('body = "form"', JSON, "unsupported_body"),
        ('body = "multipart"', JSON, "unsupported_body"),
        ('body = "opaque"\ntypes = ["image/*"]', JSON, "unsupported_body"),
    ],
)
def test_a_route_takes_its_kind_of_body_alone(
    keys: str, header: tuple[bytes, bytes], code: str
) -> None:
    """The answer lists what the route accepts."""
    assert refusal(keys, header, body=b"{}") == (code, 415)


def test_a_listed_type_leaves_with_its_parameters() -> None:
    """A service that demands a parameter gets it."""
    keys = 'types = ["application/json; odata=verbose"]'
    one = content(keys, kind("application/json;odata=verbose"), body=b"[ ]")
    assert (one.type, one.encoded) == ('application/json; odata="verbose"', b"[]")
    assert refusal(keys, kind("application/json; odata=x"), body=b"[]")[1] == 415


@pytest.mark.parametrize(
    "name", ["application/x+json", "application/vnd.api+json", "application/ld+json"]
)
def test_a_json_type_that_is_not_listed_leaves_as_json(name: str) -> None:
    """Frameworks read no body of a `+json` type that they have not registered."""
    for keys in ("", 'body = "json"', 'types = ["application/y+json"]'):
        assert content(keys, kind(name), body=b"{}").type == "application/json"
    assert content(f'types = ["{name}"]', kind(name), body=b"{}").type == name


def test_opaque_content_keeps_type_and_encoding() -> None:
    """Its bytes are not read; the file says so."""
    keys = 'body = "opaque"\ntypes = ["image/*", "application/x-git-request"]'
    one = content(keys, kind("image/PNG"), (b"content-encoding", b"gzip"), body=b"\xff")
    assert (one.kind, one.type, one.encoded) == ("opaque", "image/png", None)
    assert one.headers[1] == ("Content-Encoding", "gzip")
    assert content(keys, kind("application/x-git-request"), body=b"1").kind == "opaque"
    assert content(keys, kind("image/svg+xml"), body=b"1").type == "image/svg+xml"
    others = ("x+json", "form-data", "xml", "x+xml", "yaml", "graphql")
    for other in ("imag/png", *(f"image/{one}" for one in others)):
        assert refusal(keys, kind(other), body=b"1")[1] == 415


def test_a_parameter_of_an_opaque_type_holds_no_type_with_fields() -> None:
    """Laravel searches the whole header for ``/json``."""
    keys = 'body = "opaque"\ntypes = ["image/*", "multipart/mixed"]'
    for good in (
        'image/png; a="b"',
        "image/png; charset=utf-8",
        "multipart/mixed; boundary=----WebKitFormBoundary7",
    ):
        assert content(keys, kind(good), body=b"1").kind == "opaque"
    for bad in (
        'image/png; a="/json"',
        "image/png; a=+JSON",
        "image/png; json=1",
        "image/png; a=text/xml",
        "image/png; a=multipart/form-data",
        'multipart/mixed; boundary="/json"',
        'image/png; charset="/json"',
    ):
        assert refusal(keys, kind(bad), body=b"1")[1] == 415


def test_a_form_without_a_pair_is_no_body() -> None:
    """It leaves without a type."""
    assert content("", FORM, body=b"&&") == Content()


def test_a_content_encoding_that_leaves_is_recorded_and_another_is_named() -> None:
    """A service decodes an opaque body by the ``Content-Encoding`` that it gets."""
    one = service('body = "opaque"\ntypes = ["image/*"]')
    coded = (b"content-encoding", b"gzip")
    request, _ = read_request(one, "POST", "/x", kind("image/png"), coded, body=b"1")
    assert request.detail()["headers"] == {"content-encoding": "gzip"}
    request, _ = read_request(one, "POST", "/x", coded)
    assert request.detail()["dropped"] == ["content-encoding"]


@pytest.mark.parametrize(
    "body",
    [
        *(
            b'{"a": 1, "a": 2}',
            b'{"x": {"a": 1, "a": 2}}',
            b'{"a": NaN}',
            b"[-Infinity]",
        ),
        *(b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}", b'{"count": 1, "Count": 2}'),
        *(b'{"a_b": 1, "ab": 2}', '{"k": 1, "\u212a": 2}'.encode()),
        b'{"deep": {"in": 1, "IN": 2}}',
        *(b'{"a": [{"id": %b}]}' % number.encode() for number in ROUNDED),
        b'{"list": [{"in": 1}, {"to": 1, "T o": 2}]}',
        *(b'{"__proto__": {"a": 1}}', b'{"x": [{"\\u005f_proto__": {"in": 1}}]}'),
    ],
)
def test_json_of_several_readings_is_ambiguous(body: bytes) -> None:
    """Names that fold alike count at the top and on the way to a parameter."""
    rules = 'a = "body:/deep/in"\nb = "body:/list/1/to"'
    assert refusal("", JSON, body=body, parameters=rules) == ("ambiguous_body", 400)


def test_a_deeper_object_that_no_parameter_reads_may_have_similar_names() -> None:
    """It is shown and carried whole."""
    body = b'{"deep":{"x":{"a":1,"A":2}},"list":[{"a":1,"A":2}]}'
    rules = 'a = "body:/deep/in"\nb = "body:/list/1/to"'
    assert content("", JSON, body=body, parameters=rules).encoded == body


LIGATURES = "\ufdfa" * 1_000
"""Each becomes 18 characters as its name is compared."""


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (JSON, json.dumps({"a": [{f"{LIGATURES}{n}": 1 for n in range(50)}]}).encode()),
        (
            JSON,
            json.dumps(
                {f"{LIGATURES}{n}": 1 for n in range(50)}, ensure_ascii=False
            ).encode(),
        ),
        (FORM, "&".join(f"{LIGATURES}{n}=1" for n in range(50)).encode()),
    ],
)
def test_names_that_take_long_to_compare_are_refused(
    header: tuple[bytes, bytes], body: bytes
) -> None:
    """Other agents' bodies wait for the same worker, so its work is bounded."""
    assert refusal("", header, body=body) == ("unreadable_body", 400)


def test_names_in_any_script_pass_as_often_as_they_come() -> None:
    """A table of records repeats its names; each is compared once."""
    body = json.dumps({"rows": [{"\u540d\u524d" * 10: 1}] * 5_000})
    assert content("", JSON, body=body.encode()).kind == "json"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        *[(JSON, b"amount=1"), (JSON, b"{} {}"), (JSON, b"\xff"), (JSON, b"01")],
        *[(JSON, b"[" * 65 + b"]" * 65), (JSON, b"9" * 5000), (JSON, b"1e999")],
        *[(JSON, '{"a": 1}'.encode("utf-16")), (FORM, b"&".join([b"a=1"] * 1_001))],
    ],
)
def test_content_that_is_not_of_its_type_is_unreadable(
    header: tuple[bytes, bytes], body: bytes
) -> None:
    """A body that does not have the form of its type is refused."""
    assert refusal("", header, body=body) == ("unreadable_body", 400)


@pytest.mark.parametrize(
    "body",
    [
        *(b"a=\0", b"\0a=1"),
        *(b"a=%f", b"a=%ff", b"a=%00", b"\xff=1", b"=1", b"a=1&A=2", b"a_b=1&a%20b=2"),
        *(b"to=1&to[]=2", b"to[0]=1&to.x=2", b"[to]=1&to=2"),
        *(b"]to=1&to=2", b"a_b=1&a.b=2", b"a_b=1&a%5Bb=2", b"t_o=1&t.o[x]=2"),
        b"a=1&_Charset_=utf-16",
    ],
)
def test_forms_of_several_readings_are_ambiguous(body: bytes) -> None:
    """Bad escapes, NUL and names with the same base as a parameter's are ambiguous."""
    code = refusal("", FORM, body=body, parameters='to = "body:/to"')
    assert code == ("ambiguous_body", 400)


def test_parts_of_a_field_pass_where_no_parameter_reads_it() -> None:
    """``a[b]`` and ``a[c]`` are two fields of one object."""
    body = b"a[b]=1&a[c]=2&to=3&to=4"
    one = content("", FORM, body=body, parameters='to = "body:/to"')
    assert one.encoded == b"a%5Bb%5D=1&a%5Bc%5D=2&to=3&to=4"


def part(head: bytes, body: bytes = b"v", boundary: bytes = b"x") -> bytes:
    return b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, body, boundary)


NAMED = b'Content-Disposition: form-data; name="a"'


def test_a_multipart_body_leaves_with_our_boundary() -> None:
    """The same parts are the same bytes; a file's content is opaque."""
    keys = 'body = "multipart"'
    file = NAMED.replace(b'"a"', b'"f"; filename="a.bin"')
    body = (
        part(NAMED)[:-7]
        + b"\r\n"
        + part(file + b"\r\nContent-Type: image/png", b"\xff\0")
    )
    one = content(keys, MULTIPART, body=body)
    other = kind('multipart/form-data; boundary="y y"')
    two = content(keys, other, body=body.replace(b"--x", b"--y y"))
    assert one == two
    assert one.type is not None
    assert one.type.startswith("multipart/form-data; boundary=agentvault-")
    assert one.encoded is not None
    assert b"\xff\0" in one.encoded
    assert b"--x" not in one.encoded


@pytest.mark.parametrize(
    "body",
    [
        part(b'Content-Disposition: form-data; name="a"; name="b"'),
        part(b"Content-Disposition: form-data; name=a"),
        part(NAMED + b'; filename=""'),
        part(NAMED + b"; filename*=utf-8''b"),
        part(b'Content-Disposition: form-data; name="=?utf-8?B?YQ==?="'),
        part(b'Content-Disposition: form-data; name="a%22b"'),
        part(b'Content-Disposition: form-data; name="a\\"b"'),
        part('Content-Disposition: form-data; name="ä"'.encode()),
        part(NAMED + b"\r\nContent-Transfer-Encoding: base64", b"YQ=="),
        part(NAMED + b"\r\nContent-Type: text/plain; charset=utf-7"),
        part(NAMED + b"\r\nContent-Type: application/octet-stream"),
        part(NAMED + b"\r\nContent-Type: image/png"),
        part(NAMED + b"\r\nContent-Type: text/xml"),
        part(NAMED + b"\r\nX-Other: 1"),
        part(NAMED + b"\r\n" + NAMED),
        part(NAMED, b"\xff"),
        part(NAMED, b"a\0b"),
        part(b'Content-Disposition: form-data; name="_charset_"', b"utf-7"),
        part(NAMED)[:-7] + b"\r\n" + part(NAMED.replace(b'"a"', b'"A"')),
    ],
)
def test_multipart_of_several_readings_is_ambiguous(body: bytes) -> None:
    """Servers decode names and charsets, and tell fields from files, differently."""
    assert refusal('body = "multipart"', MULTIPART, body=body)[0] == "ambiguous_body"


def parts(*heads: bytes) -> bytes:
    return b"".join(part(head)[:-7] for head in heads) + b"--x--\r\n"


def named(name: str, more: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}'.encode()


def test_multipart_has_the_bounds_of_common_servers() -> None:
    """Tomcat and busboy drop fields beyond, and report no error."""
    # With 76 bytes of both headers around the file name.
    file = '; filename="{}"\r\nContent-Type: a/b'
    for least, most, keys in (
        ([NAMED] * 50, [NAMED] * 51, ""),
        ([NAMED] * 60, [NAMED] * 61, "max_parts = 60"),
        ([named("a" * 100)], [named("a" * 101)], ""),
        (*([named("a", file.format("b" * size))] for size in (436, 437)), ""),
    ):
        more = f'body = "multipart"\n{keys}'
        assert content(more, MULTIPART, body=parts(*least)).kind == "multipart"
        code = refusal(more, MULTIPART, body=parts(*most))
        assert code == ("unreadable_body", 400)


@pytest.mark.parametrize("header", [FORM, MULTIPART])
def test_query_and_body_have_1000_values_together(header: tuple[bytes, bytes]) -> None:
    """Tomcat counts both, and drops the parameters that follow."""
    one = service('body = "multipart"' if header is MULTIPART else "")
    body = parts(NAMED, NAMED) if header is MULTIPART else b"a=1&b=2"
    read_request(one, "POST", "/x?" + "q=1&" * 998, header, body=body)
    with pytest.raises(UnreadableRequestError) as refused:
        read_request(one, "POST", "/x?" + "q=1&" * 999, header, body=body)
    assert refused.value.code == "unreadable_body"


@pytest.mark.parametrize("body", [b"", b"x", part(NAMED)[:-4]])
def test_multipart_that_is_none_is_unreadable(body: bytes) -> None:
    """A part without end is no part."""
    if body:
        code = refusal('body = "multipart"', MULTIPART, body=body)[0]
        assert code == "unreadable_body"


@pytest.mark.parametrize(
    ("requires", "header", "body"),
    [
        ("body:/sha", JSON, b'{"ref": "main"}'),
        ("body:/sha", JSON, b'{"Sha": "1"}'),
        ("body:/sha", JSON, b""),
        ("body:/sha", JSON, b'{"sha": null}'),
        ("query:sha", JSON, b"{}"),
    ],
)
def test_a_value_that_a_route_requires_is_there_once(
    requires: str, header: tuple[bytes, bytes], body: bytes
) -> None:
    """Without it the request is about something that can still change."""
    keys = f'requires = ["{requires}"]'
    assert refusal(keys, header, body=body) == ("parameter_required", 400)
    assert content('requires = ["body:/sha"]', JSON, body=b'{"sha":"1"}').kind == "json"


@pytest.mark.parametrize(
    "keys",
    [
        'body = "xml"',
        'body = "opaque"',
        'body = "opaque"\ntypes = ["image"]',
        'types = ["image/*"]',
        "max_body = 10485761",
        "max_body = 0",
        'headers = ["Host"]',
        'headers = ["X_Account"]',
        'headers = ["Authorization"]',
        'headers = ["X-Forwarded-For"]',
        'headers = ["X-Original-URL"]',
        'headers = ["X-HTTP-Method-Override"]',
        'headers = ["x-http-method"]',
        'requires = ["sha"]',
        'read = ["nowhere:x"]',
    ],
)
def test_keys_that_cannot_hold_are_refused(parse: Parse, keys: str) -> None:
    """A service's file says what is wrong with it."""
    route = f'[[routes]]\nmethod = "POST"\npath = "/x"\nscope = "write:files"\n{keys}\n'
    with pytest.raises(Exception, match=r"route|body"):
        parse(route)


def test_a_route_reads_one_mib_and_up_to_ten(parse: Parse) -> None:
    """The default is 1 MiB; a file may say up to 10 MiB for a route."""
    route = '[[routes]]\nmethod = "POST"\npath = "/x"\nscope = "write:files"\n'
    assert parse(route).routes[0].content.max_bytes == 1_048_576
    most = parse(f"{route}max_body = 10485760\n")
    assert most.routes[0].content.max_bytes == 10_485_760


def test_an_opaque_body_is_no_place_of_a_parameter(parse: Parse) -> None:
    """No parameter may read from a body that is not parsed."""
    with pytest.raises(Exception, match="opaque"):
        service('body = "opaque"\ntypes = ["a/b"]', 'x = "body:/x"')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )
)
def test_a_json_body_reads_as_it_was_decided(value: object) -> None:
    """The encoded document equals the parsed one, or the body is refused."""
    try:
        one = content("", JSON, body=json.dumps(value).encode())
    except UnreadableRequestError:
        return
    assert one.encoded is not None
    assert strict_json.loads(one.encoded) == value
