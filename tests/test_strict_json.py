"""JSON of others' is read in one way, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui import strict_json

ODD = {
    "key twice": '{"a":1,"a":2}',
    "inner key twice": '{"x":{"b":1,"b":1}}',
    "not a number": "NaN",
    "infinity": "[Infinity]",
    "beyond a double": "[1e999]",
    "beyond any digits": "9" * 5000,
    "bottomless": "[" * 10**5,
    "33 levels": "[" * 33 + "]" * 33,
    "empty": "",
    "cut": "{",
    "half a pair, escaped": r'["\ud800"]',
    "half a pair in a name": r'{"\udc00": 1}',
    "half a pair as it is": '["\ud800"]',
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_ambiguous_json_is_refused(text: str) -> None:
    """Duplicate keys, non-numbers, halves of characters and bottomless nesting."""
    with pytest.raises(ValueError):
        strict_json.loads(text)


def test_other_encodings_than_utf_8_are_refused() -> None:
    """RFC 8259 section 8.1: what a library guesses, another does not."""
    assert strict_json.loads('{"ä": 1}'.encode()) == {"ä": 1}
    for encoding in ("utf-16", "utf-32", "latin-1"):
        with pytest.raises(ValueError):
            strict_json.loads('{"ä": 1}'.encode(encoding))


def test_more_members_than_can_be_read_in_a_fair_time_are_refused() -> None:
    """Half a million commas and colons: ten megabytes would take seconds."""
    for text in ("[" + "1," * 500_001 + "1]", '{"a":' * 500_001):
        with pytest.raises(ValueError, match="too many"):
            strict_json.loads(text)
    assert strict_json.loads('"' + "x" * 2**20 + '"')


def test_a_lone_surrogate_is_replaced_on_demand() -> None:
    """A text that is only shown keeps the rest of its characters; whole pairs stay."""
    read = strict_json.loads(r'{"a\ud800": "b\udfffc \ud83d\ude00"}', mend=True)
    assert read == {"a?": "b?c \U0001f600"}
    assert strict_json.loads(r'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_ordinary_json_is_parsed_as_by_the_standard_library(value: object) -> None:
    """Nothing else is refused or changed, whatever names and texts there are."""
    assert strict_json.loads(json.dumps(value)) == value
