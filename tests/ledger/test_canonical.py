"""Canonical bytes: RFC 8785 exactly, bounded, and whatever comes in, no failure."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from support.ledger_kit import decision

from agentvault_tui.clock import iso
from agentvault_tui.ledger.canonical import (
    MAX_BODY,
    MAX_DEPTH,
    canonical,
    encode_plain,
    is_plain,
)
from agentvault_tui.ledger.chain import link, prepare, read_event, text_of

_TIME = iso(datetime(2026, 11, 24, tzinfo=UTC))

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_wild_text = st.text(st.characters(categories=None), max_size=40)
_wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _wild_text
    | st.binary(max_size=8)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_wild_text | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_values)
def test_the_fast_path_is_rfc_8785(value: Any) -> None:
    """Whatever is called plain, the json module writes exactly as rfc8785 does."""
    if is_plain(value):
        assert encode_plain(value).encode() == rfc8785.dumps(value)


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=6))
def test_members_are_sorted_as_rfc_8785_sorts(value: dict[str, int]) -> None:
    """Names beyond ASCII are sorted by UTF-16 unit, not by code point."""
    assert canonical(value).encode() == rfc8785.dumps(value)


@pytest.mark.slow
@example({"\x80": None, "": None}, "", "")
@example({"\ufb33": 1, "\U0001f600": 2, "z": 3}, "", "")
@given(st.dictionaries(_wild_text, _wild, max_size=5), _wild_text, _wild_text)
def test_nothing_an_agent_sends_makes_a_body_fail(
    detail: dict[str, Any], name: str, resource: str
) -> None:
    """Any value becomes a bounded body that parses back to the event returned."""
    prepared = prepare(decision(name=name, resource=resource, x=detail))
    body = prepared.body(7, _TIME).encode()
    assert len(body) <= MAX_BODY
    event = read_event(body, bytes(32))
    assert event.actor == prepared.draft.actor
    assert event.resource == prepared.draft.resource
    assert json.loads(json.dumps(prepared.draft.detail)) == event.detail
    assert text_of(json.loads(body)) == prepared.text
    assert rfc8785.dumps(json.loads(body)) == body


@pytest.mark.slow
def test_hostile_extremes_are_bounded() -> None:
    """Endless depth, huge numbers, lone surrogates and long fields become bodies."""
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for detail in (
        {"deep": deep},
        {"loop": loop},
        {"big": 10**6000, "neg": -(2**53), "nan": float("nan"), "far": 1e300},
        {"\ud800": "\udfff"},
        {str(n): "\x01" * 100 for n in range(640)},
        {"long": "é" * 60_000},
    ):
        prepared = prepare(decision(name="\x01" * 4000, resource="𝕏" * 4000, **detail))
        body = prepared.body(2**62, _TIME).encode()
        assert len(body) <= MAX_BODY
        assert read_event(body, bytes(32)).detail == prepared.draft.detail
    flat = prepare(decision(deep=deep)).draft.detail["deep"]
    for _ in range(MAX_DEPTH):
        flat = flat[0]
    assert flat == "$too-deep"


def test_what_is_too_long_keeps_its_digest_and_its_start() -> None:
    """A cut value says how long it was, what it hashed to, and how it began."""
    value = "x" * 10_000
    cut = prepare(decision(long=value, short=1)).draft.detail
    text = f'"{value}"'.encode()
    assert cut["short"] == 1
    assert cut["long"]["$cut"] == {
        "bytes": len(text),
        "sha256": hashlib.sha256(text).hexdigest(),
        "start": '"' + "x" * 1020,
    }
    name = prepare(decision(name="n" * 9000)).draft.actor.name
    digest = hashlib.sha256(b"n" * 9000).hexdigest()
    assert name == "n" * 254 + f"…[9000 bytes, sha256:{digest}]"


@given(st.integers(0, 8192), st.text('/a%22é"', max_size=4))
def test_the_target_of_a_call_is_written_whole(size: int, text: str) -> None:
    """Path and query of up to 8,192 characters are in the row, whatever else is."""
    path = ("/" + text * 3000)[:size]
    query = "q" * (8191 - size) if size < 8192 else None
    detail = prepare(decision(path=path, query=query, long="x" * 9000)).draft.detail
    assert (detail["path"], detail["query"]) == (path, query)
    assert "$cut" in detail["long"] or "$cut" in detail
    other = prepare(decision(path="/" + "a" * 5000, query="q" * 4000)).draft.detail
    assert "$cut" in other["path"]
    assert "/a%22" in prepare(decision(path="/a%22")).text


@pytest.mark.slow
@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**62), st.binary())
def test_a_link_depends_on_every_part(previous: bytes, seq: int, body: bytes) -> None:
    """Another predecessor, place or body gives another hash."""
    digest = link(previous, seq, body)
    flipped = bytes([previous[0] ^ 1]) + previous[1:]
    assert digest != link(flipped, seq, body)
    assert digest != link(previous, seq + 1, body)
    assert digest != link(previous, seq, body + b"x")
