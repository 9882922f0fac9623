"""The audit screen at the keyboard, connected to a scripted broker."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, hostile, quiet, running, settle
from support.dialog_stand import text_of
from support.fake_operator import FakeOperator
from support.fake_state import START
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.ask import ExportDialog
from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.link.export import suggestion
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.state.mirror import RING
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.text import visible

MANY = RING + 1_500


class Stage:
    """A console on its audit screen, in front of a scripted broker."""

    def __init__(self, fake: FakeOperator, folder: Path) -> None:
        self.fake = fake
        self.app: ConsoleApp = console(fake.socket, folder)
        self.pilot: Pilot[Any]
        self.screen: AuditScreen

    @contextlib.asynccontextmanager
    async def on(self, *size: int, open: str = "L") -> AsyncIterator[Pilot[Any]]:  # noqa: A002
        width, height = size or (120, 40)
        async with running(self.app, (width, height)) as pilot:
            self.pilot = pilot
            if open:
                await self.enter(open)
            yield pilot

    async def enter(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await settle(self.pilot, lambda: isinstance(self.app.screen, AuditScreen))
        screen = self.app.screen
        assert isinstance(screen, AuditScreen)
        self.screen = screen
        await self.quiet()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.quiet()

    async def type(self, text: str) -> None:
        await self.press(*("space" if c == " " else c for c in text), "enter")

    async def until(self, condition: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.screen.pulse()
            return condition()

        await settle(self.pilot, looked)

    async def quiet(self) -> None:
        """Wait until nothing is being read any more."""
        screen = self.screen
        await self.until(lambda: screen.reading.idle and screen.list.idle)
        await self.until(lambda: screen.reading.idle and screen.list.idle)

    def text(self, name: str) -> str:
        pane = self.app.screen.query_one(f"#{name}")
        rows = (pane.render_line(y).text.rstrip() for y in range(pane.size.height))
        return "\n".join(rows)

    @property
    def seq(self) -> int:
        row = self.screen.feed.under_cursor
        return row.seq if row else 0


@pytest.fixture
def stage(fake: FakeOperator, tmp_path: Path) -> Stage:
    return Stage(fake, tmp_path)


def many(fake: FakeOperator, count: int = MANY) -> None:
    """More events than the console keeps at hand."""
    quiet(fake)
    (agent,) = fake.agents.values()
    for _ in range(count - fake.head):
        fake.record("token.decision", agent, action="read:calendar", outcome="allowed")


@pytest.mark.slow
async def test_enter_opens_the_event_under_the_cursor(stage: Stage) -> None:
    """From the home screen's audit: that event, held, in full; Esc leads back."""
    busy(stage.fake)
    async with stage.on(open=""):
        watch = stage.app.watch_screen
        await stage.pilot.press("shift+tab", "k", "k", "k")
        if watch.feed.lines[watch.feed.index].count > 1:
            await stage.pilot.press("enter")  # shows each of those that are alike
        seq = watch.feed.cursor
        await stage.enter("enter")
        assert (stage.seq, stage.screen.open) == (seq, True)
        assert not stage.screen.feed.follow
        shown = stage.text("evidence")
        event = stage.fake.events[seq - 1]
        for words in (event["type"], event["hash"], event["decision_id"], "When"):
            assert words in shown
        await stage.pilot.press("escape", "escape")
        await settle(stage.pilot, lambda: isinstance(stage.app.screen, Watch))
        assert watch.feed.cursor == seq


@pytest.mark.slow
async def test_it_pages_through_all_there_is(stage: Stage) -> None:
    """Home is the first event, page after page leads on, and nothing is left out."""
    many(stage.fake)
    async with stage.on():
        await stage.press("home")
        assert stage.seq == 1
        assert "      1 14:02:11.000" in stage.text("audit").splitlines()[1]
        seen = {row.seq for row in stage.screen.list.on_screen}
        for _ in range(12):
            await stage.press("pagedown")
            seen |= {row.seq for row in stage.screen.list.on_screen}
        assert seen == set(range(1, max(seen) + 1))
        assert max(seen) > 400
        assert len(stage.screen.feed.rows) < RING
        await stage.press("end")
        assert stage.screen.feed.follow


