"""A held call's body in a console: members, and the bytes as lines, nothing alive."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console_scenes import HOSTILE

from agentvault_tui.operator_api.gateway import HeldBody
from agentvault_tui.operator_api.stepups import HeldRequestInfo
from agentvault_tui.presenters.body import body_view, unread, view
from agentvault_tui.presenters.records import BodyView, HeldRequest
from agentvault_tui.text import Shown, visible


def read(body: bytes, kind: str = "json", *, ascii_only: bool = False) -> BodyView:
    return view(request(body, kind), body, ascii_only=ascii_only)


def request(body: bytes, kind: str = "json") -> HeldRequest:
    digest = sha256(body).hexdigest()
    return HeldRequestInfo(
        method=Shown("POST"),
        url=Shown("https://x.test/"),
        headers={},
        body_kind=kind,
        body_bytes=len(body),
        body_sha256=digest,
    )


def test_members_and_bytes_are_both_there() -> None:
    """The bytes that are sent are there to the letter, next to what they say."""
    body = b'{"memo":"x","amount":1.50}'
    found = read(body)
    assert found.members == (("/amount", "1.50"), ("/memo", '"x"'))
    assert found.summary == f"JSON, {len(body)} bytes, 2 members"
    assert found.raw == (body.decode(),)
    assert not found.problem


def test_opaque_content_has_no_members() -> None:
    """However much it looks like JSON."""
    found = read(b'{"amount":1}', "opaque")
    assert found.members == ()
    assert found.summary == "opaque, 12 bytes"


def test_lines_of_text_end_in_a_mark_and_bytes_are_hex() -> None:
    """A break of the body's own is told from one of the screen."""
    assert read(b"one\ntwo", "opaque").raw == ("one⏎", "two")
    assert read(b"one\ntwo", "opaque", ascii_only=True).raw == ("one\\n", "two")
    (row,) = read(b"\x00\x1b[2Jok\xff", "opaque").raw
    assert row.startswith("000000  00 1b 5b 32 4a 6f 6b ff")
    assert row.endswith(" ..[2Jok.")


@given(st.sampled_from(HOSTILE), st.text(max_size=20), st.booleans())
def test_no_body_is_alive_on_the_screen(
    attack: str, more: str, ascii_only: bool
) -> None:
    """Whatever is in a body, each row is what `text.visible` leaves of it."""
    words = attack + more
    texts = [json.dumps({words: [words]}), words, json.dumps(words, ensure_ascii=False)]
    for text in texts:
        body = text.encode("utf-8", "surrogatepass")
        for kind in ("json", "opaque"):
            found = read(body, kind, ascii_only=ascii_only)
            for shown in (
                found.summary,
                *found.raw,
                *(t for m in found.members for t in m),
            ):
                again = visible(shown.replace("⏎", ""), 10_000)
                assert again.isprintable() or not again.isascii()
                assert not {"\x1b", "\x9b", "\u202e", "\n", "\x00"} & {*shown}
                assert not ascii_only or shown.isascii()


@pytest.mark.parametrize("other", [b'{"amount":2}', b"", b'{"amount":1} '])
def test_another_body_than_the_digests_is_not_shown(other: bytes) -> None:
    """Bytes without the hash under the step-up's digest are foreign."""
    found = view(request(b'{"amount":1}'), other)
    assert found.foreign
    assert found.members == found.raw == ()


def test_an_empty_a_lost_and_an_unread_body_say_so() -> None:
    """A lost body is reported, with a remedy."""
    assert read(b"", "none").summary == "none"
    asked = request(b"{}")
    answer = HeldBody(sha256=None, bytes=2, base64=None)
    lost = body_view(asked, answer)
    assert lost.lost
    assert "can only be denied" in lost.problem
    here = HeldBody(sha256=None, bytes=2, base64=base64.b64encode(b"{}").decode())
    assert not body_view(asked, here).lost
    assert body_view(asked, HeldBody(sha256=None, bytes=2, base64="%")).foreign
    assert "no broker answers" in unread(asked, Shown("no broker answers")).problem


def test_a_body_too_large_for_a_screen_says_how_much_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its members are listed, its bytes only from the beginning."""
    monkeypatch.setattr("agentvault_tui.presenters.body.SHOWN", shown := 2_000)
    body = json.dumps({"amount": 7, "memo": "é" * shown}, ensure_ascii=False).encode()
    found = read(body)
    assert found.members[0] == ("/amount", "7")
    assert sum(len(line.encode()) for line in found.raw) in {shown, shown - 1}
    left = f"{len(body) - shown:,} of {len(body):,} bytes are not shown"
    assert left in found.problem
    assert "stepup show ID --save FILE" in found.problem


def test_members_that_are_not_listed_are_counted() -> None:
    """The command that has all of them is named."""
    body = b"[%s]" % b",".join(b"0" for _ in range(6_000))
    assert read(body).problem.startswith("1,000 more members are not listed")
