"""The border: what comes out of the broker's JSON can be drawn."""

from __future__ import annotations

import unicodedata
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentvault_tui.console.state.intake import Intake

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _some(names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), _ANY))


_AGENT = _some(
    "id name owner purpose scopes created_at revoked_at last_seen_at tokens_live "
    "counts status"
)
_STEPUP = _some(
    "id agent_name action resource parameters reason why risk digest fingerprint "
    "problem decided_by device status count ttl"
)
_EVENT = _some(
    "seq time type actor agent_id action resource outcome reason rule decision_id "
    "detail"
)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if is_dataclass(value):
        return [t for f in fields(value) for t in _texts(getattr(value, f.name))]
    if isinstance(value, tuple | list):
        return [text for each in value for text in _texts(each)]
    return []


def _harmless(record: Any) -> bool:
    return not any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for text in _texts(record)
        for character in text
    )


@settings(max_examples=50)
@given(_AGENT)
def test_agents_are_read_whatever_they_hold(data: dict[str, Any]) -> None:
    """No JSON makes the border raise, and no text leaves it with a control in it."""
    assert _harmless(Intake().agent(data))
    assert _harmless(Intake().counts(data))


@settings(max_examples=50)
@given(_STEPUP)
def test_stepups_are_read_whatever_they_hold(data: dict[str, Any]) -> None:
    """The same holds for what an agent wants a person to approve."""
    assert _harmless(Intake().stepup(data))


@settings(max_examples=50)
@given(_EVENT)
def test_events_are_read_whatever_they_hold(data: dict[str, Any]) -> None:
    """The same holds for the audit."""
    assert _harmless(Intake().event(data))


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=8), _ANY, max_size=8))
def test_status_is_read_whatever_it_holds(data: dict[str, Any]) -> None:
    """The same holds for the broker's own words."""
    assert _harmless(Intake().status(data))


@given(st.text())
def test_ascii_terminals_get_ascii(name: str) -> None:
    """Where the locale is not UTF-8 nothing beyond ASCII comes through."""
    row = Intake(ascii_only=True).agent({"name": name, "scopes": [name]})
    assert all(text.isascii() for text in _texts(row))


def test_unknown_scopes_count_as_high() -> None:
    """A scope nobody describes stands first and in the colour of what is dangerous."""
    intake = Intake()
    intake.learn({"read:email": {"description": "read mail", "risk": "low"}})
    scopes = intake.agent({"scopes": ["read:email", "launch:rocket"]}).scopes
    assert [(s.name, s.risk) for s in scopes] == [
        ("launch:rocket", "high"),
        ("read:email", "low"),
    ]


def test_parameters_of_a_stepup_are_whole() -> None:
    """A dialog can show everything: nothing of a long value is lost at the border."""
    row = Intake().stepup({"parameters": {"to": "x" * 4000, "n": {"a": [1, 2]}}})
    assert row.parameters == (("to", "x" * 4000), ("n", '{"a": [1, 2]}'))


def test_the_gist_names_amounts_and_recipients() -> None:
    """What an action moves is said in a few words, with units."""
    intake = Intake()
    pay = {"parameters": {"amount": 4200, "currency": "USD"}}
    assert intake.stepup(pay).gist == "4,200 USD"
    mail = {"detail": {"parameters": {"recipients": ["a", "b"]}}}
    assert intake.event(mail).note == "2 recipients"