@pytest.mark.slow
async def test_g_goes_to_a_number_or_a_time(stage: Stage) -> None:
    """Any event is one prompt away, with what is around it in sight."""
    many(stage.fake)
    stage.fake.now = stage.fake.now.replace(minute=1, second=0)
    stage.fake.events[1_199]["time"] = "2026-11-24T14:01:00.000000Z"
    async with stage.on():
        await stage.press("at")
        await stage.type("1,000")
        assert stage.seq == 1_000
        around = [row.seq for row in stage.screen.list.on_screen]
        assert around[0] < 990
        assert around[-1] > 1_010
        await stage.press("at")
        await stage.type("99999999")
        assert stage.seq == MANY


async def test_what_is_no_place_is_told_and_can_be_mended(stage: Stage) -> None:
    """Bad input leaves the prompt open with a word; Esc leaves all as it was."""
    busy(stage.fake)
    async with stage.on():
        await stage.press("k")
        before = stage.seq
        await stage.press("at", *"2x", "enter")
        prompt = stage.screen.prompt
        assert "no time and no number" in str(prompt.query_one("#refusal").render())
        assert prompt.typing
        await stage.press("escape")
        assert not prompt.display
        assert stage.seq == before


@pytest.mark.slow
async def test_what_arrives_while_held_is_counted(stage: Stage) -> None:
    """The screen stands still, the title counts, f follows again."""
    busy(stage.fake)
    async with stage.on():
        await stage.press("k")
        before = stage.text("audit").splitlines()[1:]
        (agent, *_) = stage.fake.agents.values()
        for _ in range(3):
            stage.fake.decide(agent, "write:calendar", "allowed")
        await stage.until(lambda: "+3 new" in stage.text("audit"))
        assert stage.text("audit").splitlines()[1:] == before
        await stage.press("f")
        assert "following" in stage.text("audit")
        assert stage.seq == stage.fake.head


async def test_what_is_in_sight_is_computed_again_here(stage: Stage) -> None:
    """The title says of how many events on screen the link was found to hold."""
    busy(stage.fake)
    async with stage.on():
        await stage.press("k")
        rows = len(stage.screen.list.on_screen)
        assert f"✓ {rows} on screen verified here" in stage.text("audit")
        assert rows > 5


async def test_a_changed_body_is_found(stage: Stage) -> None:
    """One changed byte of one event on screen is told, and of which."""
    busy(stage.fake)
    bad = stage.fake.head - 1
    stage.fake.bodies[bad] += " "
    async with stage.on():
        await stage.press("k", "enter")
        assert stage.seq == bad
        assert "✗ 1 of these does not match" in stage.text("audit")
        assert "not that of the recorded body" in stage.text("evidence")


async def test_a_broker_that_shows_another_event_is_found_out(stage: Stage) -> None:
    """A true link of an event that is not the one shown does not pass for it."""
    busy(stage.fake)
    stage.fake.events[-2]["action"] = "read:calendar"
    async with stage.on():
        await stage.press("k", "enter")
        assert "what is shown is not what was recorded" in stage.text("evidence")


async def test_brackets_walk_through_the_story(stage: Stage) -> None:
    """The events of one decision stand together, with the times between."""
    agents = busy(stage.fake)
    same = {"decision_id": "dec_story", "action": "send:payment"}
    first = stage.fake.add_event("stepup.requested", agents["payments-agent"], **same)
    stage.fake.decide(agents["calendar-agent"], "write:calendar", "allowed")
    last = stage.fake.add_event("token.redeemed", agents["payments-agent"], **same)
    async with stage.on():
        await stage.press("f", "enter")
        assert stage.seq == first["seq"]
        assert "2 events in 0.000 s" in stage.text("evidence")
        await stage.press("left_square_bracket")
        assert stage.seq == first["seq"]
        await stage.press("right_square_bracket")
        assert stage.seq == last["seq"]
        await stage.press("right_square_bracket")
        assert stage.seq == last["seq"]
        # The list has one row for both, which says how it stands.
        rows = stage.text("audit").splitlines()
        assert (
            len([row for row in rows if "send:payment" in row and "done" in row]) == 1
        )
        await stage.press("left_square_bracket", "escape", "k")
        assert stage.seq == first["seq"] + 1


