"""A restore can be taken back for ten seconds: by one key, for that agent, and told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, running, settle
from support.dialog_stand import Stand, StandApp, said, scene
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock
from support.wire_shapes import tell
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.desk import Desk, offer_undo, offered_undo, take_back
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.revoke import RestoreDialog
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.errors import LedgerUnwritableError, UnreachableError

CALENDAR = "agt_0000000000000002"


def revoked_scene() -> Stand:
    stand = scene()
    stand.agent(CALENDAR, status="revoked", revoked_at="2026-11-24T14:02:11Z")
    return stand


def restore(desk: Desk) -> RestoreDialog:
    return RestoreDialog(desk, desk.mirror.agents[CALENDAR])


async def finish(app: StandApp, pilot: Pilot[None]) -> str:
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.dialog.update_page()
    return said(app)


async def restored(app: StandApp, pilot: Pilot[None]) -> str:
    await pilot.pause()
    app.settle()
    await pilot.press("y")
    return await finish(app, pilot)


async def test_the_bar_counts_down_and_goes() -> None:
    """Ten seconds from the broker's word, then the key does nothing."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        shown = await restored(app, pilot)
        assert "served again 2.8 ms" in shown
        assert "undo 10 s z revokes calendar-agent again" in shown
        stand.clock.advance(2.5)
        assert "undo 8 s" in await finish(app, pilot)
        stand.clock.advance(7.5)
        assert "undo" not in await finish(app, pilot)
        await pilot.press("z")
        assert stand.actions.asked == [("restore", CALENDAR)]


async def test_the_key_revokes_the_agent_that_was_restored() -> None:
    """With the time the broker measured, and what was cut; once."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        app.settle()
        await pilot.press("z")
        shown = await finish(app, pilot)
        assert "Revoked again calendar-agent" in shown
        assert "closed here 1.2 ms" in shown
        app.settle()
        await pilot.press("z")
        await finish(app, pilot)
        assert [asked[:2] for asked in stand.actions.asked] == [
            ("restore", CALENDAR),
            ("revoke", CALENDAR),
        ]


async def test_a_restore_is_taken_back_in_whatever_dialog_is_open() -> None:
    """The line that offers it stands below each of them."""
    stand = scene()
    stand.agent(CALENDAR, status="revoked")
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("z")
        assert stand.actions.asked == []
        row = stand.agent(CALENDAR, status="active")
        offer_undo(stand.desk, row, stand.mirror.last_seq)
        await pilot.press("z")
        await app.workers.wait_for_complete()
        assert [asked[:2] for asked in stand.actions.asked] == [("revoke", CALENDAR)]


async def test_an_undo_that_could_still_be_lost_says_so() -> None:
    """Revoked again, in force, and not in the ledger yet."""
    stand = revoked_scene()
    stand.actions.kept = "memory"
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        app.settle()
        await pilot.press("z")
        shown = await finish(app, pilot)
        assert "Revoked again calendar-agent" in shown
        assert "In effect, but NOT in the ledger yet" in shown


async def test_it_does_not_count_within_600_ms_of_the_restore() -> None:
    """`y` and `z` struck together leave the agent restored."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        await pilot.press("z")
        assert "Too soon" in await finish(app, pilot)
        assert stand.actions.asked == [("restore", CALENDAR)]


async def test_a_link_that_drops_is_told_and_refuses() -> None:
    """Live, over any older note, and no key acts; once it is back so is the undo."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        await pilot.press("z")
        stand.mirror.set_link(LinkState.LOST, "gone")
        assert "The link is lost" in await finish(app, pilot)
        app.settle()
        await pilot.press("z")
        await finish(app, pilot)
        assert stand.actions.asked == [("restore", CALENDAR)]
        stand.mirror.set_link(LinkState.LIVE)
        assert "undo 10 s" in await finish(app, pilot)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LedgerUnwritableError("the disk is full"), "Not done: the disk is full"),
        (UnreachableError("it broke"), "Not confirmed, so look before trying again"),
    ],
)
async def test_a_failed_undo_claims_nothing_and_can_be_tried_again(
    error: Exception, words: str
) -> None:
    """What is not known is not said; the same undo stays offered while it lasts."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        app.settle()
        stand.actions.error = error
        await pilot.press("z")
        shown = await finish(app, pilot)
        assert words in shown
        assert "Revoked again" not in shown
        stand.actions.error = None
        app.settle()
        await pilot.press("z")
        assert "Revoked again" in await finish(app, pilot)


