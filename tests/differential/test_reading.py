"""The second parser reads what the encoding rules produce, and nothing else."""

from __future__ import annotations

import pytest

from differential.reading import (
    Message,
    UnruledError,
    call_of,
    document,
    messages,
    plain,
)

HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"


def test_requests_of_one_connection_are_read_one_after_the_other() -> None:
    """Lengths and chunks frame bodies, so that a second request is found."""
    stream = (
        HEAD + b"Content-Length: 2\r\n\r\nhi"
        b"PUT /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    read = [(m.method, m.target, m.body) for m in messages(stream)]
    assert read == [("POST", "/a", b"hi"), ("PUT", "/b", b"hi"), ("GET", "/c", b"")]


@pytest.mark.parametrize(
    "stream",
    [
        HEAD + b"Content-Length: 2\r\n\r\nh",
        HEAD + b"Content-Length: +2\r\n\r\nhi",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        HEAD + b"X: a\tb\r\n\r\n",
        HEAD + b"X: \xff\r\n\r\n",
        HEAD + b"\r\n{}GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"{}",
    ],
)
def test_framing_that_two_programs_read_differently_is_refused(stream: bytes) -> None:
    """Bytes that could be framed in another way are not as the rules encode."""
    with pytest.raises(UnruledError):
        list(messages(stream))


def test_the_last_request_may_end_early_where_a_server_closed() -> None:
    """It is no whole one, and no other may follow it."""
    stream = HEAD + b"Content-Length: 9\r\n\r\nGET / HTT"
    (whole,) = messages(stream, may_end=True)
    (cut,) = messages(stream[:-2], may_end=True)
    assert (whole.is_whole, cut.is_whole, cut.body) == (True, False, b"GET / H")


@pytest.mark.parametrize(
    "target",
    [
        "/a%2e", "/%61", "/a;b", "/a%3bb", "/%c3%a9", "/a%", "/a?", "/a?&b=", "/a?b",
        "/a?b=c+d", "/a?b=%20&", "/a?b=%7e", "/a?b=%zz", "/a?b=%FF", "/a?b=a/b",
    ],
)  # fmt: skip
def test_a_target_in_another_spelling_is_refused(target: str) -> None:
    """A path and a query have one spelling each."""
    with pytest.raises(UnruledError):
        call_of(Message("GET", target, (), b""))


def test_a_target_is_decoded_once() -> None:
    """Segments and pairs are what they say once decoded."""
    call = call_of(Message("GET", "/a%3Bb/%252F/c+d@?x%20y=a%2Bb&x%20y=", (), b""))
    assert call.segments == ("a;b", "%2F", "c+d@")
    assert call.pairs == (("x y", "a+b"), ("x y", ""))


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (None, b"{}"),
        ("application/json", b""),
        ("application/json; charset=utf-8", b"{}"),
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"NaN"),
        ("text/json", b"{}"),
        ("application/x-www-form-urlencoded", b"a=%20"),
        ("application/x-www-form-urlencoded", b"a"),
        ("multipart/form-data; boundary=b", b"x--b\r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\n\r\n--b--"),
        ("multipart/form-data", b"--b--"),
    ],
)
def test_a_body_that_the_rules_do_not_produce_is_refused(
    media: str | None, body: bytes
) -> None:
    """A type with parameters, a type without a body and bytes around parts are none."""
    fields = () if media is None else (("content-type", media),)
    with pytest.raises(UnruledError):
        call_of(Message("POST", "/", fields, body))


def test_json_keeps_order_and_digits() -> None:
    """``1.50`` is not ``1.5`` and another order is another document."""
    assert document(b'{"a":1.50,"b":"1"}') != document(b'{"a":1.5,"b":"1"}')
    assert document(b'{"a":1,"b":2}') != document(b'{"b":2,"a":1}')
    assert plain(document(b'{"a":1.50,"b":[{"c":"1"}]}')) == {
        "a": 1.5,
        "b": [{"c": "1"}],
    }
