"""Rows of the feed: columns that hold, and no row that hides its action."""

from __future__ import annotations

from typing import Any

import pytest
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import filled, tell

from agentvault_tui.console.draw.feedrow import FeedColumns, draw_feed_row
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.shapes import ScopeInfo
from agentvault_tui.presenters.glyphs import ASCII, UNICODE
from agentvault_tui.presenters.lines import Pen, cells
from agentvault_tui.presenters.theme import palette

WIDTHS = (80, 90, 100, 119, 120, 160, 200, 220)
LEAD = 10


class Drawn(FakeState):
    """A scripted broker, whose feed is drawn."""

    def __init__(self) -> None:
        super().__init__(START)
        self.mirror = Mirror(ManualClock(START))
        self.feed = EventWindow(self.mirror, collapse=True)
        self.agent = self.add_agent("records-agent", "read:records")

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)

    def rows(self, width: int, *, ascii_only: bool = False) -> list[list[str]]:
        pen = Pen(palette("mono"), ASCII if ascii_only else UNICODE)
        columns = FeedColumns.of(width, LEAD)
        self.feed.update()
        lead = ((" " * LEAD, pen.palette.text),)
        found = []
        for line in self.feed.lines:
            drawn = draw_feed_row(pen, self.mirror, line, columns, lead=lead)
            assert all(cells(row) <= width for row in drawn)
            assert len(drawn) == columns.tall(self.mirror, line)
            found.append(["".join(text for text, _ in row) for row in drawn])
        return found

    def happen(self, outcome: str = "allowed", **more: Any) -> dict[str, Any]:
        return self.decide(self.agent, "delete:records", outcome, **more)


@pytest.fixture
def drawn() -> Drawn:
    return Drawn()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_says_action_resource_and_outcome(drawn: Drawn, width: int) -> None:
    """From 80 to 220 cells both are whole, and the outcome has one column."""
    for outcome in ("allowed", "denied", "escalated"):
        drawn.happen(outcome, resource="stripe:acct_42")
    rows = drawn.rows(width)
    words = ["allowed", "denied", "waiting"]
    for (row, *_), word in zip(rows, words, strict=True):
        assert "delete:records" in row
        assert "stripe:acct_42" in row
        assert word in row
    places = {row[0].index(word) for row, word in zip(rows, words, strict=True)}
    assert len(places) == 1


@pytest.mark.parametrize("width", [60, 74, *WIDTHS])
def test_how_often_is_never_cut(drawn: Drawn, width: int) -> None:
    """A count is whole or not there; with room it says since when."""
    for _ in range(107):
        drawn.happen(resource="crm:88")
    ((row, *_),) = drawn.rows(width)
    assert ("\u00d7107" in row) is (width >= 74)
    assert ("\u00d7107 since " in row) is (width >= 90)
    assert "\u2026" not in row or width < 74


def test_what_was_denied_comes_before_why(drawn: Drawn) -> None:
    """In one line where there is room, else the reason has a second one."""
    drawn.happen("denied", resource="crm:88", reason="scope_not_granted")
    ((narrow, below),) = drawn.rows(80)
    assert narrow.rstrip().endswith("crm:88           denied")
    assert below.strip() == "not granted; granted: read:records"
    ((wide,),) = drawn.rows(200)
    assert wide.index("delete:records") < wide.index("crm:88") < wide.index("not gr")


def test_a_refused_call_is_named_by_its_request(drawn: Drawn) -> None:
    """Method, service and path stand where action and resource do."""
    drawn.add_event(
        "gateway.refused",
        drawn.agent,
        outcome="denied",
        reason="no_route",
        detail={"method": "PUT", "service": "tickets", "path": "/tickets/1"},
    )
    ((row, *_),) = drawn.rows(80)
    assert "PUT tickets /tickets/1" in row


def test_a_change_is_said_in_words_with_who_made_it(drawn: Drawn) -> None:
    """No code of a type of event stands in a row."""
    drawn.add_event("policy.changed", None, actor={"kind": "operator", "name": "carol"})
    ((row, *_),) = drawn.rows(100)
    assert "carol" in row
    assert "policy changed" in row
    assert "policy.changed" not in row


def test_in_ascii_the_count_has_its_twin(drawn: Drawn) -> None:
    """Every mark can be drawn without Unicode."""
    drawn.happen()
    drawn.happen()
    ((row, *_),) = drawn.rows(100, ascii_only=True)
    assert "x2 since" in row
    assert row.isascii()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_waiting_row_says_how_much_at_every_width(drawn: Drawn, width: int) -> None:
    """On the first line where there is room, else below; never cut."""
    detail = {"parameters": {"amount": 4200, "currency": "USD"}}
    drawn.happen("escalated", resource="stripe:acct_42", detail=detail)
    (rows,) = drawn.rows(width)
    assert "4200 USD" in "\n".join(rows)


@pytest.mark.parametrize("width", [71, *WIDTHS])
def test_who_decided_is_in_the_row(drawn: Drawn, width: int) -> None:
    """An approver's name, and a denier's before the reason."""
    for type_, reason, by in (
        ("stepup.denied", "too many", "by carol: too many"),
        ("stepup.approved", "", "approved by carol"),
    ):
        drawn.happen("escalated", decision_id=f"dec_{type_}")
        more = {"decision_id": f"dec_{type_}", "reason": reason}
        actor = {"kind": "operator", "name": "carol"}
        drawn.add_event(type_, drawn.agent, actor=actor, **more)
        text = "\n".join(row for rows in drawn.rows(width) for row in rows)
        assert by in text


def test_a_change_names_its_author_before_its_reason(drawn: Drawn) -> None:
    """Also where the feed is narrow."""
    actor = {"kind": "operator", "name": "root"}
    drawn.add_event("agent.revoked", drawn.agent, actor=actor, reason="runaway")
    ((row, below),) = drawn.rows(71)
    assert "agent revoked by root" in row
    assert below.strip() == "runaway"


def test_several_actions_of_a_flood_are_named_the_riskiest_first(drawn: Drawn) -> None:
    """No write is counted under a read."""
    low = filled(ScopeInfo, {"risk": "low"})
    drawn.mirror.intake.learn({"read:contacts": low})
    for _ in range(20):
        drawn.decide(drawn.agent, "read:contacts", "allowed", resource="a")
        drawn.decide(drawn.agent, "send:payment", "allowed", resource="b")
        drawn.decide(drawn.agent, "read:email", "denied", reason="limit_reached")
        drawn.decide(drawn.agent, "read:email", "denied", reason="policy_forbids")
    text = "\n".join(row for rows in drawn.rows(120) for row in rows)
    assert "send:payment, read:contacts" in text
    assert "kinds" not in text


def test_names_have_the_room_of_the_longest(drawn: Drawn) -> None:
    """And where they are cut, the number at their end stays."""
    name = "calendar-agent-3"
    for longest in (len(name), 40):
        columns = FeedColumns.of(110, LEAD, longest=longest)
        assert columns.who == min(longest + 1, 25)
    pen = Pen(palette("mono"), UNICODE)
    assert pen.middle(name, 14) == "calendar-a\u2026t-3"
    assert pen.middle(name, 16) == name
