"""Rows of the audit: never two outcomes or causes, and at the time of their outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.fake_state import START
from support.wire_shapes import filled

from agentvault_tui.clock import iso
from agentvault_tui.console.state.folds import FeedRow, fold
from agentvault_tui.console.state.repeats import MOST_OF_A_FLOOD, Repeats
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.records import EventRow


class Course:
    """Events, each a tenth of a second after the one before."""

    def __init__(self) -> None:
        self.rows: list[EventRow] = []
        self.repeats = Repeats(lambda action: "delete" in action)

    def add(self, type_: str = "token.decision", **event: Any) -> None:
        seq = len(self.rows) + 1
        at = START + timedelta(seconds=seq / 10)
        told = {"seq": seq, "time": iso(at), "type": type_, "agent_id": "agt_1"}
        told |= {"decision_id": f"dec_{seq}", **event}
        row = Intake().event(filled(EventInfo, told))
        self.rows.append(row)
        self.repeats.add(row)

    def ask(self, outcome: str = "allowed", **event: Any) -> str:
        self.add(outcome=outcome, **{"action": "read:calendar", **event})
        return f"dec_{len(self.rows)}"

    def flood(self) -> None:
        """Let an agent be served, reach a limit, and be revoked."""
        for number in range(40):
            self.ask(action=f"read:{number}")
        for number in range(30):
            self.ask("denied", reason="limit_reached", resource=f"crm:{number}")
        for _ in range(5):
            self.ask("denied", reason="agent_revoked")

    @property
    def shown(self) -> list[FeedRow]:
        return self.repeats.rows()


@pytest.fixture
def course() -> Course:
    return Course()


def test_a_row_of_a_flood_has_one_outcome_and_one_cause(course: Course) -> None:
    """A revocation's denials begin after it, and no served request counts as one."""
    course.flood()
    rows = {(row.word, row.state.reason): row for row in course.shown}
    assert len(course.shown) <= MOST_OF_A_FLOOD
    assert [row.count for row in rows.values()] == [40, 30, 5]
    revoked = rows["denied", "agent_revoked"]
    assert (revoked.first_seq, revoked.anchor) == (71, 75)
    for row in course.shown:
        assert {one.state.word for one in row.folds} == {row.word}
        assert len({one.state.reason for one in row.folds}) == 1


def test_outcomes_without_a_row_are_counted_in_the_last(course: Course) -> None:
    """Four outcomes in three rows: none is added to another."""
    course.flood()
    for reason, detail in (
        ("", {"ended": "done", "status": 200}),
        ("", {"ended": "done", "status": 500}),
        ("upstream_reset", {"ended": "cut"}),
    ):
        decision = course.ask(reason=reason)
        course.add("gateway.result", decision_id=decision, detail=detail)
    rows = course.shown
    assert len(rows) == MOST_OF_A_FLOOD
    whole = [(row.word, row.count) for row in rows]
    others = [one for row in rows for one in row.others]
    assert sorted([*whole, *others]) == [
        ("allowed", 40),
        ("cut", 1),
        ("denied", 35),
        ("done", 1),
        ("failed", 1),
    ]


def test_a_decided_request_stands_where_it_was_decided(course: Course) -> None:
    """With who decided; what happened meanwhile comes before it."""
    decision = course.ask("escalated")
    for number in range(20):
        course.ask(action=f"read:{number}")
    course.add(
        "stepup.denied",
        decision_id=decision,
        reason="500 is too many",
        actor={"kind": "operator", "name": "root"},
    )
    last = course.shown[-1]
    assert (last.word, last.anchor, last.last.decider) == ("denied", 22, "root")
    assert last.at == course.rows[-1].time
    again = fold(course.rows)[-1]
    assert (again.head.decision_id, again.turn.seq) == (decision, 22)


def test_a_cancelled_held_call_leaves_its_step_up_waiting(course: Course) -> None:
    """It is cut, and no denial; the request for a person has a row of its own."""
    decision = course.ask("escalated")
    course.add(
        "gateway.refused", decision_id=decision, outcome="denied", reason="call_cut"
    )
    assert [row.word for row in course.shown] == ["waiting", "cut"]
    assert [one.state.word for one in fold(course.rows)] == ["waiting", "cut"]


@pytest.mark.parametrize(
    ("event", "matters"),
    [
        ({"type_": "state.recorded"}, False),
        ({"type_": "tenant.log", "action": "seta"}, False),
        ({"type_": "tenant.log", "action": "feta"}, True),
        ({"type_": "tenant.log", "action": "sapi"}, True),
        ({"type_": "upstream.revocation", "reason": "confirmed"}, False),
        ({"type_": "upstream.revocation", "reason": "no credential"}, True),
        ({"type_": "agent.revoked"}, True),
    ],
)
def test_a_detail_of_another_row_does_not_matter(
    course: Course, event: dict[str, Any], matters: bool
) -> None:
    """A token at the tenant, a step that went well; a failure does matter."""
    course.add(**event)
    assert len(course.repeats.rows(notable=True)) == matters
    assert [row.key.housekeeping for row in course.shown] == [not matters]


def test_routine_gives_way_before_causes_are_mixed(course: Course) -> None:
    """Two causes and two routine outcomes: each denial's cause has its row."""
    course.flood()
    decision = course.ask()
    course.add("token.redeemed", decision_id=decision)
    rows = course.shown
    assert [row.state.reason for row in rows if row.word == "denied"] == [
        "limit_reached",
        "agent_revoked",
    ]
    (served,) = [row for row in rows if row.key.routine]
    assert (served.word, served.others) == ("done", (("allowed", 40),))
