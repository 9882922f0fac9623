"""Bodies: one meaning or an error."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.web.forms import (
    BodyError,
    form_value,
    parse_body,
    parse_form,
    parse_json,
)

SURROGATE = re.compile("[\ud800-\udfff]")
FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"

plain = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
)


@given(st.dictionaries(plain, plain, max_size=20))
def test_a_form_comes_back_as_it_was_sent(form: dict[str, str]) -> None:
    """Whatever a correct client encodes is what we read."""
    assert parse_body(FORM, urlencode(form).encode()) == form


pieces = st.sampled_from(["%41", "%3D", "%", "=", "41", "\r", "\n", "_", "+", " ", "g"])


@given(st.lists(pieces, max_size=12).map("".join))
def test_escapes_are_decoded_as_the_url_standard_says_or_refused(text: str) -> None:
    """No character beside an escape changes how it is read; half a one is refused."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        with pytest.raises(BodyError):
            form_value(text.encode())
        return
    try:
        read = unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        read = "\0"
    if "\0" not in read:
        assert form_value(text.encode()) == read


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3)
    ),
    max_leaves=8,
)


def depth(value: Any) -> int:
    """Return how many arrays and objects stand in one another."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max((depth(item) for item in value), default=0)
    return 0


wild = st.recursive(
    st.none() | st.integers(0, 9) | st.text(st.characters(categories=None), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("a\0é", max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(wild, st.integers(0, 4), st.booleans())
def test_json_that_is_not_looked_through_holds_nothing_past_a_cap(
    value: Any, levels: int, escaped: bool
) -> None:
    """Depth, NUL and half surrogates are refused wherever they stand, and only they."""
    text = json.dumps(value, ensure_ascii=escaped)
    held = json.dumps(value, ensure_ascii=False)
    wrong = depth(value) > levels or "\\u0000" in held or SURROGATE.search(held)
    try:
        read = parse_json(text, levels)
    except BodyError:
        assert wrong
    else:
        assert not wrong
        assert read == value


@pytest.mark.slow
@given(st.dictionaries(plain, values, max_size=8))
def test_json_comes_back_without_its_nulls(table: dict[str, Any]) -> None:
    """A body within the caps is read whole; a null member counts as absent."""
    body = json.dumps(table).encode()
    if max((depth(v) for v in table.values()), default=0) > 6:
        with pytest.raises(BodyError):
            parse_body(JSON, body)
    else:
        told = {name: value for name, value in table.items() if value is not None}
        assert parse_body(JSON, body) == told


@given(st.binary(max_size=300), st.sampled_from([FORM, JSON]))
def test_no_bytes_raise_anything_but_a_body_error(body: bytes, kind: bytes) -> None:
    """Any bytes are read or refused with a status of ours."""
    refused = None
    try:
        parse_body(kind, body)
    except BodyError as error:
        refused = error
    assert refused is None or (refused.status == 400 and refused.text.isascii())


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json; charset=utf-8",
        b'Application/JSON;charset="UTF-8"',
        b"application/json ; boundary=x",
    ],
)
def test_a_charset_of_utf8_is_tolerated(kind: bytes) -> None:
    """Clients that say which charset they use are understood."""
    assert parse_body(kind, b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    "kind",
    [
        b"",
        b"text/plain",
        b"application/json; charset=latin-1",
        b"multipart/form-data",
        b"\xff\xfe",
    ],
)
def test_another_content_type_is_refused(kind: bytes) -> None:
    """What is neither a form nor JSON in UTF-8 gets 415."""
    with pytest.raises(BodyError) as caught:
        parse_body(kind, b"{}")
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=1&%61=2",
        b"a=&a=",
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a=%+1",
        b"a=%00",
        b"a=\0",
        b"a=%ff",
        b"a=\xff",
        b"a=%ed%a0%80",
        b"a=" + b"x" * 4001,
        b"x" * 4001,
        b"&".join(b"p%d=1" % i for i in range(65)),
    ],
)
def test_a_form_that_could_mean_two_things_is_refused(body: bytes) -> None:
    """Duplicates, broken encodings, NUL and fields over the caps get 400."""
    with pytest.raises(BodyError) as caught:
        parse_form(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1",
        "{'a':1}",
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":1}}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":9007199254740992}',
        '{"a":-9007199254740992}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":"\\u0000"}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":"' + "x" * 4001 + '"}',
        '{"' + "x" * 4001 + '":1}',
        '{"a":' + "[" * 7 + "]" * 7 + "}",
        "[" * 30_000,
        '{"a":' * 10_000,
        json.dumps({f"m{i}": i for i in range(65)}),
        json.dumps({"a": {f"m{i}": i for i in range(65)}}),
        "[1]",
        '"a"',
        "null",
        "1 1",
    ],
)
def test_json_that_could_mean_two_things_is_refused(text: str) -> None:
    """Duplicate keys, odd numbers, halves of characters, and depth get 400."""
    with pytest.raises(BodyError) as caught:
        parse_body(JSON, text.encode())
    assert caught.value.status == 400


def test_json_sent_as_a_form_is_told_so() -> None:
    """Clients that leave out the content type get a form's, and then a riddle."""
    body = b'{"grant_type":"client_credentials"}'
    with pytest.raises(BodyError) as caught:
        parse_body(b"application/x-www-form-urlencoded", body)
    assert caught.value.status == 400
    assert "Content-Type: application/json" in caught.value.text


def test_the_caps_themselves_are_allowed() -> None:
    """A field of 4,000 characters, 64 members, 6 levels and 2^53-1 pass."""
    deep: Any = 2**53 - 1
    for _ in range(6):
        deep = [deep]
    table: dict[str, Any] = {f"m{i}": i for i in range(62)}
    table |= {"long": "x" * 4000, "deep": deep}
    assert parse_body(JSON, json.dumps(table).encode()) == table
    assert parse_json('{"a":' * 6 + "1" + "}" * 6)


def test_an_empty_form_value_counts_as_absent() -> None:
    """RFC 6749 section 3.1: a parameter without a value was not sent."""
    assert parse_form(b"a=&b&c=1&&") == {"c": "1"}


def test_a_fault_names_the_member_it_is_about() -> None:
    """The API can answer in the word of that parameter."""
    with pytest.raises(BodyError) as caught:
        parse_body(JSON, b'{"ok":1,"bad":[[[[[[[1]]]]]]]}')
    assert caught.value.member == "bad"


@pytest.mark.parametrize(
    ("value", "count"),
    [("1", 4096), ("{}", 21_000), ('{"":0}', 3000)],
    ids=["numbers", "objects", "members"],
)
def test_so_many_values_that_reading_takes_long_are_refused(
    value: str, count: int
) -> None:
    """A legal size is not enough: what holds up everyone else is refused."""
    body = '{"a":[' + ",".join([value] * count) + "]}"
    with pytest.raises(BodyError) as caught:
        parse_body(JSON, body.encode())
    assert (caught.value.status, caught.value.text) == (
        400,
        "JSON may have 4096 values",
    )


def test_a_list_of_two_thousand_recipients_is_read() -> None:
    """As many as a body can hold are no flood."""
    sent = {"to": [f"user{n}@customers.example" for n in range(2000)]}
    assert parse_body(JSON, json.dumps(sent).encode()) == sent
