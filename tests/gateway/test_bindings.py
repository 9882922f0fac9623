"""Which document a request names, and what of it counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.bindings import BindingTable, parse_binding, selected
from agentvault_tui.gateway.target import parse_target

Parse = Callable[[str], Service]
TABLE = BindingTable(get="/u/{user}/drafts/{id}?format={id}", id="body:/id")


@pytest.mark.parametrize(
    ("binds", "words"),
    [
        ('{ get = "drafts" }', "get is no path"),
        ('{ get = "/a/../b" }', "get is no path"),
        ('{ get = "https://evil.test/a" }', "get is no path"),
        ('{ get = "/a/x{user}" }', "a whole segment"),
        ('{ get = "/a/{other}" }', "names {other}"),
        ('{ get = "/a/{rest}" }', "names {rest}"),
        ('{ get = "/a/{id}" }', "names {id}"),
        ('{ get = "/a", id = "body:/id" }', "id is for {id}"),
        ('{ get = "/a/{id}", id = "count:body:/id" }', "not a count"),
        ('{ get = "/a/{id}", id = "nowhere" }', "is read from 'nowhere'"),
        ('{ get = "/a", members = ["raw"] }', "no JSON Pointer"),
        ('{ get = "/a", member = ["/raw"] }', "did you mean members"),
        (", ".join(['{ get = "/a" }'] * 5), "more than 4"),
    ],
)
def test_a_binding_that_cannot_be_right_is_refused(
    parse: Parse, binds: str, words: str
) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(ServiceError) as refused:
        parse(
            '[[routes]]\nmethod = "POST"\npath = "/u/{user}/{rest*}"\n'
            f'scope = "send:email"\nbinds = [{binds}]\n'
        )
    assert words in refused.value.diagnosis()


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_value_reaches_another_path(user: str, found: str) -> None:
    """Whatever a value is, it is that one segment for each reader, or is refused."""
    binding = parse_binding(TABLE, {"user"}, None)
    try:
        target = binding.resolve({"user": user}, found)
    except UnreadableRequestError:
        return
    again = parse_target(target.encoded.encode())
    assert again.segments == ("u", user, "drafts", found)
    assert again.query == (("format", found),)
    assert target.encoded.count("/") == 4
    assert target.encoded.count("?") == 1
    assert not {"%", "/", "\\", ";"} & {*user, *found}


@pytest.mark.parametrize(
    ("content", "members", "part"),
    [
        (
            b'{"a":1.50,"b":{"c":[1,2]}}',
            (("a",), ("b", "c", "1")),
            b'{"a":1.50,"b":{"c":{"1":2}}}',
        ),
        (b'{"a/b":null}', (("a/b",),), b'{"a/b":null}'),
        (b'{"a":{"b":1,"c":2}}', (("a", "b"), ("a", "c")), b'{"a":{"b":1,"c":2}}'),
        (b'{"a":{"b":1,"c":2}}', (("a", "b"), ("a",)), b'{"a":{"b":1,"c":2}}'),
        (b'{"a":{"b":1,"c":2}}', (("a",), ("a", "b")), b'{"a":{"b":1,"c":2}}'),
        (b'{"a":1}', (), b'{"a":1}'),
    ],
)
def test_members_that_count_are_at_their_places(
    content: bytes, members: tuple[tuple[str, ...], ...], part: bytes
) -> None:
    """Digits stay as they were sent."""
    assert selected(content, members) == (part, True)


@pytest.mark.parametrize(
    "content",
    [b"[]", b'{"b":1}', b'{"a":[1]}', b'{"a":{"b":1},"a":{"b":2}}', b"x", b'{"a":"b"}'],
)
def test_a_document_without_a_member_is_refused(content: bytes) -> None:
    """A missing member is not bound, so nobody approves on the rest."""
    with pytest.raises(ValueError, match=r".*"):
        selected(content, (("a", "b"),))
