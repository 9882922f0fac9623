"""Outcomes, reasons and types of events are words, from one table each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import agentvault_tui
from agentvault_tui.model import EventType
from agentvault_tui.presenters.outcomes import (
    EVENT_PHRASES,
    OUTCOME_WORDS,
    REASONS,
    event_phrase,
    outcome_word,
    reason_words,
)

PACKAGE = Path(agentvault_tui.__file__).parent
REFUSALS = re.compile(
    r"(?:CallRefusedError\(\s*\d+,|UnreadableRequestError\(|(?<!def )_refusal\(\d+,"
    r"|Denied\()\s*(?:\"[a-z_]+\",\s*)?\"([a-z_]+)\""
)
"""Where the gateway and the broker refuse, with the code of the reason."""


@pytest.mark.parametrize(
    ("type_", "outcome", "detail", "word"),
    [
        ("token.decision", "allowed", {}, "allowed"),
        ("gateway.refused", "denied", {}, "denied"),
        ("gateway.held", "escalated", {}, "waiting"),
        ("stepup.requested", None, {}, "waiting"),
        ("stepup.not_approved", None, {}, "waiting"),
        ("stepup.expired", None, {}, "denied"),
        ("stepup.denied", None, {}, "denied"),
        ("gateway.result", None, {"ended": "done", "status": 200}, "done"),
        ("gateway.result", None, {"ended": "done", "status": 399}, "done"),
        ("gateway.result", None, {"ended": "done", "status": 400}, "failed"),
        ("gateway.result", None, {"ended": "failed", "status": 200}, "failed"),
        ("gateway.result", None, {"ended": "unknown"}, "unknown"),
        ("gateway.result", None, {"ended": "cut", "status": 200}, "cut"),
        ("gateway.tunnel", None, {"ended": "done"}, "done"),
        ("token.revoked", None, {}, "cut"),
        ("token.used", None, {}, "done"),
        ("operator.login", None, {}, "changed"),
        ("agent.registered", None, {}, "changed"),
        ("broker.started", None, {}, "changed"),
        ("a.type_of_tomorrow", None, {}, "changed"),
    ],
)
def test_each_event_has_one_of_eight_words(
    type_: str, outcome: str | None, detail: dict[str, Any], word: str
) -> None:
    """The word says how it ended; an event that is no request or call is a change."""
    assert outcome_word(type_, outcome, None, detail) == word
    assert word in OUTCOME_WORDS


def test_a_token_that_its_agent_returns_is_done() -> None:
    """Only a token that somebody else ends is cut."""
    assert outcome_word("token.revoked", None, "handed back", {}) == "done"


def test_every_type_of_event_has_a_phrase() -> None:
    """No row names what happened by its code."""
    assert sorted(EVENT_PHRASES) == sorted(map(str, EventType))
    assert event_phrase("a.type_of_tomorrow") == "a type of tomorrow"


def test_every_reason_of_a_refusal_has_words() -> None:
    """Each code with which the broker or the gateway refuses is in the table."""
    found = {
        code
        for folder in ("broker", "gateway")
        for path in (PACKAGE / folder).rglob("*.py")
        for code in REFUSALS.findall(path.read_text())
    }
    assert len(found) > 20
    # The code of OAuth, where no other says more.
    assert sorted(found - REASONS.keys() - {"access_denied"}) == []


def test_a_persons_words_stay_as_they_are() -> None:
    """A reason that is no code is shown as it was written."""
    assert reason_words("runaway bookings") == "runaway bookings"


def test_a_cancelled_held_call_is_cut_and_no_denial() -> None:
    """An operator ended it; policy and people denied nothing."""
    assert outcome_word("gateway.refused", "denied", "call_cut", {}) == "cut"
    assert outcome_word("gateway.refused", "denied", "no_route", {}) == "denied"