@pytest.mark.slow
async def test_an_agent_someone_else_revoked_needs_no_undo() -> None:
    """The bar goes as soon as it would be pointless."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        assert "undo 10 s" in await restored(app, pilot)
        stand.agent(CALENDAR, status="revoked")
        assert "undo" not in await finish(app, pilot)


def _event(stand: Stand, kind: str, agent_id: str) -> None:
    agent = stand.state.agents[agent_id]
    tell(stand.mirror, "audit", stand.state.record(kind, agent))


async def test_a_restore_of_someone_else_is_not_taken_back() -> None:
    """Revoked and restored by a colleague meanwhile, it is no longer our restore."""
    stand = revoked_scene()
    app = StandApp(stand, restore)
    async with app.run_test(size=(80, 24)) as pilot:
        await restored(app, pilot)
        _event(stand, "agent.restored", CALENDAR)
        assert offered_undo(stand.desk) is not None
        _event(stand, "agent.revoked", CALENDAR)
        _event(stand, "agent.restored", CALENDAR)
        assert "undo" not in await finish(app, pilot)
        await pilot.press("z")
        assert stand.actions.asked == [("restore", CALENDAR)]


async def test_once_seen_revoked_it_never_comes_back() -> None:
    """Also where only the agent's state told it."""
    stand = revoked_scene()
    offer_undo(stand.desk, stand.mirror.agents[CALENDAR], stand.mirror.last_seq)
    stand.agent(CALENDAR, status="revoked", revoked_at="2026-11-24T14:05:00Z")
    assert offered_undo(stand.desk) is None
    stand.agent(CALENDAR, status="active")
    assert offered_undo(stand.desk) is None


async def test_a_reply_before_the_stream_does_not_end_it() -> None:
    """The agent's state is the one before the restore until the stream tells of it."""
    stand = revoked_scene()
    offer_undo(stand.desk, stand.mirror.agents[CALENDAR], stand.mirror.last_seq)
    assert offered_undo(stand.desk) is None
    stand.agent(CALENDAR, status="active")
    assert offered_undo(stand.desk) is not None


async def test_events_that_were_missed_end_it() -> None:
    """Nobody knows then whether the restore is still ours."""
    stand = revoked_scene()
    agent = stand.agent(CALENDAR, status="active")
    offer_undo(stand.desk, agent, stand.mirror.last_seq)
    assert offered_undo(stand.desk) is not None
    stand.mirror.load_events([], after=stand.mirror.last_seq + 5_000)
    assert offered_undo(stand.desk) is None


async def test_a_refused_undo_leaves_a_newer_one_alone() -> None:
    """The key goes on acting on the agent that was restored last."""
    stand = revoked_scene()
    mirror, desk = stand.mirror, stand.desk
    first, second = (mirror.agents[each] for each in list(mirror.agents)[:2])
    stand.agent(first.id, status="active")
    stand.agent(second.id, status="active")
    offer_undo(desk, first, mirror.last_seq)
    undo = offered_undo(desk)
    assert undo is not None
    stand.actions.hold = asyncio.Event()
    stand.actions.error = LedgerUnwritableError("the disk is full")
    under_way = asyncio.create_task(take_back(desk, undo))
    await asyncio.sleep(0)
    offer_undo(desk, second, mirror.last_seq)
    stand.actions.hold.set()
    with pytest.raises(LedgerUnwritableError):
        await under_way
    again = offered_undo(desk)
    assert again is not None
    assert again.agent_id == second.id


async def _restore_research(app: ConsoleApp, pilot: Pilot[Any]) -> str:
    watch = app.watch_screen
    agents = app.desk.mirror.agents.values()
    agent = next(each for each in agents if each.name == "research-agent")
    watch.visit(agent.id)
    await pilot.press("u")
    await pilot.pause()
    clock = app.desk.mirror.clock
    assert isinstance(clock, ManualClock)
    clock.advance(1)
    await pilot.press("y")
    await settle(pilot, lambda: app.desk.undo is not None)
    clock.advance(1)
    await pilot.press("escape")
    await pilot.pause()
    watch.pulse()
    return str(agent.id)


async def test_the_home_screen_offers_it_too_and_acts_on_that_id(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """With the cursor on another agent the key still revokes the one restored."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        agent_id = await _restore_research(app, pilot)
        keys = app.watch_screen.keybar
        line = keys.render_line(0).text
        assert "undo 9 s  z revokes research-agent again" in line
        app.watch_screen.view.put(0)
        await pilot.press("z")
        await settle(pilot, lambda: len(fake.requests) == 2)
        _, path, body = fake.requests[-1]
        assert path == "/api/agents/revoke"
        assert body["agent_id"] == agent_id
        await settle(pilot, lambda: app.desk.mirror.agents[agent_id].revoked)
        app.watch_screen.pulse()
        assert "undo" not in keys.render_line(0).text
        await pilot.press("z")
        await pilot.pause()
        assert len(fake.requests) == 2


@pytest.mark.slow
async def test_the_home_screen_refuses_it_without_a_link(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """No cut on old news, not even this one; nothing reaches the broker."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        await _restore_research(app, pilot)
        app.desk.mirror.set_link(LinkState.STALE, "catching up")
        await pilot.press("z")
        await pilot.pause()
        assert len(fake.requests) == 1
        assert app.desk.undo is not None
