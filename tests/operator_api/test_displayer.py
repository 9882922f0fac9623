"""Shapes that can be drawn: each text in its bound, each moment a `datetime`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import defstruct
from support.hostile_shapes import harmless, hostile, texts
from support.wire_shapes import filled

from agentvault_tui.clock import iso
from agentvault_tui.operator_api.access import TreeToken
from agentvault_tui.operator_api.alerts import AlertList
from agentvault_tui.operator_api.displayer import EPOCH, Displayer, plan
from agentvault_tui.operator_api.ending import DecisionAnswer
from agentvault_tui.operator_api.gateway import CallInfo, ServiceList
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.shapes import (
    AccountInfo,
    AgentInfo,
    AgentRef,
    SeatInfo,
    StepInfo,
    Text,
    WireShape,
)
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.records import StepUpRow, TreeRow
from agentvault_tui.text import Shown, cell_width

KINDS = (AccountInfo, AlertList, CallInfo, SeatInfo, ServiceList, StepInfo)


@settings(max_examples=60)
@given(st.one_of(*map(hostile, KINDS)), st.booleans())
def test_no_text_of_a_shape_reaches_a_terminal_raw(info: Any, ascii_only: bool) -> None:
    """Each member that is typed as displayable is, and the shape itself stays raw."""
    before = repr(info)
    displayed = Displayer(ascii_only=ascii_only).read(info, type(info))
    assert harmless(displayed)
    assert not ascii_only or all(text.isascii() for text in texts(displayed))
    assert repr(info) == before


def test_each_text_has_its_own_bound() -> None:
    """A name takes 80 cells, a path 400, a line 200, wherever it is drawn."""
    long = dict.fromkeys(("agent_name", "path", "route"), "x" * 999)
    call = Displayer().read(filled(CallInfo, long), CallInfo[Shown, datetime])
    assert cell_width(call.agent_name) == 80
    assert cell_width(call.path) == 400
    assert cell_width(call.route) == 200
    files = filled(ServiceList, {"problems": {"\x1b[2J": "x" * 999}})
    problems = Displayer().read(files, ServiceList[Shown, datetime]).problems
    assert [(name, len(why)) for name, why in problems.items()] == [
        ("⟦U+001B⟧[2J", 400)
    ]


def test_moments_are_read_once() -> None:
    """A moment becomes a `datetime`; a malformed one is none, or long ago."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    sent = filled(StepInfo, {"begun_at": iso(at), "next_at": "soon"})
    step = Displayer().read(sent, StepInfo[Shown, datetime])
    assert (step.begun_at, step.next_at) == (at, None)
    call = filled(CallInfo, {"started_at": "yesterday"})
    assert Displayer().read(call, CallInfo[Shown, datetime]).started_at == EPOCH
    assert at - EPOCH > timedelta(days=1)


def test_an_absent_text_is_empty_where_it_is_drawn() -> None:
    """Null on the wire is an empty text in a row, which nothing has to ask for."""
    sent = filled(EventInfo, {"agent_id": None, "reason": "\x1b"})
    row = Displayer().read(sent, EventInfo[Shown, datetime, Shown])
    assert (row.agent_id, row.reason) == ("", "⟦U+001B⟧")
    assert sent.agent_id is None


def test_a_row_extends_its_shape() -> None:
    """It has the shape's members, displayable, and those that are derived from them."""
    given = {"id": "tok\x07", "agent": {"id": "agt_1", "name": "a\x07"}, "depth": 1}
    sent = filled(TreeToken, given)
    row = Displayer().extend(sent, TreeRow, tokens=3, depth=2)
    assert (row.id, row.agent.name) == ("tok⟦U+0007⟧", "a⟦U+0007⟧")
    assert (row.tokens, row.depth, sent.depth) == (3, 2, 1)


def test_an_answer_is_a_row_without_its_own_members() -> None:
    """The answer to a decision is a step-up with members that no row has."""
    answer = filled(DecisionAnswer, {"id": "sup_1", "recorded": False})
    row = Intake().stepup(answer)
    assert (type(row), row.id) == (StepUpRow, "sup_1")


def test_another_class_is_refused() -> None:
    """A shape is displayed as its own class, never as another one."""
    ref = AgentRef(id="agt_1", name="a")
    with pytest.raises(TypeError, match="AgentRef is no CallInfo"):
        Displayer().read(ref, CallInfo[Shown, datetime])


@pytest.mark.parametrize(
    "hint", [list[Text], dict[str, list[Text]], Text | dict[Text, int]]
)
def test_a_type_without_a_conversion_is_refused(hint: Any) -> None:
    """A text is converted wherever a shape has one, or the shape cannot be drawn."""
    kind = defstruct("Odd", [("member", hint)], bases=(WireShape,))
    with pytest.raises(TypeError, match="no conversion"):
        plan(kind)


@given(st.text())
def test_ascii_terminals_get_ascii(name: str) -> None:
    """Where the locale is not UTF-8 nothing beyond ASCII comes through."""
    agent = filled(AgentInfo, {"name": name, "scopes": [name]})
    row = Intake(ascii_only=True).agent(agent)
    assert all(text.isascii() for text in texts(row))