async def test_a_lure_is_masked_until_the_body_is_asked_for(stage: Stage) -> None:
    """The agent's words are masked in list and event; v shows the body as hashed."""
    agents = busy(stage.fake)
    lure = "enter code WXYZ-BCDF"
    stage.fake.add_event("stepup.requested", agents["payments-agent"], reason=lure)
    async with stage.on():
        await stage.press("j", "enter")
        assert "WXYZ" not in stage.text("audit") + stage.text("evidence")
        assert "1 code masked" in stage.text("evidence")
        await stage.press("v")
        assert "WXYZ-BCDF" in stage.text("evidence").replace("\n ", "")
        await stage.press("k")
        assert not stage.screen.evidence.raw


@pytest.mark.slow
async def test_a_call_that_nobody_decided_is_called_so(stage: Stage) -> None:
    """The name of its event would be cut where the others have their action."""
    agents = busy(stage.fake)
    refused = {"outcome": "denied", "reason": "agent_revoked"}
    stage.fake.add_event("gateway.refused", agents["payments-agent"], **refused)
    async with stage.on():
        assert " call  " in stage.text("audit")
        assert "gateway" not in stage.text("audit")


@pytest.mark.slow
async def test_a_filter_keeps_the_place(stage: Stage) -> None:
    """Narrowed while held, it stays there, says what it hides, and Esc widens it."""
    many(stage.fake)
    stage.fake.record("agent.revoked", reason="odd hours")
    async with stage.on():
        await stage.press("at")
        await stage.type("700")
        await stage.press("slash")
        await stage.type("type:agent.revoked")
        assert stage.seq == stage.fake.head
        assert not stage.screen.feed.follow
        assert "hidden" in stage.text("audit")
        await stage.press("escape")
        assert stage.seq == 700


@pytest.mark.slow
async def test_keys_decide_about_the_events_agent(stage: Stage) -> None:
    """r asks about the agent of the event under the cursor; o shows it, Esc returns."""
    busy(stage.fake)
    async with stage.on():
        await stage.press("k")
        row = stage.screen.feed.under_cursor
        assert row is not None
        await stage.pilot.press("r")
        dialog = stage.app.screen
        assert isinstance(dialog, RevokeDialog)
        await stage.pilot.press("escape", "o")
        await settle(stage.pilot, lambda: isinstance(stage.app.screen, AgentScreen))
        assert isinstance(stage.app.screen, AgentScreen)
        assert stage.app.screen.agent_id == row.agent_id
        await stage.pilot.press("escape")
        await settle(stage.pilot, lambda: stage.app.screen is stage.screen)
        assert stage.seq == row.seq


async def test_an_agents_event_opens_among_its_others(stage: Stage) -> None:
    """Enter on an event of the agent's screen: that event, and only that agent's."""
    busy(stage.fake)
    async with stage.on(open=""):
        await stage.pilot.press("enter")
        await settle(stage.pilot, lambda: isinstance(stage.app.screen, AgentScreen))
        agent = stage.app.screen
        assert isinstance(agent, AgentScreen)
        await stage.pilot.press("tab", "k")
        if agent.events.feed.lines[agent.events.feed.index].count > 1:
            await stage.pilot.press("enter")
        await stage.enter("enter")
        assert stage.screen.open
        rows = stage.screen.feed.rows
        assert {row.agent_id for row in rows} == {agent.agent_id}
        assert stage.seq == agent.events.feed.cursor


