"""JSON of the operators' API: in ASCII, whatever agents put into it."""

from __future__ import annotations

import json
import sys

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.operator_api.codec import encode

TEXTS = st.text(st.sampled_from('aé"\\/\n\0\x7f\u20ac\U0001f600u0'), max_size=20)


@given(st.dictionaries(TEXTS, TEXTS | st.text() | st.integers() | st.none()))
def test_what_is_encoded_is_ascii_and_reads_the_same(value: dict[str, object]) -> None:
    """Quotes and backslashes next to other characters are no exception."""
    text = encode(value)
    assert text.isascii()
    mended = json.loads(json.dumps(value).encode("ascii", "replace"))
    assert json.loads(text) == mended


def test_encoding_calls_nothing_for_each_character() -> None:
    """A held body of 1 MB that is not ASCII stopped the event loop for a second."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        text = encode({"path": "éa" * 50_000})
    finally:
        sys.setprofile(None)
    assert len(text) > 300_000
    assert calls < 200
