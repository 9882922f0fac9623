"""What is taken from an answer: its JSON, and when it is worth asking again."""

from datetime import timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import NOON

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.vault.reply import LONGEST_WAIT, TenantReply, read_reply

RESET = int(NOON.timestamp()) + 40
DATE = "Tue, 24 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "17", "x-ratelimit-reset": str(RESET)}, 17.0),
        ({"x-ratelimit-reset": str(RESET), "date": DATE}, 40.0),
        ({"x-ratelimit-reset": str(RESET - 100), "date": DATE}, 0.0),
        ({"x-ratelimit-reset": str(RESET * 1000), "date": DATE}, LONGEST_WAIT),
        ({"retry-after": "99999999"}, LONGEST_WAIT),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "９"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "9" * 40}, None),
    ],
)
def test_how_long_to_wait_is_taken_from_the_headers(
    headers: dict[str, str], wait: float | None
) -> None:
    """The reset is an epoch, never a delta; what is odd or endless is not believed."""
    assert read_reply(429, headers, b"").wait(NOON) == wait


@pytest.mark.parametrize("minutes", [-10, 10])
def test_our_clocks_skew_does_not_change_the_wait(minutes: int) -> None:
    """Ten minutes of skew cancel out: the tenant's Date is the other end."""
    headers = {"x-ratelimit-reset": str(RESET), "date": DATE}
    ours = NOON + timedelta(minutes=minutes)
    assert read_reply(429, headers, b"").wait(ours) == 40.0


@given(
    st.dictionaries(
        st.sampled_from(["date", "retry-after", "x-ratelimit-reset"]), st.text()
    ),
    st.binary(max_size=200),
)
def test_any_answer_is_read(headers: dict[str, str], content: bytes) -> None:
    """No header and no body ends in an exception."""
    found = read_reply(200, headers, content)
    assert 0 <= (found.wait(NOON) or 0) <= LONGEST_WAIT


PIECES = ["\\ud800", "\\udfff\\ud83d", "\\uD83D\\uDE00", "a", "\\\\ud800"]


@given(st.lists(st.sampled_from(PIECES), max_size=6))
def test_lone_surrogates_in_an_answer_are_replaced(pieces: list[str]) -> None:
    """Half a surrogate pair, which nothing can store, never gets past the door."""
    raw = '{"k%s": ["%s"]}' % ("".join(pieces), "".join(pieces))  # noqa: UP031
    found = read_reply(200, {}, raw.encode()).json()
    (name,) = found
    assert quote(name) == quote(f"k{found[name][0]}")
    whole = read_reply(200, {}, b'["\\uD83D\\uDE00 \\\\ud800"]').value
    assert whole == ["\U0001f600 \\ud800"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id": "\xed\xa0\x80"}',
        b'{"id": "\xff"}',
        '{"id": "a"}'.encode("utf-16"),
        b'{"n": 1e999}',
        b'{"n": NaN}',
        b'{"n": -Infinity}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b"[" * 100_000,
        b'{"a": ' * 900 + b"1" + b"}" * 900,
    ],
    ids=lambda raw: ascii(raw[:12]),
)
def test_duplicate_keys_in_an_answer_are_refused(raw: bytes) -> None:
    """Odd encodings, numbers, duplicates and depth are refused whole, never halved."""
    assert read_reply(200, {}, raw).value is None


def test_deeply_nested_answers_are_refused() -> None:
    """What the tenant does send, and some more, is still read."""
    raw = b"[" * 32 + b"1" + b"]" * 32
    assert read_reply(200, {}, raw).value is not None


@pytest.mark.parametrize("value", [None, 5, "x", [1], [{}, "x"], {"rows": {}}, {}])
def test_an_answer_without_rows_is_an_outage(value: object) -> None:
    """A list that is none is told, and is never an empty one."""
    with pytest.raises(TenantUnreachableError, match="something else than a list"):
        TenantReply(200, value).rows("rows")


def test_rows_are_read_bare_or_under_their_key() -> None:
    """Both of Auth0's ways to send a list are read."""
    assert TenantReply(200, [{"a": 1}]).rows("rows") == [{"a": 1}]
    assert TenantReply(200, {"rows": [{"a": 1}]}).rows("rows") == [{"a": 1}]
