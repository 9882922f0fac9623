"""One agent and the audit as they were: of the moment, marked, and read-only."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import console, hostile, running, settle
from support.fake_operator import FakeOperator
from support.fake_past import remember
from support.past_stage import Stage

from agentvault_tui.console.dialogs.ask import ExportDialog
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.past import PastScreen
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.console.widgets.pane import Pane

WAITING = ("t", *["left_curly_bracket"] * 4)
"""To the moment at which the payment waits: event 6 of 10."""
HERE = 6


@pytest.fixture
def stage(fake: FakeOperator, tmp_path: Path) -> Stage:
    return Stage(fake, tmp_path)


def marked(stage: Stage) -> bool:
    """Whether every row at the top says that this is the past."""
    rows = stage.text("masthead").split("\n")
    return len(rows) > 1 and all(row.startswith("│PAST│") for row in rows)


async def opened(stage: Stage, kind: type, *keys: str) -> Any:
    await stage.pilot.press(*keys)
    await settle(stage.pilot, lambda: isinstance(stage.app.screen, kind))
    await stage.pilot.pause()
    return stage.app.screen


@pytest.mark.slow
async def test_an_agent_is_shown_as_it_was(stage: Stage) -> None:
    """Its counts, tokens and events are those of the moment, not of now."""
    async with stage.on(*WAITING):
        calendar = stage.past.view.go
        calendar(next(i for i, a in stage.past.past.agents.items() if "cal" in a.name))
        await opened(stage, AgentScreen, "enter")
        assert marked(stage)
        await stage.see("facts", "used 1 time, last 0 s ago")
        assert "46:00" in stage.text("facts")
        assert "Events  up to then" in stage.text("events")
        assert "agent registered" in stage.text("events")
        assert "then" in stage.text("day")
        assert stage.fake.activity_reads == 0
        assert "t now" in stage.text("keys")
        assert "revoke" not in stage.text("keys")
        await stage.pilot.press("escape")
        await stage.pilot.pause()
        assert stage.past.past.place.seq == HERE


@pytest.mark.slow
async def test_the_audit_ends_at_the_moment(stage: Stage) -> None:
    """No key and no number leads to an event that had not happened."""
    async with stage.on(*WAITING):
        audit = await opened(stage, AuditScreen, "L")
        assert marked(stage)
        await settle(stage.pilot, lambda: audit.feed.exhausted)
        assert [row.seq for row in audit.feed.rows] == list(range(1, HERE + 1))
        await stage.see("audit", "6 on screen verified here")
        for where in ("9", "end", "now"):
            await stage.pilot.press("at", *where, "enter")
            await settle(stage.pilot, lambda: not audit._asking and audit.list.idle)
            assert audit.feed.under_cursor.seq == HERE
        await stage.pilot.press("k", "k", "enter")
        await stage.see("evidence", "Event 4")
        await stage.see("evidence", "verified here: computed again")


@pytest.mark.slow
async def test_an_event_is_shown_among_those_before_it(stage: Stage) -> None:
    """Enter on an event opens it in full; its story holds nothing of later."""
    async with stage.on(*WAITING, "shift+tab", "k"):
        audit = await opened(stage, AuditScreen, "enter")
        await settle(stage.pilot, lambda: 5 in audit.evidence.by_seq)
        assert "Event 5" in stage.text("evidence")
        story = audit.evidence.by_seq[5].story
        assert all(row.seq <= HERE for row in story)
        await stage.pilot.press("v")
        await stage.see("evidence", '"seq":5')


@pytest.mark.slow
async def test_from_any_depth_one_key_leads_to_now(stage: Stage) -> None:
    """Agent, its audit, the event's agent again: t leaves them all, Esc one by one."""
    async with stage.on(*WAITING):
        await opened(stage, AgentScreen, "enter")
        audit = await opened(stage, AuditScreen, "L")
        assert str(audit.feed.filter).startswith("agent:agt_")
        await settle(stage.pilot, lambda: bool(audit.feed.rows))
        await opened(stage, AgentScreen, "o")
        await opened(stage, AuditScreen, "escape")
        await stage.pilot.press("t")
        await stage.pilot.pause()
        assert stage.app.screen is stage.app.watch_screen
        assert len(stage.app.screen_stack) == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["enter", "L"])
