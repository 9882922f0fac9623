"""Repeats collapse into one row; what needs a person, and the riskiest, never do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.fake_state import START
from support.wire_shapes import filled

from agentvault_tui.clock import iso
from agentvault_tui.console.state.folds import RETAINED, FeedRow
from agentvault_tui.console.state.repeats import MOST_OF_A_FLOOD, Repeats
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.presenters.intake import Intake

RISKS = {"send:payment": 2, "delete:records": 2}


class Ledger:
    """Events of a day, each a second after the one before."""

    def __init__(self, **options: Any) -> None:
        self.repeats = Repeats(lambda action: RISKS.get(action, 0), **options)
        self.seq = 0
        self.every = 1.0

    def add(self, **event: Any) -> None:
        self.seq += 1
        at = START + timedelta(seconds=self.seq * self.every)
        told = {"seq": self.seq, "time": iso(at), "type": "token.decision", **event}
        told.setdefault("decision_id", f"dec_{self.seq}")
        told.setdefault("agent_id", "agt_1")
        self.repeats.add(Intake().event(filled(EventInfo, told)))

    def ask(self, action: str, outcome: str = "allowed", **event: Any) -> str:
        self.add(action=action, outcome=outcome, **event)
        return f"dec_{self.seq}"

    def pay(self, amount: int, outcome: str = "denied") -> None:
        detail = {"parameters": {"amount": amount, "currency": "USD"}}
        self.ask("send:payment", outcome, resource="stripe:acct_42", detail=detail)

    @property
    def rows(self) -> list[FeedRow]:
        return self.repeats.rows()

    def told(self) -> list[tuple[str, str, int]]:
        return [(row.head.action, row.word, row.count) for row in self.rows]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_repeats_are_one_row_with_count_and_first_time(ledger: Ledger) -> None:
    """Agent, action, resource family and outcome make a row; the last is its head."""
    for _ in range(3):
        ledger.ask("read:files", resource="files/a/b")
        ledger.ask("read:files", resource="files/c")
    ledger.ask("read:files", resource="mail/a")
    ledger.ask("read:files", agent_id="agt_2", resource="files/a")
    ledger.ask("read:files", "denied", resource="files/a")
    assert [row.count for row in ledger.rows] == [6, 1, 1, 1]
    first = ledger.rows[0]
    assert (first.first, first.anchor) == (START + timedelta(seconds=1), 6)


def test_a_request_and_what_came_of_it_are_one_row_that_completes(
    ledger: Ledger,
) -> None:
    """A call in flight becomes its result, in the row of calls that ended alike."""
    for _ in range(3):
        decision = ledger.ask("read:files")
        detail = {"ended": "done", "status": 200}
        ledger.add(type="gateway.result", decision_id=decision, detail=detail)
    assert ledger.told() == [("read:files", "done", 3)]
    ledger.ask("read:files")
    assert ledger.told() == [("read:files", "done", 3), ("read:files", "allowed", 1)]


def test_what_waits_for_a_person_keeps_a_row_of_its_own(ledger: Ledger) -> None:
    """Alike or not, and however many come after; decided, it is a row like others."""
    decisions = [ledger.ask("send:payment", "escalated") for _ in range(2)]
    for number in range(20_000):
        ledger.ask(f"read:{number % 1500}", agent_id=f"agt_{number % 7000}")
    waiting = [row for row in ledger.rows if row.word == "waiting"]
    assert [row.count for row in waiting] == [1, 1]
    for decision in decisions:
        ledger.add(type="stepup.expired", decision_id=decision)
    assert [row.word for row in ledger.rows if row.head.action == "send:payment"] == [
        "denied"
    ]


def test_the_riskiest_denial_of_a_scope_is_never_collapsed(ledger: Ledger) -> None:
    """One large payment among many small ones is seen, whenever it was asked for."""
    for amounts in ([1] * 50 + [900_000] + [1] * 50, [7] * 50, [950_000]):
        for amount in amounts:
            ledger.pay(amount)
        rows = {row.head.note.partition(" ")[0]: row.count for row in ledger.rows}
        assert rows.get("900000", rows.get("950000")) == 1
    assert rows["950000"] == 1
    assert sum(rows.values()) == ledger.seq


def test_alike_denials_are_one_row(ledger: Ledger) -> None:
    """Where no denial is riskier than the others, none stands apart."""
    for _ in range(20):
        ledger.pay(5)
    assert ledger.told() == [("send:payment", "denied", 20)]


@pytest.mark.parametrize("vary", ["action", "resource", "outcome", "path"])
def test_a_flood_never_has_more_than_three_rows(ledger: Ledger, vary: str) -> None:
    """Whatever an agent varies, and however many scopes it is denied."""
    ledger.every = 0.01
    ledger.ask("read:mail", agent_id="agt_2")
    ledger.ask("delete:records", "denied", resource="crm:88")
    for number in range(1_000):
        action, event = "read:mail", dict[str, Any](resource=f"r:{number}")
        outcome = ("allowed", "denied")[number % 2]
        if vary == "action":
            action = f"read:x{number}"
        elif vary == "path":
            action = ""
            event = {"type": "gateway.refused", "resource": None}
            event["detail"] = {"method": "GET", "path": f"/{number}"}
            outcome = "denied"
        elif vary == "outcome":
            event["resource"] = "same"
        ledger.ask(action, outcome, **event)
    mine = [row for row in ledger.rows if row.head.agent_id == "agt_1"]
    assert len(mine) <= MOST_OF_A_FLOOD
    assert sum(row.count for row in mine) >= 400
    assert ("delete:records", "denied", 1) in ledger.told()
    assert ("read:mail", "allowed", 1) in ledger.told()


def test_what_waits_is_shown_of_a_flood_too(ledger: Ledger) -> None:
    """A flood hides no request that needs a person, nor its riskiest denial."""
    ledger.every = 0.01
    for _ in range(2):
        ledger.ask("send:payment", "escalated")
    for number in range(500):
        ledger.ask("read:mail", "denied", resource=f"r:{number}")
    assert [row.word for row in ledger.rows][:2] == ["waiting", "waiting"]
    assert len(ledger.rows) == MOST_OF_A_FLOOD


def test_an_agent_at_an_ordinary_pace_is_no_flood(ledger: Ledger) -> None:
    """One request in three seconds, each for something else, has a row each."""
    ledger.every = 3.0
    for number in range(50):
        ledger.ask("read:records", resource=f"crm:{number}")
    assert len(ledger.rows) == 50


def test_unbounded_a_flood_has_all_its_rows() -> None:
    """The screen of one agent collapses repeats and bounds nothing."""
    ledger = Ledger(bounded=False)
    ledger.every = 0.01
    for number in range(100):
        ledger.ask("read:records", resource=f"crm:{number // 2}")
    assert [row.count for row in ledger.rows] == [2] * 50


def test_only_what_matters_leaves_routine_out_and_counts_it(ledger: Ledger) -> None:
    """Allowed and done are routine; the other outcomes stay."""
    ledger.ask("read:mail")
    ledger.ask("read:mail")
    ledger.ask("read:mail", "denied")
    ledger.add(type="operator.login", agent_id=None)
    assert [row.word for row in ledger.repeats.rows(notable=True)] == [
        "denied",
        "changed",
    ]
    assert ledger.repeats.routine == 2


def test_unfolding_shows_each_entry_and_counts_the_older_ones(ledger: Ledger) -> None:
    """As many as are held; the rest is one row."""
    for _ in range(RETAINED + 50):
        ledger.ask("read:mail")
    (row,) = ledger.rows
    ledger.repeats.unfolded.add(row.key)
    rows = ledger.rows
    assert len(rows) == RETAINED
    assert rows[0].count == 51
    assert {one.count for one in rows[1:]} == {1}


def test_nothing_is_collapsed_over_a_gap(ledger: Ledger) -> None:
    """Events that are missing are told where they are missing."""
    ledger.ask("read:mail")
    ledger.seq += 5
    ledger.ask("read:mail")
    assert [row.missing for row in ledger.rows] == [None, (2, 6)]


def test_a_flood_costs_no_memory_and_drops_no_denial(ledger: Ledger) -> None:
    """Rows are bounded; routine goes first."""
    ledger.ask("delete:records", "denied", agent_id="agt_0")
    for number in range(20_000):
        ledger.ask("read:mail", agent_id=f"agt_{number}")
    assert len(ledger.rows) <= 1_000
    assert ledger.told()[0] == ("delete:records", "denied", 1)
    assert ledger.repeats.routine == 20_000
