"""A held call's body for people: every kind read back, nothing guessed, all bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui import json_document
from agentvault_tui.held_body import (
    PAGE,
    SCREEN,
    UNREADABLE,
    BodyText,
    Described,
    ForeignBodyError,
    HeldContent,
    JsonBody,
    LostBody,
    read,
    text,
)

BOUNDARY = "agentvault-0123456789abcdef"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
TYPES = {
    "none": "",
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": MULTIPART,
    "opaque": "image/png",
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,8})?(e[+-]?[0-9]{1,2})?", fullmatch=True
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | TEXT | NUMBERS.map(json_document.Number.parse),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)
PLAIN = st.text(st.characters(codec="ascii", categories=("L", "N", "Zs")), min_size=1)
PARTS = st.lists(
    st.tuples(PLAIN, TEXT.map(str.encode), st.none(), st.none())
    | st.tuples(
        PLAIN, st.binary(max_size=40), PLAIN, st.sampled_from([None, "image/png"])
    ),
    max_size=4,
)


def described(kind: str, body: bytes, **more: Any) -> Described:
    digest = sha256(body).hexdigest()
    return Described(kind, more.pop("type", TYPES[kind]), len(body), digest, **more)


def shown(kind: str, body: bytes, room: Any = SCREEN, **more: Any) -> BodyText:
    said = described(kind, body, **more)
    return text(said, read(said, body), room)


def on_the_wire(content: HeldContent) -> dict[str, Any]:
    """Return a content as a client of the operators' API reads it, digits and all."""
    wire = msgspec.json.encode(content)
    assert type(msgspec.json.decode(wire, type=HeldContent)) is type(content)
    found = json_document.read_document(wire)
    assert isinstance(found, dict)
    return found


def multipart(parts: Sequence[tuple[str, bytes, str | None, str | None]]) -> bytes:
    """Encode parts as the gateway does."""
    pieces = []
    for name, data, filename, kind in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
        )
        head += f"Content-Type: {kind}\r\n" if kind else ""
        pieces.append(f"{head}\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


@given(DOCUMENTS)
def test_a_document_is_read_back_with_its_digits(document: object) -> None:
    """The value on the wire is the document that is sent, byte for byte."""
    body = json_document.encode_document(document)
    found = on_the_wire(read(described("json", body), body))
    assert found["kind"] == "json"
    assert json_document.encode_document(found["value"]) == body
    for _, value in shown("json", body).members:
        assert value.encode() in body


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_a_form_is_read_back_pair_by_pair(pairs: list[tuple[str, str]]) -> None:
    """Each pair is there in its order, those with the same name too."""
    coded = (f"{quote_plus(n, safe='')}={quote_plus(v, safe='')}" for n, v in pairs)
    body = "&".join(coded).encode()
    found = on_the_wire(read(described("form", body), body))
    assert found == {"kind": "form", "pairs": [list(pair) for pair in pairs]}
    members = shown("form", body).members
    assert sorted(json.loads(value) for _, value in members) == sorted(
        value for _, value in pairs
    )


@given(PARTS)
def test_parts_are_read_back_with_names_types_sizes_and_digests(
    parts: list[tuple[str, bytes, str | None, str | None]],
) -> None:
    """Fields have their values; files what is known of them and not their content."""
    body = multipart(parts)
    found = on_the_wire(read(described("multipart", body), body))
    expected = [
        {"name": name, "value": data.decode()}
        if filename is None
        else {
            "name": name,
            "filename": filename,
            "type": kind,
            "bytes": len(data),
            "sha256": sha256(data).hexdigest(),
        }
        for name, data, filename, kind in parts
    ]
    assert found == {"kind": "multipart", "parts": expected}
    members = shown("multipart", body).members
    digests = [value for name, value in members if name == "its SHA-256"]
    assert len(members) - len(digests) == len(parts)
    assert digests == [one["sha256"] for one in expected if "sha256" in one]


@given(st.binary(min_size=1))
def test_opaque_content_is_its_type_size_and_digest(body: bytes) -> None:
    """None of it is read, and the sentence that says so is a warning."""
    said = described("opaque", body, encoding="gzip")
    digest = sha256(body).hexdigest()
    assert on_the_wire(read(said, body)) == {
        "kind": "opaque",
        "type": "image/png",
        "bytes": len(body),
        "sha256": digest,
        "encoding": "gzip",
    }
    found = shown("opaque", body, encoding="gzip")
    assert not found.members
    assert found.warning.startswith(UNREADABLE)
    for words in ("image/png", f"{len(body):,} bytes", "gzip", digest):
        assert words in found.warning


@given(st.sampled_from(sorted(TYPES)), st.binary())
def test_any_bytes_are_read_as_their_kind_or_refused(kind: str, body: bytes) -> None:
    """Whatever is held, a person sees what it is, or that nothing is approved on it."""
    said = described(kind, body)
    try:
        content = read(said, body)
        text(said, content)
    except ForeignBodyError:
        return
    assert on_the_wire(content)["kind"] == kind


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("none", b"x"),
        ("json", b"{"),
        ("json", b'"\xff"'),
        ("form", b"a=%zz"),
        ("form", b"a=%ff"),
        ("multipart", b"a=1"),
        ("multipart", multipart([("a", b"\xff", None, None)])),
        ("multipart", b"x" + multipart([("a", b"1", None, None)])),
        ("multipart", multipart([("a", b"1", None, None)]) + b"x"),
        ("multipart", multipart([('a"; x="b', b"1", None, None)])),
        ("multipart", multipart([("a", b"\r\n--" + BOUNDARY.encode(), "f", None)])),
        ("another", b"x"),
    ],
)
def test_bytes_of_another_kind_are_foreign(kind: str, body: bytes) -> None:
    """A body is never shown as a kind that it was not read and encoded as."""
    with pytest.raises(ForeignBodyError):
        read(Described(kind, TYPES.get(kind, ""), len(body), _hash(body)), body)