async def test_nothing_is_decided_there(stage: Stage, way: str) -> None:
    """Every key that decides is refused in a line, and nothing is sent."""
    async with stage.on(*WAITING):
        screen = await opened(
            stage, AgentScreen if way == "enter" else AuditScreen, way
        )
        for key in ("r", "u", "z", "exclamation_mark"):
            stage.app.clear_notifications()
            await stage.pilot.press(key)
            await stage.pilot.pause()
            assert stage.app.screen is screen
            assert stage.toast.startswith("This is the past")
        assert stage.fake.requests == []


@pytest.mark.slow
async def test_letters_are_text_where_text_is_typed(stage: Stage) -> None:
    """t goes into the filter and into the line that asks where to go."""
    async with stage.on(*WAITING):
        audit = await opened(stage, AuditScreen, "L")
        await stage.pilot.press("slash", *"type:t")
        await stage.pilot.pause()
        assert audit.bar.text == "type:t"
        await stage.pilot.press("escape", "at", *"start")
        await stage.pilot.pause()
        assert audit.prompt.field.value == "start"
        assert stage.app.screen is audit


@pytest.mark.slow
async def test_an_export_holds_what_there_was(stage: Stage, tmp_path: Path) -> None:
    """The file ends at the moment, whatever came since."""
    file = tmp_path / "then.jsonl"
    async with stage.on(*WAITING):
        await opened(stage, AuditScreen, "L")
        dialog = await opened(stage, ExportDialog, "e")
        dialog.sheet.query_one(LineInput).value = str(file)
        await stage.pilot.press("enter")
        await settle(stage.pilot, lambda: bool(dialog.done))
    header, *rows = map(json.loads, file.read_text().splitlines())
    assert (header["from"]["seq"], header["to"]["seq"]) == (0, HERE)
    assert [row["seq"] for row in rows] == list(range(1, HERE + 1))


async def test_counts_of_very_many_say_what_they_count(stage: Stage) -> None:
    """Where not every request was counted, the title says so."""
    stage.fake.partial = True
    async with stage.on(*WAITING):
        await opened(stage, AgentScreen, "enter")
        await stage.see("facts", "of the latest requests")
        assert "used" in stage.text("facts")


@pytest.mark.slow
async def test_what_comes_meanwhile_is_told(stage: Stage) -> None:
    """A request that waits now stands in the masthead there too."""
    async with stage.on(*WAITING):
        await opened(stage, AuditScreen, "L")
        for agent in list(stage.fake.agents.values())[:2]:
            await asyncio.to_thread(stage.fake.add_stepup, agent)
        mirror = stage.app.desk.mirror
        await settle(stage.pilot, lambda: len(mirror.open_stepups()) == 2)
        stage.app.screen.pulse()
        await stage.see("masthead", "Now: 2 waiting for a person.")
        assert marked(stage)


@pytest.mark.slow
async def test_hostile_text_is_inert_there(fake: FakeOperator, tmp_path: Path) -> None:
    """No row of either screen holds a control byte."""
    hostile(fake)
    remember(fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, PastScreen))
        for keys, kind in ((["enter"], AgentScreen), (["escape", "L"], AuditScreen)):
            await pilot.press(*keys)
            await settle(pilot, lambda kind=kind: isinstance(app.screen, kind))
            await pilot.pause(0.2)
            panes = app.screen.query(Pane)
            rows = [p.render_line(y).text for p in panes for y in range(p.size.height)]
            assert len("".join(rows).split()) > 50
            assert all(row.isprintable() for row in rows)
