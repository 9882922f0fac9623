"""Where to go in the audit: every way to write it, and words for what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.presenters.moments import LedgerMoment, parse_ledger_moment

NOW = datetime(2026, 11, 24, 14, 2, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1842", LedgerMoment(seq=1842)),
        ("#1842", LedgerMoment(seq=1842)),
        ("184,302", LedgerMoment(seq=184_302)),
        ("start", LedgerMoment(seq=1)),
        ("end", LedgerMoment()),
        ("now", LedgerMoment()),
        ("-10m", LedgerMoment(at=NOW - timedelta(minutes=10))),
        ("10m", LedgerMoment(at=NOW - timedelta(minutes=10))),
        ("14:02", LedgerMoment(at=NOW.replace(second=0))),
        ("9:30", LedgerMoment(at=NOW.replace(hour=9, minute=30, second=0))),
        ("14:03", LedgerMoment(at=NOW.replace(day=23, minute=3, second=0))),
        ("2026-11-24 14:02", LedgerMoment(at=NOW.replace(second=0))),
        (" 2026-11-24   9:02 ", LedgerMoment(at=NOW.replace(hour=9, second=0))),
        ("2026-11-24T14:02:11Z", LedgerMoment(at=NOW)),
        ("2026-11-01", LedgerMoment(at=datetime(2026, 11, 1, tzinfo=UTC))),
    ],
)
def test_a_place_can_be_written_as_people_do(text: str, place: LedgerMoment) -> None:
    """Numbers, ends, spans back, times of day and dates are understood."""
    assert parse_ledger_moment(text, NOW) == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write where to"),
        ("25:99", "no time and no number"),
        ("yesterday", "no time and no number"),
        ("1,84", "no time and no number"),
        ("2026-11-25", "has not come yet"),
        ("+10m", "nothing of the future"),
    ],
)
def test_an_unreadable_place_is_answered_in_words(text: str, said: str) -> None:
    """Bad input is answered in words that say what would be good."""
    answer = parse_ledger_moment(text, NOW)
    assert isinstance(answer, str)
    assert said in answer


@given(st.text(max_size=30))
def test_any_text_is_answered(text: str) -> None:
    """Whatever is typed, there is a place not in the future, or a short line."""
    answer = parse_ledger_moment(text, NOW)
    if isinstance(answer, str):
        assert answer.isprintable()
        assert len(answer) < 90
    else:
        assert answer.at is None or answer.at <= NOW
