"""The time machine at the keyboard: marked, read-only, and one key back to now."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console_scenes import HOSTILE, console, hostile, running, settle
from support.fake_operator import FakeOperator
from support.fake_past import remember
from support.fake_state import START
from support.manual_clock import ManualClock
from support.past_stage import Stage
from support.wire_shapes import filled

from agentvault_tui.clock import iso
from agentvault_tui.console.dialogs.ask import MomentDialog
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.past import PastScreen
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.past import LedgerPlace, PastMirror, parse_past_moment
from agentvault_tui.console.widgets.pane import Pane
from agentvault_tui.operator_api.history import PastInfo
from agentvault_tui.presenters.moments import LedgerMoment, ago

FIRST, LAST = 1, 10


@pytest.fixture
def stage(fake: FakeOperator, tmp_path: Path) -> Stage:
    return Stage(fake, tmp_path)


@pytest.mark.slow
async def test_every_row_of_the_masthead_says_past(stage: Stage) -> None:
    """A word and a frame on each row, the moment, how long ago, and the way back."""
    async with stage.on("t", "ctrl+u"):
        rows = stage.text("masthead").split("\n")
        assert len(rows) >= 2
        assert all(row.startswith("│PAST│") and row.endswith("│") for row in rows)
        assert "13:00:11Z · 62 min ago · read-only · t: back to now" in rows[0]
        assert "● live" in rows[0]
        assert "event 2 of 10" in rows[1]
        assert "nothing since" in rows[1]


@pytest.mark.slow
async def test_the_panes_draw_what_was(stage: Stage) -> None:
    """Agents, tokens with their countdowns, step-ups and panic are of the moment."""
    async with stage.on("t"):
        assert stage.names() == {"calendar-agent", "payments-agent", "email-agent"}
        await stage.press("ctrl+u")
        assert stage.names() == {"calendar-agent"}
        assert "registered" in stage.text("audit").lower()
        await stage.press("right_curly_bracket")
        assert stage.names() == {"calendar-agent", "payments-agent"}
        assert stage.past.past.place.seq == 3
        await stage.press("right_curly_bracket")
        assert stage.past.past.place.seq == 6
        assert "STEP-UP  1 waiting" in stage.text("waiting")
        assert "46:00" in stage.text("agents")
        await stage.press("right_curly_bracket")
        head = stage.text("masthead")
        assert (
            "PANIC then: everything stopped since 13:56:11Z by alice: runaway" in head
        )
        assert "no live token" in stage.text("agents")


@pytest.mark.slow
async def test_scrub_keys(stage: Stage) -> None:
    """Minutes, hours, events, turns and the ends, and no further than there is."""
    async with stage.on("t"):
        mirror = stage.past.past
        assert mirror.place.seq == LAST
        await stage.press("left")
        assert mirror.clock.now() == START - timedelta(minutes=3)
        await stage.press("h", "h", "l")
        assert mirror.clock.now() == START - timedelta(minutes=4)
        await stage.press("left_square_bracket")
        assert mirror.place.seq == 6
        await stage.press("right_square_bracket")
        assert (mirror.place.seq, mirror.clock.now()) == (7, mirror.place.time)
        await stage.press("shift+left")
        assert mirror.place.seq == 6
        await stage.press("pageup")
        assert mirror.clock.now() == START - timedelta(minutes=74)
        await stage.press("pagedown", "home")
        assert mirror.place.seq == FIRST
        await stage.press("left")
        assert stage.toast == "That is the first event."
        await stage.press("left_square_bracket", "shift+left")
        assert mirror.place.seq == FIRST
        assert "before this" in stage.toast
        await stage.press(*["ctrl+d"] * 3)
        assert mirror.place.seq == LAST
        assert "t goes back to now" in stage.toast


@pytest.mark.slow
async def test_a_moment_ago_looks_like_now(stage: Stage) -> None:
    """Bursts are marked, and agents ordered, in the past of 0 s ago as they are now."""
    async with stage.on():
        agent = list(stage.fake.agents.values())[-1]
        for _ in range(12):
            stage.fake.decide(agent, "read:email", "allowed")
        remember(stage.fake)
        live = stage.app.watch_screen
        await settle(stage.pilot, lambda: live.desk.mirror.last_seq == LAST + 12)
        live.view.update()
        live.paint_all()
        assert "burst, 12 in 60 s" in stage.text("agents")
        await stage.press("t")
        assert "burst, 12 in 60 s" in stage.text("agents")
        assert stage.past.view.order == live.view.order
        await stage.press("i")
        assert "acknowledge" not in stage.text("keys")
        await stage.press("t", "g", "i")
        assert [*live.view.acknowledged] == [agent["id"]]


@pytest.mark.slow
async def test_a_held_event_is_where_it_begins(stage: Stage) -> None:
    """t on an event of the held audit goes to its moment; m on one there too."""
    async with stage.on("shift+tab", "k", "k", "k"):
        held = stage.app.watch_screen.feed.under_cursor
        assert held is not None
        await stage.press("t")
        assert stage.past.past.place.seq == held.seq
        await stage.press("shift+tab", "k", "k", "m")
        assert stage.past.past.place.seq == held.seq - 2


@pytest.mark.slow
@pytest.mark.parametrize("key", ["r", "u", "exclamation_mark"])
async def test_deciding_keys_are_refused_in_a_line(stage: Stage, key: str) -> None:
    """Nothing opens, nothing is sent, and one line says why."""
    async with stage.on("t", "h", key):
        assert stage.past.is_current
        assert stage.toast.startswith("This is the past: it is only looked at.")
        assert stage.fake.requests == []


@pytest.mark.slow
async def test_step_ups_then_can_be_read_and_not_decided(stage: Stage) -> None:
    """The dialog is marked as past, its deciding keys refused, whatever is waiting."""
    async with stage.on("t", "home", "at"):
        await stage.pilot.press(*"13:50", "enter")
        await stage.pilot.pause()
        await settle(stage.pilot, lambda: isinstance(stage.app.screen, PastScreen))
        await settle(stage.pilot, stage._rests)
        await stage.pilot.press("s")
        await stage.pilot.pause()
        dialog = stage.app.screen
        assert isinstance(dialog, StepUpDialog | StepUpsDialog)
        clock = stage.app.desk.mirror.clock
        assert isinstance(clock, ManualClock)
        clock.advance(2)
        await stage.pilot.press("d", "a")
        await stage.pilot.pause()
        assert stage.fake.requests == []
        assert "This is the past" in dialog.note
        title = dialog.sheet.render_line(0).text
        assert "PAST" in title


@pytest.mark.slow
@pytest.mark.parametrize("key", ["t", "escape", "end"])
async def test_one_key_back_and_nothing_was_missed(stage: Stage, key: str) -> None:
    """Live events go on arriving, are counted, and are there without a reload."""
    async with stage.on("t", "h", "h"):
        live = stage.app.watch_screen
        agent = next(iter(stage.fake.agents.values()))
        for _ in range(3):
            await asyncio.to_thread(
                stage.fake.decide, agent, "write:calendar", "denied"
            )
        await settle(stage.pilot, lambda: stage.app.desk.mirror.last_seq == LAST + 3)
        assert "+3 since" in stage.text("masthead")
        assert "of 13" in stage.text("masthead")
        loaded = stage.app.desk.mirror.versions.ledger
        await stage.press(key)
        assert stage.app.screen is live
        live.pulse()
        assert [row.seq for row in live.feed.rows][-3:] == [11, 12, 13]
        assert stage.app.desk.mirror.versions.ledger == loaded


async def test_what_waits_now_is_not_missed(stage: Stage) -> None:
    """A step-up that comes while someone looks back is told in the masthead."""
    async with stage.on("t", "home"):
        agent = next(iter(stage.fake.agents.values()))
        await asyncio.to_thread(stage.fake.add_stepup, agent)
        mirror = stage.app.desk.mirror
        await settle(stage.pilot, lambda: bool(mirror.open_stepups()))
        await stage.see("masthead", "Now: 1 waiting for a person.")
        assert stage.past.past.open_stepups() == []


async def test_a_time_without_agents_says_so(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Before the first registration: that, and not how to add an agent now."""
    fake.add_event("broker.started")
    remember(fake)
    fake.add_event("agent.registered", fake.add_agent("mailer", "send:email"))
    remember(fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, PastScreen))
        past: Any = app.screen
        assert "mailer" in past.agents.render_line(1).text
        await pilot.press("home")
        await settle(pilot, lambda: past.past.place.seq == 1)
        drawn = "\n".join(past.agents.render_line(y).text for y in range(8))
        assert "No agent was registered yet." in drawn
        assert "agentvault agents add" not in drawn


