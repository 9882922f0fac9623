"""Request targets: one reading, and byte for byte what was received."""

from __future__ import annotations

import contextlib
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import BadPathError
from agentvault_tui.gateway import Target, parse_target

PIECES = st.sampled_from(
    [
        "a",
        "Z",
        "9",
        "-",
        "~",
        "/",
        "//",
        ".",
        "..",
        "%41",
        "%2e",
        "%2E",
        "%2f",
        "%5C",
        "%00",
        "%25",
        "%252e",
        "%c3%a9",
        "%ff",
        "%",
        "%4",
        ";",
        "\\",
        "?",
        "&",
        "=",
        "#",
        "\x00",
        "\x7f",
        "é",
        "{",
        "[",
        "+",
        ":",
        "@",
        ",",
        "*",
        "\x0b",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join), st.booleans())
def test_what_policy_sees_is_what_leaves(text: str, slash: bool) -> None:
    """A target that is taken keeps its bytes, and decodes once to the same segments."""
    raw = ("/" * slash + text).encode("latin-1")
    try:
        target = parse_target(raw)
    except BadPathError:
        return
    assert target.raw.encode() == raw
    assert [unquote(s) for s in target.raw_path[1:].split("/")] == [*target.segments]
    assert not {".", ".."} & set(target.segments)
    assert not any(mark in s for s in target.segments for mark in "\\\0/")
    assert "" not in target.segments[:-1]


@given(st.binary(max_size=40))
def test_any_bytes_are_taken_whole_or_refused(raw: bytes) -> None:
    """No bytes make the parser fail in another way."""
    with contextlib.suppress(BadPathError):
        assert parse_target(raw).raw.encode() == raw


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "*",
        "/..",
        "/a/../b",
        "/./a",
        "/a/.",
        "/%2e%2e/a",
        "/%2E",
        "/.%2e/a",
        "//",
        "/a//b",
        "//evil.test/x",
        "/a;b=1",
        "/a\\b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%00",
        "/a\x00",
        "/a\r\nHost: b",
        "/a b",
        "/a\x7f",
        "/café",
        "/a#b",
        "/a%",
        "/a%4",
        "/a%zz",
        "/%c0%ae%c0%ae",
        "/%c0%af",
        "/%e0%80%af",
        "/%ff",
        "/a?b=%",
        "/a?b=%ff",
        "/a?b=é",
        "/a?b=c d",
        "/a?b#c",
    ],
)
def test_targets_of_several_readings_are_refused(path: str) -> None:
    """Each spelling that two programs are known to read differently is a bad path."""
    with pytest.raises(BadPathError):
        parse_target(path.encode("latin-1"))


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        ("/", ("",)),
        ("/v1/a/", ("v1", "a", "")),
        ("/a%20b/%3Fc%3b/%25", ("a b", "?c;", "%")),
        ("/calendars/ada%40acme.test/events", ("calendars", "ada@acme.test", "events")),
        ("/x?next=https%3A%2F%2Fa//..;b\\", ("x",)),
        ("/x?", ("x",)),
        ("/...", ("...",)),
    ],
)
def test_other_spellings_pass_byte_for_byte(
    raw: str, segments: tuple[str, ...]
) -> None:
    """Segments are decoded once, and a query may hold what a path may not."""
    target = parse_target(raw.encode())
    assert (target.segments, target.raw) == (segments, raw)


def test_query_parameters_are_decoded_and_lookalikes_noticed() -> None:
    """A repeated parameter shows all its values, another spelling of it shows too."""
    target = parse_target(b"/x?q=1+2%26&q=&Amount=9&n%5B%5D=1")
    assert target.query_values("q") == (["1 2&", ""], False)
    assert target.query_values("amount") == ([], True)
    assert target.query_values("n") == ([], True)
    assert target.query_values("q[0]") == ([], True)
    assert target.query_values("z") == ([], False)
    assert Target("/", None, ("",)).query_values("q") == ([], False)