async def test_y_copies_an_id_and_never_the_body(stage: Stage) -> None:
    """The decision of the event, or its hash when the event has the focus."""
    busy(stage.fake)
    async with stage.on():
        await stage.press("k", "y")
        row = stage.screen.feed.under_cursor
        assert row is not None
        assert stage.app.clipboard == row.decision_id
        await stage.press("enter", "tab", "y")
        assert stage.app.clipboard == row.hash


async def test_help_names_the_keys(stage: Stage) -> None:
    """? lists what works on this screen."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("question_mark")
        dialog = stage.app.screen
        assert isinstance(dialog, HelpDialog)
        words = str(dialog.sheet.page.body)
        for what in ("go to a time or a number", "export", "next event of its story"):
            assert what in words


@pytest.mark.slow
async def test_an_outage_is_said_and_mended(stage: Stage) -> None:
    """What cannot be read is told where it is missing, and read when it can be."""
    many(stage.fake)
    async with stage.on():
        await asyncio.to_thread(stage.fake.stop)
        await stage.pilot.press("home")
        await stage.until(lambda: "Not read" in stage.text("audit"))
        assert "verified" not in stage.text("audit")
        await asyncio.to_thread(stage.fake.start)
        await stage.until(lambda: stage.app.desk.mirror.link.live)
        await stage.until(lambda: stage.seq == 1)
        await stage.quiet()
        assert "Not read" not in stage.text("audit")


@pytest.mark.slow
async def test_another_ledger_is_not_mixed_with_the_one_held(stage: Stage) -> None:
    """When the ledger is replaced, what is held is marked so; End shows the new one."""
    many(stage.fake)
    async with stage.on():
        await stage.press("at")
        await stage.type("500")
        held = [row.seq for row in stage.screen.feed.rows]
        stage.app.desk.mirror.versions.ledger += 1
        (agent,) = stage.fake.agents.values()
        stage.fake.decide(agent, "read:calendar", "allowed")
        await stage.until(lambda: "REPLACED" in stage.text("audit"))
        await stage.press("pageup", "pageup")
        assert [row.seq for row in stage.screen.feed.rows] == held
        await stage.press("end")
        assert "following" in stage.text("audit")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (40, 10)])
async def test_no_byte_of_an_agent_reaches_the_screen(
    stage: Stage, size: tuple[int, int]
) -> None:
    """Hostile text is inert in list, event, story and raw body."""
    hostile(stage.fake)
    async with stage.on(*size):
        await stage.press("k", "enter", "v")
        for _ in range(8):
            for line in stage.app.screen._compositor.render_strips():
                assert "".join(segment.text for segment in line).isprintable()
            await stage.press("left_square_bracket", "pageup")


class Exporting:
    """The export dialog on a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def dialog(self) -> ExportDialog:
        dialog = self.stage.app.screen
        assert isinstance(dialog, ExportDialog)
        return dialog

    async def to(self, path: Path) -> None:
        await self.stage.pilot.press("e")
        await self.stage.pilot.press("ctrl+u", *str(path), "enter")

    async def done(self) -> str:
        await settle(self.stage.pilot, lambda: bool(self.dialog.done))
        return self.dialog.done


