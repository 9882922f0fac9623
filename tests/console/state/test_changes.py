"""Changes and loosenings as the console reads them, whatever a broker sends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dialog_stand import Stand, scene
from support.fake_state import START
from support.manual_clock import ManualClock
from support.wire_shapes import filled, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.state.changes import Loosenings
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.stepups import differs, granted, subject

SUMMARY = "grant payer send:payment"
PEOPLE = [{"sub": "auth0|1", "name": "carol"}, {"sub": "auth0|2", "name": "dave"}]
RECORD = {"kinds": ["agents"], "summary": SUMMARY, "by": PEOPLE, "proof": "factor"}


def event(seq: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": iso(START),
        "type": "change.applied",
        "actor": {"kind": "operator", "id": "auth0|1", "name": "carol"},
        "detail": {"loosened": RECORD},
        "hash": "",
        **more,
    }


@pytest.mark.parametrize(
    ("live", "ago", "stays"), [(True, 0, 60), (True, 900, 60), (False, 20, 40)]
)
def test_a_loosening_is_shown_for_a_minute(live: bool, ago: int, stays: int) -> None:
    """A live one for the whole minute, also where the machines' clocks differ."""
    clock = ManualClock(START + timedelta(seconds=ago))
    seen = Loosenings(clock, Intake().shown)
    told = filled(EventInfo, event())
    assert seen.note(told, START, live=live)
    assert not seen.note(told, START, live=live)
    clock.advance(stays - 0.1)
    words = f"by carol and dave at 14:02:11Z: {SUMMARY}"
    assert [row.words for row in seen.recent()] == [words]
    clock.advance(0.2)
    assert seen.recent() == []


def test_loosenings_that_the_operator_knows_are_not_shown() -> None:
    """The demo's own set-up is no news; what follows it is."""
    seen = Loosenings(ManualClock(START), Intake().shown)
    seen.known_to = 1
    assert not seen.note(filled(EventInfo, event()), START, live=False)
    assert seen.note(filled(EventInfo, event(2)), START, live=True)
    assert [row.seq for row in seen.recent()] == [2]


def test_a_loosening_from_before_the_first_page_is_shown() -> None:
    """A console that joins is sent it, and shows it for what is left of the minute."""
    clock = ManualClock(START + timedelta(seconds=20))
    mirror = Mirror(clock)
    tell(mirror, "loosened", {"event": event()})
    clock.advance(39.9)
    assert [row.seq for row in mirror.loosenings.recent()] == [1]
    clock.advance(0.2)
    assert mirror.loosenings.recent() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["by", "summary", "proof"]), JSON) | JSON)
def test_a_record_of_any_shape_is_still_shown(record: Any) -> None:
    """Whoever writes the record cannot keep a loosening off the header."""
    seen = Loosenings(ManualClock(START), Intake().shown)
    told = filled(EventInfo, event(detail={"loosened": record}))
    assert seen.note(told, START, live=True)
    assert seen.recent()[0].words.startswith("by ")


@given(JSON)
def test_texts_of_any_shape_are_read(texts: Any) -> None:
    """What is no list of three is left out; the summary is there in any case."""
    row = Stand().propose(SUMMARY, details={"texts": texts})
    assert subject(row) == f"change: {SUMMARY}"


def test_a_change_has_no_agent_and_no_token() -> None:
    """What it says of itself is worded for a change; what is like it, by summary."""
    row = Stand().propose(SUMMARY, details={"scopes": ["send:payment"], "until": None})
    assert row.is_change
    assert not row.token_alone
    assert not row.unlimited
    assert row.members == (("scopes", '["send:payment"]'),)
    assert granted(row) == "exactly this change, once, carried out at once"
    assert row.approvers == "one approver, with a second factor"
    other = Stand().propose("lift the panic")
    assert differs(row, other) == SUMMARY


def test_an_applied_change_ends_with_its_event() -> None:
    """Its own frame may come later; the news name the change and no agent."""
    stand = scene()
    row = stand.propose(SUMMARY)
    detail = {"stepup_id": row.id, "loosened": RECORD}
    tell(stand.mirror, "audit", event(99, action="change:agents", detail=detail))
    assert stand.mirror.stepups[row.id].status == "applied"
    assert list(stand.mirror.presence.news) == [
        f"carol approved {row.fingerprint}, change:agents"
    ]
    assert stand.mirror.events[-1].reason == SUMMARY
    by_file = {"loosened": {**RECORD, "by": [{"sub": "file", "name": "file"}]}}
    tell(stand.mirror, "audit", event(100, detail=by_file))
    assert len(stand.mirror.presence.news) == 1
    assert stand.mirror.loosenings.recent()[-1].words.startswith("by file at")


@pytest.mark.parametrize(
    ("kinds", "proof", "is_shown"),
    [
        (["tokens"], "uid", False),
        (["tokens"], "factor", True),
        (["agents"], "uid", True),
    ],
)
def test_a_token_for_a_local_command_is_no_loosening_in_the_header(
    kinds: list[str], proof: str, is_shown: bool
) -> None:
    """Each start of an agent host takes one: a warning each time would be ignored."""
    mirror = Mirror(ManualClock(START))
    record = {"kinds": kinds, "proof": proof, "summary": "x"}
    told = filled(EventInfo, event(detail={"loosened": record}))
    assert mirror.loosenings.note(told, START, live=True) is is_shown