async def test_a_lost_link_is_told_and_what_is_shown_stays(stage: Stage) -> None:
    """With the broker gone the moment stays, and the next one is told to be unread."""
    async with stage.on("t", "ctrl+u"):
        await asyncio.to_thread(stage.fake.stop)
        mirror = stage.app.desk.mirror
        await settle(stage.pilot, lambda: mirror.link.state is LinkState.LOST)
        await stage.press("left")
        await stage.see("masthead", "Not read: ")
        await stage.see("masthead", "Now: the link is lost")
        head = stage.text("masthead")
        assert "○ lost" in head
        assert "13:00:11Z" in head
        assert stage.names() == {"calendar-agent"}
        await asyncio.to_thread(stage.fake.start)


@pytest.mark.slow
async def test_filter_and_cursor_come_along(stage: Stage) -> None:
    """The place is not lost: same filter, same agent; letters typed are text."""
    async with stage.on("slash", *"owner:bob", "enter", "t", "h", "h", "h"):
        assert [str(stage.past.past.agents[i].name) for i in stage.past.view.order] == [
            "payments-agent"
        ]
        moment = stage.past.past.clock.now()
        await stage.press("slash", "h", "left", "t", "end")
        assert stage.past.past.clock.now() == moment
        assert stage.past.bar is not None
        assert stage.past.bar.text == "owner:bobth"
        await stage.press("escape")
        assert stage.past.is_current


