"""The filter language, on agents and on events."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_state import START

from agentvault_tui.clock import iso
from agentvault_tui.console.filters import AgentFacts, Filter
from agentvault_tui.console.intake import Intake
from agentvault_tui.console.records import AgentRow, Counts

_AGENT = Intake().agent(
    {
        "id": "agt_1",
        "name": "Payments Agent",
        "owner": "bob@acme.test",
        "scopes": ["send:payment"],
    }
)
_EVENT = Intake().event(
    {
        "seq": 7,
        "time": iso(START - timedelta(minutes=5)),
        "type": "token.decision",
        "agent_id": "agt_1",
        "action": "send:payment",
        "resource": "stripe:acct_42",
        "outcome": "denied",
        "reason": "policy_forbids",
    }
)


def _facts(_: AgentRow) -> AgentFacts:
    return AgentFacts(Counts(allowed=3, denied=0), "waiting")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("payments", True),
        ("PAYMENTS bob", True),
        ("payments carol", False),
        ('"payments agent"', True),
        ('"agent payments"', False),
        ("scope:payment", True),
        ("scope:email", False),
        ("owner:bob status:wait", True),
        ("status:revoked", False),
        ("risk:high", True),
        ("outcome:allowed", True),
        ("outcome:denied", False),
        ("since:1s", True),
        ("agent:pay", True),
        ("send:payment", True),
    ],
)
def test_agents(text: str, expected: bool) -> None:
    """Each word must hold; a key that says nothing of agents hides none."""
    assert Filter.parse(text).agent(_AGENT, _facts) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("acct_42", True),
        ("outcome:denied", True),
        ("outcome:allowed", False),
        ("since:10m", True),
        ("since:1m", False),
        ("type:token", True),
        ("type:stepup", False),
        ("agent:pay resource:stripe", True),
        ("status:active", True),
        ("forbids", True),
    ],
)
def test_events(text: str, expected: bool) -> None:
    """The same words find events."""
    assert Filter.parse(text).event(_EVENT, _AGENT.name, START) is expected


def test_a_mistyped_key_is_told() -> None:
    """It is looked for as text, and the nearest key is named."""
    assert Filter.parse("outcom:denied").problem == "did you mean outcome:"


def test_a_bad_span_is_told() -> None:
    """`since` without a unit says what it takes."""
    assert "10m" in Filter.parse("since:yesterday").problem


def test_the_broker_is_asked_for_what_it_knows() -> None:
    """Outcome, one agent and a time go into the query; words are sifted here."""
    wanted = Filter.parse("outcome:denied agent:pay since:1h acct")
    assert wanted.query({"agt_1": _AGENT}, START) == {
        "outcome": "denied",
        "agent": "agt_1",
        "since": iso(START - timedelta(hours=1)),
    }


@given(st.text())
def test_any_text_is_a_filter(text: str) -> None:
    """Nothing that can be typed or pasted breaks it."""
    wanted = Filter.parse(text)
    wanted.agent(_AGENT, _facts)
    wanted.event(_EVENT, "x", START)
