"""The border: what comes out of the broker's JSON can be drawn."""

from __future__ import annotations

import unicodedata
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct, UnsetType, convert, inspect, structs
from msgspec.json import encode as to_json
from support.wire_shapes import filled

from agentvault_tui.console.state.activity import read_activity
from agentvault_tui.console.state.intake import Intake
from agentvault_tui.console.state.stepups import handed_out, takes_back
from agentvault_tui.held_body import Described, DocumentInfo
from agentvault_tui.operator_api.history import ActivityInfo, EventInfo
from agentvault_tui.operator_api.shapes import (
    AgentInfo,
    ScopeInfo,
    StatusInfo,
    StepUpInfo,
    WireShape,
)

T = TypeVar("T", bound=WireShape)
_UNSET = type(inspect.type_info(UnsetType))

_TEXT = st.text(max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _hostile(kind: type[T]) -> st.SearchStrategy[T]:
    """Any shape of a kind: each text in it is any text."""
    return _of(inspect.type_info(kind)).map(lambda given: convert(given, kind))


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType(fields=fields, tag_field=tag_field, tag=tag):
            tags = {} if tag_field is None else {tag_field: st.just(tag)}
            every = {one.encode_name: _of(one.type) for one in fields}
            needed = {one.encode_name for one in fields if one.required}
            return st.fixed_dictionaries(
                tags | {name: every[name] for name in every if name in needed},
                optional={name: every[name] for name in every if name not in needed},
            )
        case inspect.UnionType(types=types):
            known = [one for one in types if not isinstance(one, _UNSET)]
            return st.one_of(*map(_of, known))
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return st.lists(_of(item), max_size=2)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case inspect.DictType(value_type=inspect.CustomType() | inspect.AnyType()):
            return st.dictionaries(_TEXT, _JSON, max_size=3)
        case inspect.DictType(value_type=value):
            return st.dictionaries(_TEXT, _of(value), max_size=2)
    simple: dict[type, st.SearchStrategy[Any]] = {
        inspect.BoolType: st.booleans(),
        inspect.IntType: st.integers(),
        inspect.FloatType: st.floats(),
        inspect.StrType: _TEXT,
        inspect.NoneType: st.none(),
        inspect.RawType: _JSON.map(to_json).map(Raw),
    }
    return simple.get(type(kind), _JSON)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Described | DocumentInfo | WireShape):
        return []  # as it came: what draws it makes it visible
    if isinstance(value, Struct):
        return [text for each in structs.astuple(value) for text in _texts(each)]
    if isinstance(value, tuple | list):
        return [text for each in value for text in _texts(each)]
    return []


def _harmless(record: Any) -> bool:
    return not any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for text in _texts(record)
        for character in text
    )


@pytest.mark.slow
@settings(max_examples=50)
@given(_hostile(AgentInfo))
def test_agents_are_read_whatever_they_hold(told: AgentInfo) -> None:
    """No text makes the border raise, and none leaves it with a control in it."""
    assert _harmless(Intake().agent(told))
    assert _harmless(Intake().tokens(told))


@pytest.mark.slow
@settings(max_examples=50)
@given(_hostile(StepUpInfo))
def test_stepups_are_read_whatever_they_hold(told: StepUpInfo) -> None:
    """The same holds for what an agent wants a person to approve."""
    assert _harmless(Intake().stepup(told))


@settings(max_examples=50)
@given(_hostile(EventInfo))
def test_events_are_read_whatever_they_hold(told: EventInfo) -> None:
    """The same holds for the audit."""
    assert _harmless(Intake().event(told))


@settings(max_examples=50)
@given(_hostile(StatusInfo))
def test_status_is_read_whatever_it_holds(told: StatusInfo) -> None:
    """The same holds for the broker's own words."""
    assert _harmless(Intake().status(told))


@pytest.mark.slow
@settings(max_examples=50)
@given(_hostile(ActivityInfo))
def test_activity_is_read_whatever_it_holds(told: ActivityInfo) -> None:
    """The same holds for what an agent did; a day has all its quarters, or is none."""
    found = read_activity(Intake(), told)
    assert _harmless(found)
    assert found.day is None or len(found.day.series) == 3


@given(st.text())
def test_ascii_terminals_get_ascii(name: str) -> None:
    """Where the locale is not UTF-8 nothing beyond ASCII comes through."""
    told = filled(AgentInfo, {"name": name, "scopes": [name]})
    row = Intake(ascii_only=True).agent(told)
    assert all(text.isascii() for text in _texts(row))


def test_unknown_scopes_count_as_high() -> None:
    """A scope nobody describes stands first and in the colour of what is dangerous."""
    intake = Intake()
    intake.learn({"read:email": ScopeInfo(description="read mail", risk="low")})
    told = filled(AgentInfo, {"scopes": ["read:email", "launch:rocket"]})
    scopes = intake.agent(told).scopes
    assert [(s.name, s.risk) for s in scopes] == [
        ("launch:rocket", "high"),
        ("read:email", "low"),
    ]


def test_parameters_of_a_stepup_are_whole() -> None:
    """A dialog can show everything: nothing of a long value is lost at the border."""
    parameters = {"to": "x" * 4000, "n": {"a": [1, 2]}}
    row = Intake().stepup(filled(StepUpInfo, {"parameters": parameters}))
    assert row.parameters == (("to", "x" * 4000), ("n", '{"a": [1, 2]}'))


def test_the_gist_names_amounts_and_recipients() -> None:
    """What an action moves is said in a few words, with units."""
    intake = Intake()
    pay = {"parameters": {"amount": 4200, "currency": "USD"}}
    assert intake.stepup(filled(StepUpInfo, pay)).gist == "4200 USD, unit unknown"
    mail = {"detail": {"parameters": {"recipients": ["a", "b"]}}}
    assert intake.event(filled(EventInfo, mail)).note == "2 recipients"


@pytest.mark.parametrize("more", [{}, {"evaluation": True}, {"request": {"url": "x"}}])
def test_what_gets_no_token_says_so(more: dict[str, Any]) -> None:
    """An approved evaluation or call is made again: no face speaks of its token."""
    row = Intake().stepup(filled(StepUpInfo, {"resource": "a:b", **more}))
    said = takes_back(row) + handed_out(row)
    assert ("token" in said) is not bool(more)


def test_a_refused_request_without_an_action_is_named_by_its_method_and_path() -> None:
    """A person reads which request was refused, not that it was a call."""
    detail = {"method": "GET", "path": "/search", "message": "no"}
    told = {"type": "gateway.refused", "outcome": "denied", "reason": "bad_query"}
    row = Intake().event(filled(EventInfo, {**told, "detail": detail}))
    assert (row.note, row.action) == ("GET /search", "")
    tool = {**told, "detail": {**detail, "tool": "frob"}}
    assert Intake().event(filled(EventInfo, tool)).note == "frob"
    named = {**told, "action": "send:payment", "detail": detail}
    assert Intake().event(filled(EventInfo, named)).note == ""