@pytest.mark.slow
async def test_a_typed_time(stage: Stage) -> None:
    """A time is typed, bad ones are told in words, Esc stays where it is."""
    async with stage.on("t", "at"):
        dialog = stage.app.screen
        assert isinstance(dialog, MomentDialog)
        for text, words in (
            ("lunch", "That is no time."),
            ("09:00", "before the first event, at 12:02:11Z"),
            ("#99", "There is no event 99"),
        ):
            await stage.pilot.press("ctrl+u", *text, "enter")
            await stage.pilot.pause()
            assert words in dialog.note
        await stage.pilot.press("ctrl+u", *"13:30", "enter")
        await stage.pilot.pause()
        await settle(stage.pilot, lambda: isinstance(stage.app.screen, PastScreen))
        await settle(stage.pilot, stage._rests)
        assert stage.past.past.clock.now() == START.replace(
            minute=30, hour=13, second=0
        )
        await stage.press("at", "escape")
        assert stage.past.past.clock.now() == START.replace(
            minute=30, hour=13, second=0
        )


async def test_nothing_recorded_is_told(fake: FakeOperator, tmp_path: Path) -> None:
    """In an empty vault there is no past to go to."""
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        await pilot.press("t")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        assert [note.message for note in app._notifications] == [
            "Nothing is recorded yet."
        ]


async def test_doubts_are_told(stage: Stage) -> None:
    """What the events do not say stands in the masthead, marked like all of it."""
    stage.fake.doubts.append("Events 1 to 4 do not say when their tokens ended.")
    async with stage.on("t", "h"):
        rows = stage.text("masthead").split("\n")
        assert any("do not say when their tokens ended" in row for row in rows)


def _mirror() -> PastMirror:
    live = Mirror(ManualClock(START))
    past = PastMirror(live)
    first = {"seq": FIRST, "time": iso(START - timedelta(days=3))}
    here = {"seq": 5, "time": iso(START - timedelta(hours=1))}
    told = {**here, "at": here["time"], "around": {"first": first}}
    past.fill(filled(PastInfo, told), [])
    return past


