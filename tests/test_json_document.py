"""Documents are read strictly and encoded again with the same meaning."""

from __future__ import annotations

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from support.service_requests import ROUNDED

from agentvault_tui.json_document import (
    encode_document,
    is_exact,
    is_larger,
    read_document,
)

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_an_encoded_document_reads_as_the_same_document(value: object) -> None:
    """The bytes that are sent mean what was decided."""
    assert read_document(encode_document(value)) == value


@pytest.mark.parametrize("digits", ["1.50", "-0", "1e2", "1.0E+05", str(2**70)])
def test_a_number_keeps_its_digits(digits: str) -> None:
    """``1.50`` is shown and sent as ``1.50``, and the order of members stays."""
    text = b'{"z":%b,"a":1}' % digits.encode()
    value = read_document(b" " + text)
    assert encode_document(value) == text


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b"[-Infinity]",
        b"1e999",
        b'"\\ud800"',
        b"{} {}",
        b"01",
        b"",
        b"\xff",
        b"[" * 65 + b"]" * 65,
        b"9" * 5000,
    ],
)
def test_a_document_with_two_readings_is_refused(text: bytes) -> None:
    """Nothing is encoded again that readers of JSON take for different documents."""
    with pytest.raises(ValueError):
        read_document(text)


@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_nests_64_levels_at_most(begin: bytes, end: bytes) -> None:
    """One level more is refused, whatever it is made of; brackets in texts are none."""
    inner = b'"' + b"[{" * 80 + b'"'
    read_document(begin * 64 + inner + end * 64)
    with pytest.raises(ValueError, match="deep"):
        read_document(begin * 65 + inner + end * 65)


@pytest.mark.parametrize("digits", [*ROUNDED, "1e308", "-9007199254740991", "0.1", "2"])
def test_a_number_is_exact_if_a_double_has_its_digits(digits: str) -> None:
    """Beyond 2^53-1 an integer has neighbours that JavaScript reads as the same one."""
    value = read_document(digits.encode())
    assert is_exact(value) is (digits not in ROUNDED)
    assert encode_document(value) == digits.encode()
    if digits in ROUNDED:
        with pytest.raises(ValueError, match="round"):
            read_document(b'{"a":[%b]}' % digits.encode(), exact=True)
    else:
        assert read_document(digits.encode(), exact=True) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    ),
    st.integers(0, 40),
)
def test_a_parameter_that_is_surely_too_long_is_told_early(
    value: object, most: int
) -> None:
    """One that has room is never taken for one that has not."""
    if is_larger(value, most):
        assert len(rfc8785.dumps(value)) > most