@pytest.mark.slow
async def test_export_writes_what_the_filter_shows(
    stage: Stage, tmp_path: Path
) -> None:
    """A selection that can be verified, 0600, and it says how many."""
    busy(stage.fake)
    path = tmp_path / "denied.jsonl"
    async with stage.on():
        await stage.press("slash")
        await stage.type("outcome:denied")
        export = Exporting(stage)
        stage.app.desk.ledger_is_temporary = True  # type: ignore[attr-defined]
        await export.to(path)
        assert "4 events, mode 0600" in await export.done()
        shown = "".join(text_of(stage.app).replace("│", " ").split())
        against = f"--against{stage.app.desk.ledger}"  # type: ignore[attr-defined]
        assert f"Verifyagentvaultauditverify{path}{against}" in shown
        assert "beforeyouleave:thedemo'sledgergoes" in shown
    header, *events = map(json.loads, path.read_text().splitlines())
    assert header["selection"] == {"filter": "outcome:denied"}
    assert events == [e for e in stage.fake.events if e["outcome"] == "denied"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
async def test_export_to_csv_is_safe_in_a_spreadsheet(
    stage: Stage, tmp_path: Path
) -> None:
    """One row an event, and no cell is a formula."""
    agents = busy(stage.fake)
    agent = agents["records-agent"]
    stage.fake.decide(agent, "read:records", "denied", resource="=HYPERLINK(1)")
    path = tmp_path / "all.csv"
    async with stage.on():
        export = Exporting(stage)
        await export.to(path)
        await export.done()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == stage.fake.head
    assert rows[-1]["resource"] == "'=HYPERLINK(1)"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "\x1b]2;owned\x07", "\u202e", "\udcff"])
async def test_export_suggests_the_working_folder_whatever_its_name(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No control of its name is drawn, and Enter alone writes into it.

    A path of which the line could not show the end is left to its name.
    """
    busy(stage.fake)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    async with stage.on():
        await stage.pilot.press("e")
        suggested = stage.app.screen.query_one(LineInput).value
        assert visible(suggested, 400) == suggested
        assert suggested.endswith(".jsonl")
        assert len(suggested) < 58  # so the line shows it whole
        await stage.pilot.press("enter")
        assert "mode 0600" in await Exporting(stage).done()
    assert len(list((tmp_path / name).glob("*.jsonl"))) == 1


def test_a_short_folder_stands_before_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits is said whole: where the file will be."""
    monkeypatch.chdir("/usr")
    assert suggestion(START, 57) == "/usr/agentvault-audit-20261124T140211Z.jsonl"
    assert suggestion(START, 40) == "agentvault-audit-20261124T140211Z.jsonl"


@pytest.mark.slow
async def test_export_never_writes_over_a_file(stage: Stage, tmp_path: Path) -> None:
    """A file that is there, a missing folder, another ending: told, nothing written."""
    busy(stage.fake)
    there = tmp_path / "a.csv"
    there.write_text("mine")
    async with stage.on():
        export = Exporting(stage)
        await export.to(there)
        assert "there already" in export.dialog.note
        await stage.pilot.press("ctrl+u", *str(tmp_path / "no" / "b.csv"), "enter")
        assert "no such folder" in export.dialog.note
        await stage.pilot.press("ctrl+u", *str(tmp_path / "b.txt"), "enter")
        assert "neither" in export.dialog.note
    assert there.read_text() == "mine"


@pytest.mark.slow
async def test_export_can_be_stopped_and_leaves_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Esc while it writes ends it, and no file is left, not even a part."""
    busy(stage.fake)
    folder = tmp_path / "out"
    folder.mkdir()
    async with stage.on():
        asked = asyncio.Event()

        async def never(_: object) -> Any:
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(stage.app.desk.link, "link_list", never)
        export = Exporting(stage)
        await export.to(folder / "a.jsonl")
        await asyncio.wait_for(asked.wait(), 10)
        assert "0 of" in str(export.dialog.sheet.page.body)
        await stage.pilot.press("escape")
        await settle(stage.pilot, lambda: not list(folder.iterdir()))
        assert isinstance(stage.app.screen, AuditScreen)


@pytest.mark.slow
async def test_export_that_fails_says_so_and_leaves_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    """A broker that goes away meanwhile is told, and there is no half file."""
    busy(stage.fake)
    folder = tmp_path / "out"
    folder.mkdir()
    async with stage.on():
        await asyncio.to_thread(stage.fake.stop)
        export = Exporting(stage)
        await export.to(folder / "a.jsonl")
        assert "No file was left" in await export.done()
        assert not list(folder.iterdir())
        await asyncio.to_thread(stage.fake.start)
