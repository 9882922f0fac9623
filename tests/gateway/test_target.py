"""Request targets: one reading, and one encoding of it."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import Target, parse_target

PIECES = st.sampled_from(
    [
        *("a", "Z", "9", "-", "~", "/", "//", ".", "..", "%41", "%2e", "%2E", "%2f"),
        *("%5C", "%00", "%0a", "%25", "%252e", "%c3%a9", "%ff", "%", "%4", ";", "\\"),
        *("?", "&", "=", "#", "\x00", "\x7f", "é", "{", "[", "+", ":", "@", ",", "*"),
        *("%3b", "%26", "%3D", "%2B", "%20", "!", "$", "'", "(", ")", "|", "^", '"'),
    ]
)


def code_of(raw: bytes) -> str:
    """Return the code that *raw* is refused with."""
    with pytest.raises(UnreadableRequestError) as refused:
        parse_target(raw)
    return refused.value.code


@given(st.lists(PIECES, max_size=12).map("".join), st.booleans())
def test_another_parser_reads_what_was_decided(text: str, slash: bool) -> None:
    """The encoded target has the segments and pairs of the object, and no others."""
    raw = ("/" * slash + text).encode("latin-1")
    try:
        target = parse_target(raw)
    except UnreadableRequestError:
        return
    path, _, query = target.encoded.partition("?")
    assert tuple(unquote(one) for one in path[1:].split("/")) == target.segments
    read = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    assert tuple(read) == target.query
    assert not {".", ".."} & set(target.segments)
    assert not any(mark in s for s in target.segments for mark in "\\\0/\n")
    assert "" not in target.segments[:-1]
    assert parse_target(target.encoded.encode()) == target


@given(st.binary(max_size=40))
def test_any_bytes_are_taken_whole_or_refused(raw: bytes) -> None:
    """No bytes make the parser fail in another way."""
    try:
        target = parse_target(raw)
    except UnreadableRequestError as refused:
        code = refused.code
    else:
        assert target.encoded.isascii()
        code = "bad_path"
    assert code in {"bad_path", "bad_query"}


@pytest.mark.parametrize(
    "path",
    [
        *("", "x", "*", "/..", "/a/../b", "/./a", "/a/.", "/%2e%2e/a", "/%2E"),
        *("/.%2e/a", "//", "/a//b", "//evil.test/x", "/a;b=1", "/a\\b", "/a%2fb"),
        *("/a%2Fb", "/a%5cb", "/a%00", "/a\x00", "/a\r\nHost: b", "/a b", "/a\x7f"),
        *("/café", "/a#b", "/a%", "/a%4", "/a%zz", "/%c0%ae%c0%ae", "/%c0%af"),
        *("/%e0%80%af", "/%ff", "/a%0a", "/a%0Db", "/a%7f", "/a%C2%85"),
    ],
)
def test_paths_of_several_readings_are_refused(path: str) -> None:
    """Each spelling that two programs are known to read differently is a bad path."""
    assert code_of(path.encode("latin-1")) == "bad_path"


@pytest.mark.parametrize(
    "query",
    [*("b=%", "b=%ff", "%00=1", "b=%00", "b=é", "b=c d", "b#c", "b=%zz", "=x", "=")],
)
def test_queries_that_cannot_be_decoded_are_refused(query: str) -> None:
    """A malformed escape, NUL and bytes that are not UTF-8 are a bad query."""
    assert code_of(b"/a?" + query.encode("latin-1")) == "bad_query"


def test_a_query_that_is_not_utf8_says_so() -> None:
    """The agent reads what to mend, and no codec's words."""
    with pytest.raises(UnreadableRequestError, match="escape is not UTF-8"):
        parse_target(b"/a?b=%ff")


@pytest.mark.parametrize(
    "query",
    [
        "n=1&N=2",
        "a_b=1&a-b=2",
        "k=1&%E2%84%AA=2",
        "s=1&%C5%BF=2",
        "ab&a%20b",
        "a_b&a.b",
    ],
)
def test_names_that_fold_alike_are_ambiguous(query: str) -> None:
    """A service may take either name for the other."""
    assert code_of(b"/a?" + query.encode()) == "ambiguous_query"


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        ("/", "/"),
        ("/v1/a/", "/v1/a/"),
        ("/a%20b/%3Fc%3b/%25", "/a%20b/%3Fc%3B/%25"),
        ("/calendars/ada%40acme.test", "/calendars/ada@acme.test"),
        ("/a%2Cb!$&'()*+=:[|]", "/a,b!$&'()*+=:%5B%7C%5D"),
        ("/%c3%bc", "/%C3%BC"),
        ("/x?next=https%3A%2F%2Fa//..;b\\", "/x?next=https%3A%2F%2Fa%2F%2F..%3Bb%5C"),
        ("/x?", "/x"),
        ("/x?&&a&&b=&", "/x?a=&b="),
        ("/x?a+b=c+d&e=%2B", "/x?a%20b=c%20d&e=%2B"),
        ("/x?a=1&a=2", "/x?a=1&a=2"),
        ("/x?a=b=c", "/x?a=b%3Dc"),
        ("/...", "/..."),
    ],
)
def test_a_target_is_encoded_by_one_rule(raw: str, sent: str) -> None:
    """Segments and pairs are decoded once and encoded again."""
    assert parse_target(raw.encode()).encoded == sent


def test_a_target_may_have_8192_bytes_as_it_is_sent() -> None:
    """One byte more is 414, also where it only grows by its encoding."""
    assert len(parse_target(b"/" + b"a" * 8191).encoded) == 8192
    assert len(parse_target(b"/?a=" + b"b" * 8188).encoded) == 8192
    assert len(parse_target(b"/" + b"%41" * 8191).encoded) == 8192
    for raw in (b"/" + b"a" * 8192, b"/?a=" + b"[" * 3000, b"/" + b"%41" * 8192):
        with pytest.raises(UnreadableRequestError) as refused:
            parse_target(raw)
        assert (refused.value.code, refused.value.status) == ("uri_too_long", 414)


def test_query_parameters_are_decoded_and_similar_names_noticed() -> None:
    """A repeated parameter shows all its values, another spelling of it shows too."""
    target = parse_target(b"/x?q=1+2%26&q=&Amount=9&n%5B%5D=1")
    assert target.query_values("q") == (["1 2&", ""], False)
    assert target.query_values("amount") == ([], True)
    assert target.query_values("n") == ([], True)
    assert target.query_values("q[0]") == ([], True)
    assert target.query_values("z") == ([], False)
    assert Target(("",)).query_values("q") == ([], False)


def test_a_query_has_no_more_pairs_than_frameworks_read() -> None:
    """PHP and Node read 1,000 of them; more are refused before any is decoded."""
    assert len(parse_target(b"/?" + b"a&" * 1_000).query) == 1_000
    with pytest.raises(UnreadableRequestError) as refused:
        parse_target(b"/?" + b"%ZZ&" * 1_001)
    assert (refused.value.code, refused.value.status) == ("bad_query", 400)
