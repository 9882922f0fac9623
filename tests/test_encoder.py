"""JSON text: what it says, in characters that hurt nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.encoder import from_base64url, to_base64url, to_json

text = st.text(st.characters(categories=None), max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_json_is_printable_ascii_and_reads_back_as_it_was(value: Any) -> None:
    """Whatever a value holds, lone surrogates and controls too."""
    written = to_json(value)
    assert written.isascii()
    assert written.isprintable()
    read = json.loads(written)
    assert read == value
    assert json.dumps(read) == json.dumps(value)  # 1, 1.0 and true are not the same


@given(st.binary(max_size=40))
def test_base64url_is_read_back_with_padding_and_without(raw: bytes) -> None:
    """What is written has none (RFC 7515 section 2)."""
    written = to_base64url(raw)
    assert set(written).isdisjoint("=+/")
    assert from_base64url(written) == raw
    assert from_base64url(written + "=" * (-len(written) % 4)) == raw


@pytest.mark.parametrize("text", ["A", "AAAAA", "é"])
def test_base64url_that_is_cut_off_is_a_value_error(text: str) -> None:
    """Callers know of that error alone."""
    with pytest.raises(ValueError, match=r"."):
        from_base64url(text)
