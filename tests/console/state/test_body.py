"""A held call's body as a person reads it: members, text or hex, and nothing alive."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console_scenes import HOSTILE

from agentvault_tui.console.state.body import SHOWN, gone, unread, view
from agentvault_tui.console.state.records import BodyView, HeldRequest
from agentvault_tui.text import Shown, visible


def read(body: bytes, *headers: tuple[str, str], ascii_only: bool = False) -> BodyView:
    return view(request(body, *headers), body, ascii_only=ascii_only)


def request(body: bytes, *headers: tuple[str, str]) -> HeldRequest:
    named = tuple((Shown(n), Shown(v)) for n, v in headers)
    digest = Shown(sha256(body).hexdigest())
    return HeldRequest(
        Shown("POST"), Shown("https://x.test/"), named, digest, len(body)
    )


JSON = ("content-type", "application/json; charset=utf-8")
FORM = ("content-type", "application/x-www-form-urlencoded")


def test_json_is_path_and_value_with_amounts_and_recipients_first() -> None:
    """Each value stands with its JSON Pointer; how much and to whom come first."""
    body = (
        b'{"memo":"x","to":[{"email":"a@b.test"}],"a/b":null,"amount":{"value":4200}}'
    )
    found = read(body, JSON)
    assert found.members == (
        ("/amount/value", "4200"),
        ("/to/0/email", '"a@b.test"'),
        ("/memo", '"x"'),
        ("/a~1b", "null"),
    )
    assert found.summary == f"JSON, {len(body)} bytes, 4 members"
    assert found.raw == (body.decode(),)
    assert not found.problem


def test_a_form_is_its_fields_decoded_and_repeated_ones_all_stand_there() -> None:
    """Fields of a form are read as a server reads them, none hides another."""
    found = read(b"memo=a+b&amount=1&amount=2&to%5B%5D=%C3%A9", FORM)
    assert found.members == (
        ("amount", '"1"'),
        ("amount", '"2"'),
        ("to[]", '"é"'),
        ("memo", '"a b"'),
    )


@pytest.mark.parametrize(
    ("body", "header", "words"),
    [
        (b'{"amount":1,"amount":9000}', JSON, "not the JSON it says"),
        (b"{", JSON, "not the JSON it says"),
        (b"a=%zz", FORM, "not the form it says"),
        (b"a=%ff", FORM, "not the form it says"),
        (b"plain", ("content-type", "text/plain"), "text"),
        (b"plain", ("x-other", "1"), "text"),
        (b"{}", ("content-encoding", "gzip"), "gzip"),
        (b"\xff\xfe", JSON, "not the JSON it says"),
        (b"\x89PNG", ("content-type", "image/png"), "no text"),
    ],
)
def test_what_two_readers_may_read_differently_is_shown_as_it_is(
    body: bytes, header: tuple[str, str], words: str
) -> None:
    """A body that is not clearly what it says has no members, only its raw lines."""
    found = read(body, header)
    assert found.summary.startswith(words)
    assert found.members == ()
    assert found.raw


def test_a_name_cannot_pass_for_a_name_with_its_value() -> None:
    """A key that holds an equals sign is quoted."""
    ((name, value),) = read(b'{"amount = 1":9000}', JSON).members
    assert (name, value) == ('"/amount = 1"', "9000")


def test_lines_of_text_end_in_a_mark_and_bytes_are_hex() -> None:
    """A break of the body's own is told from one of the screen."""
    assert read(b"one\ntwo").raw == ("one⏎", "two")
    assert read(b"one\ntwo", ascii_only=True).raw == ("one\\n", "two")
    (row,) = read(b"\x00\x1b[2Jok\xff").raw
    assert row.startswith("000000  00 1b 5b 32 4a 6f 6b ff")
    assert row.endswith(" ..[2Jok.")


@given(st.sampled_from(HOSTILE), st.text(max_size=20), st.booleans())
def test_no_body_is_alive_on_the_screen(
    attack: str, more: str, ascii_only: bool
) -> None:
    """Whatever stands in a body, each row is what `text.visible` leaves of it."""
    words = attack + more
    texts = [json.dumps({words: [words]}), words, json.dumps(words, ensure_ascii=False)]
    for text in texts:
        body = text.encode("utf-8", "surrogatepass")
        found = read(body, JSON, ascii_only=ascii_only)
        for shown in (
            found.summary,
            *found.raw,
            *(t for m in found.members for t in m),
        ):
            again = visible(shown.replace("⏎", ""), 10_000)
            assert again.isprintable() or not again.isascii()
            assert not {"\x1b", "\x9b", "\u202e", "\n", "\x00"} & {*shown}
            assert not ascii_only or shown.isascii()


def test_another_body_than_the_digests_is_not_shown() -> None:
    """What does not have the hash under the step-up's digest is foreign."""
    asked = request(b'{"amount":1}', JSON)
    for other in (b'{"amount":2}', b"", b'{"amount":1} '):
        found = view(asked, other)
        assert found.foreign
        assert found.members == found.raw == ()


def test_an_empty_a_lost_and_an_unread_body_say_so() -> None:
    """What is not there is said, with what helps."""
    assert read(b"").summary == "none"
    asked = request(b"{}")
    assert "the broker restarted" in gone(asked).problem
    assert "deny this" in gone(asked).problem
    assert "no broker answers" in unread(asked, Shown("no broker answers")).problem


def test_a_body_too_large_for_a_screen_says_how_much_is_shown() -> None:
    """Only the first part of a large one is shown, as it is, and that is said."""
    body = json.dumps({"memo": "é" * SHOWN}, ensure_ascii=False).encode()
    found = read(body, JSON)
    assert found.members == ()
    assert sum(len(line.encode()) for line in found.raw) in {SHOWN, SHOWN - 1}
    assert f"first {SHOWN:,} of {len(body):,} bytes" in found.problem