PAST = _mirror()
END = LedgerPlace(LAST, START - timedelta(seconds=5))


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("14:02", LedgerMoment(at=START.replace(second=0))),
        ("13:10:30", LedgerMoment(at=START.replace(hour=13, minute=10, second=30))),
        ("23:59", LedgerMoment(at=START.replace(day=23, hour=23, minute=59, second=0))),
        ("2026-11-23 14:02", LedgerMoment(at=START.replace(day=23, second=0))),
        ("2026-11-23T14:02:11Z", LedgerMoment(at=START.replace(day=23))),
        ("-10m", LedgerMoment(at=START - timedelta(minutes=70))),
        ("+30m", LedgerMoment(at=START - timedelta(minutes=30))),
        ("10m", LedgerMoment(at=START - timedelta(minutes=10))),
        ("2h ago", LedgerMoment(at=START - timedelta(hours=2))),
        ("#7", LedgerMoment(seq=7)),
        ("First", LedgerMoment(seq=1)),
    ],
)
def test_moments_are_read(text: str, aim: LedgerMoment) -> None:
    """A time of day, a date, a span from here, a span ago, an event, the first."""
    assert parse_past_moment(text, PAST, END, START) == aim


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no time"),
        ("25:00", "no time"),
        ("#0", "no event 0: they go from 1 to 10"),
        ("9d ago", "before the first event, at 2026-11-21 14:02:11Z"),
        ("2027-01-01 10:00", "after the last event, at 14:02:06Z"),
        ("+2h", "after the last event"),
        ("-999999w", "no time"),
    ],
)
def test_bad_moments_are_told(text: str, words: str) -> None:
    """What is none, and what lies beyond the ends, is said in words."""
    told = parse_past_moment(text, PAST, END, START)
    assert isinstance(told, str)
    assert words in told


@pytest.mark.slow
@given(st.text(max_size=30) | st.from_regex(r"[+-]?\d{1,8}[smhdw]|\d\d:\d\d|#\d+"))
def test_any_text_is_a_bounded_moment_or_words(text: str) -> None:
    """Whatever is typed: never an error, and never beyond the first or last event."""
    told = parse_past_moment(text, PAST, END, START)
    if isinstance(told, str):
        assert told.endswith(".")
        return
    if told.at is not None:
        assert PAST.first.time <= told.at <= END.time
    else:
        assert told.seq is not None
        assert FIRST <= told.seq <= LAST


def test_how_long_ago() -> None:
    """Seconds, minutes, hours, days: as far as it matters."""
    spans = [5, 90, 60 * 119, 3600 * 5, 3600 * 50]
    told = [ago(START - timedelta(seconds=span), START) for span in spans]
    assert told == ["5 s ago", "1 min ago", "119 min ago", "5 h ago", "2 d ago"]


def test_a_mirror_of_the_past_survives_odd_answers() -> None:
    """Whatever another broker version leaves out, nothing raises."""
    past = PastMirror(Mirror(ManualClock(START)))
    past.fill(filled(PastInfo, {}), [])
    past.fill(filled(PastInfo, {"at": "", "around": {"first": {"seq": 3}}}), [])
    assert past.place.seq == 0
    assert isinstance(past.clock.now(), datetime)


async def test_hostile_names_of_the_past_are_inert(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Whatever an agent or an operator wrote then, no row holds a control byte."""
    hostile(fake)
    fake.panic.update(on=True, since=iso(START), by=HOSTILE[0], reason=HOSTILE[1])
    fake.doubts.append(HOSTILE[2])
    remember(fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, PastScreen))
        panes = list(app.screen.query(Pane))
        rows = [
            pane.render_line(y).text for pane in panes for y in range(pane.size.height)
        ]
        assert any("PANIC then" in row for row in rows)
        assert all(row.isprintable() for row in rows)


@pytest.mark.slow
async def test_help_and_footer_name_the_keys_of_time(stage: Stage) -> None:
    """What works in the past is named, and what does not is not offered."""
    async with stage.on("t"):
        assert "h l minute" in stage.text("keys")
        await stage.pilot.press("question_mark")
        await stage.pilot.pause()
        dialog: Any = stage.app.screen
        page = dialog.page(70, 80)
        told = "\n".join("".join(text for text, _ in row) for row in page.body)
        for words in (
            "a minute back",
            "the turn before",
            "go to a time",
            "back to now",
        ):
            assert words in told
        assert "revoke the agent" not in told
        assert "revoke the agent" not in told
