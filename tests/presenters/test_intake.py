"""The border: what comes out of the broker's JSON can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile_shapes import harmless, hostile
from support.wire_shapes import filled

from agentvault_tui.console.state.mirror import token_store
from agentvault_tui.operator_api.access import DelegationTree
from agentvault_tui.operator_api.history import ActivityInfo, EventInfo
from agentvault_tui.operator_api.limits import LimitList
from agentvault_tui.operator_api.shapes import (
    AgentInfo,
    ScopeInfo,
    StatusInfo,
    WireShape,
)
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.activity import day_of, read_activity
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.limits import LimitRows, windows
from agentvault_tui.presenters.records import StatusRow
from agentvault_tui.presenters.stepups import handed_out, takes_back

READ: dict[type[WireShape], Callable[[Any], object]] = {
    AgentInfo: lambda info: (Intake().agent(info), token_store(Intake(), info)),
    StepUpInfo: lambda info: Intake().stepup(info),
    EventInfo: lambda info: Intake().event(info),
    StatusInfo: lambda info: Intake().read(info, StatusRow),
    DelegationTree: lambda info: Intake().tree(info),
    LimitList: lambda info: [*windows(Intake().read(info, LimitRows))],
    ActivityInfo: lambda info: read_activity(Intake(), info),
}


@pytest.mark.slow
@settings(max_examples=250)
@given(st.one_of(*map(hostile, READ)))
def test_answers_are_read_with_any_text_in_them(info: WireShape) -> None:
    """No text makes the border raise, and none leaves it with a control in it."""
    record = READ[type(info)](info)
    assert harmless(record)
    if isinstance(record, ActivityInfo):  # a day has all its quarters, or is none
        day = day_of(record)
        assert day is None or len(day.series) == 3


def test_unknown_scopes_count_as_high() -> None:
    """A scope nobody describes stands first and in the colour of what is dangerous."""
    intake = Intake()
    intake.learn({"read:email": ScopeInfo(description="read mail", risk="low")})
    told = filled(AgentInfo, {"scopes": ["read:email", "launch:rocket"]})
    scopes = intake.grants(intake.agent(told))
    assert [(s.name, s.risk) for s in scopes] == [
        ("launch:rocket", "high"),
        ("read:email", "low"),
    ]


def test_parameters_of_a_stepup_are_whole() -> None:
    """A dialog can show everything: nothing of a long value is lost at the border."""
    parameters = {"to": "x" * 4000, "n": {"a": [1, 2]}}
    row = Intake().stepup(filled(StepUpInfo, {"parameters": parameters}))
    assert row.members == (("to", "x" * 4000), ("n", '{"a": [1, 2]}'))


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