def test_a_document_that_two_readers_differ_in_is_foreign() -> None:
    """The gateway encodes no such document: it is not the one that was approved."""
    with pytest.raises(ForeignBodyError):
        shown("json", b'{"amount":1,"amount":9000}')


def test_other_bytes_than_described_are_foreign() -> None:
    """Only the bytes under the digest are shown."""
    said = described("json", b'{"amount":1}')
    for other in (b'{"amount":2}', b"", b'{"amount":1} '):
        with pytest.raises(ForeignBodyError):
            read(said, other)


def test_a_body_that_no_broker_has_is_lost_and_an_empty_one_is_not() -> None:
    """Nothing is lost where nothing is sent."""
    said = described("json", b"{}")
    assert isinstance(read(said, None), LostBody)
    assert on_the_wire(read(said, None)) == {"kind": "lost"}
    assert "can only be denied" in text(said, LostBody()).warning
    for empty in (None, b""):
        assert on_the_wire(read(described("none", b""), empty)) == {"kind": "none"}


def test_a_step_up_of_an_earlier_version_is_opaque() -> None:
    """Its kind was not recorded, and no kind is guessed."""
    body = b'{"amount":1}'
    old = {"body_sha256": _hash(body), "body_bytes": len(body)}
    said = Described.of(old | {"headers": {"content-type": "application/json"}})
    assert on_the_wire(read(said, body))["kind"] == "opaque"
    assert "no recorded type" in said.warning
    assert Described.of({"body_bytes": 0, "headers": {}}).kind == "none"


def test_members_that_say_how_much_and_to_whom_come_first() -> None:
    """Each value has its JSON Pointer, and numbers keep their digits."""
    body = (
        b'{"memo":"x","to":[{"email":"a@b.test"}],"a/b":null,"e":{},'
        b'"amount":{"value":1.50}}'
    )
    found = shown("json", body)
    assert found.members == (
        ("/amount/value", "1.50"),
        ("/to/0/email", '"a@b.test"'),
        ("/memo", '"x"'),
        ("/a~1b", "null"),
        ("/e", "{}"),
    )
    assert found.summary == f"JSON, {len(body)} bytes, 5 members"
    assert (found.left, found.cut, found.warning) == (0, 0, "")


def test_duplicated_names_of_a_form_are_each_shown() -> None:
    """None hides another, and a form is never shown as JSON."""
    found = shown("form", b"memo=a+b&amount=1&amount=2&to%5B%5D=%C3%A9")
    assert found.members == (
        ("amount", '"1"'),
        ("amount", '"2"'),
        ("to[]", '"é"'),
        ("memo", '"a b"'),
    )
    assert shown("form", b"%7B%22amount%22%3A1%7D=").members == (
        ('"{\\"amount\\":1}"', '""'),
    )


def test_neither_names_nor_values_pass_for_something_else() -> None:
    """A name with an equals sign is quoted, and a value cannot pass for a file."""
    assert shown("json", b'{"amount = 1":9000}').members == (('"/amount = 1"', "9000"),)
    parts = [("a", b'file "x.png", image/png', None, None), ("b", b"1", "x.png", None)]
    parts.append(("its SHA-256", b"0", None, None))
    found = shown("multipart", multipart(parts))
    assert found.members == (
        ("a", '"file \\"x.png\\", image/png"'),
        ("b", 'file "x.png", no type, 1 bytes'),
        ("its SHA-256", _hash(b"1")),
        ('"its SHA-256"', '"0"'),
    )
    assert found.left == 0


def test_another_media_type_than_the_usual_is_said() -> None:
    """It is part of the call."""
    kind = "application/vnd.api+json"
    assert (
        shown("json", b"{}", type=kind).summary == f"JSON ({kind}), 2 bytes, 1 member"
    )


def test_more_members_than_there_is_room_for_are_counted() -> None:
    """Amounts are shown, wherever they are in the document."""
    body = b'{"x":[%s],"amount":7}' % b",".join(b"0" for _ in range(9_000))
    found = shown("json", body)
    assert len(found.members) == SCREEN.members
    assert found.members[0] == ("/amount", "7")
    assert found.left == 9_001 - SCREEN.members
    assert "9,001 members" in found.summary
    assert len(shown("json", body, PAGE).members) == PAGE.members


def test_long_values_and_names_are_cut_and_say_so() -> None:
    """The end of a cut value is ours: its quotes are not closed."""
    body = json.dumps({"v": "x" * 5_000, "n" * 5_000: 1}).encode()
    found = shown("json", body, PAGE)
    (_, value), (name, _) = found.members
    assert value == f'"{"x" * 999}… and 4,002 more characters'
    assert name.count("n") < 350
    assert "more…" in name
    assert found.cut == 1


def test_paths_take_no_more_memory_than_is_shown() -> None:
    """A long name above many members is not written once for each of them."""
    body = b'{"%s":[%s]}' % (b"k" * 200_000, b",".join(b"0" for _ in range(50_000)))
    found = shown("json", body)
    assert sum(len(name) + len(value) for name, value in found.members) < 2_000_000
    assert len(found.members) + found.left == 50_000


def test_the_value_on_the_wire_is_the_body_itself() -> None:
    """No number is read on its way to a client."""
    body = b'{"amount":1.50,"big":12345678901234567890.10}'
    content = read(described("json", body), body)
    assert isinstance(content, JsonBody)
    assert bytes(content.value) == body


def _hash(body: bytes) -> str:
    return sha256(body).hexdigest()
