"""The home screen under a flood: what needs a person stays, and nothing jumps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, drawn, running, settle
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.state.agents import STILL

SIZES = [(80, 24), (100, 30), (120, 40), (200, 50)]


def text(app: ConsoleApp, name: str) -> str:
    pane: Any = app.watch_screen.query_one(f"#{name}")
    rows = (pane.render_line(y).text.rstrip() for y in range(pane.size.height))
    return "\n".join(rows)


async def quiet(app: ConsoleApp, pilot: Pilot[Any]) -> None:
    """Wait until no row is held for the operator."""
    clock = app.desk.mirror.clock
    assert isinstance(clock, ManualClock)
    clock.advance(STILL + 1)
    app.watch_screen.pulse()
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
async def test_a_waiting_row_outlives_any_flood(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Also under 0, and with denials enough for the whole pane."""
    payer = fake.add_agent("payments-agent", "send:payment")
    fake.decide(payer, "send:payment", "escalated", resource="stripe:acct_42")
    for number in range(60):
        other = fake.add_agent(f"other-{number}", "read:email")
        for outcome in ("denied", "allowed"):
            fake.decide(other, "read:email", outcome, resource=f"mail:{number}")
    app = console(fake.socket, tmp_path)
    async with running(app, size) as pilot:
        for _ in range(2):
            assert "send:payment" in text(app, "audit")
            await pilot.press("0")
            await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
async def test_no_reason_stands_without_its_row(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int]
) -> None:
    """The first row of the feed begins with a time, at every height."""
    for number in range(40):
        agent = fake.add_agent(f"agent-{number}", "read:email")
        fake.decide(agent, "read:email", "denied", reason="scope_not_granted")
    app = console(fake.socket, tmp_path)
    async with running(app, size) as pilot:
        for height in range(size[1] - 3, size[1]):
            await pilot.resize_terminal(size[0], height)
            await pilot.pause()
            first = text(app, "audit").splitlines()[1]
            assert first.lstrip()[:2].isdigit()


@pytest.mark.parametrize("size", SIZES)
async def test_a_revocation_stays_over_the_denials_that_follow_it(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Who stopped what is the last of the changes to leave."""
    agents = [fake.add_agent(f"agent-{n}", "read:email") for n in range(60)]
    app = console(fake.socket, tmp_path)
    async with running(app, size) as pilot:
        root = {"kind": "operator", "id": "op_1", "name": "root"}
        fake.add_event("agent.revoked", agents[0], actor=root)
        for agent in agents[1:]:
            fake.decide(agent, "read:email", "denied", reason="agent_revoked")
        await settle(pilot, lambda: app.desk.mirror.last_seq == fake.head)
        app.watch_screen.pulse()
        await pilot.pause()
        assert "agent revoked by root" in text(app, "audit")
        assert "its agent is revoked" in text(app, "audit")


async def test_set_up_is_one_line_and_never_a_row(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Changes before the console, and what the tenant's log says of routine."""
    agent = fake.add_agent("a-agent", "read:email")
    fake.add_event("agent.registered", agent)
    app = console(fake.socket, tmp_path)
    async with running(app, (120, 40)) as pilot:
        assert "1 change · L shows them" in text(app, "audit")
        assert "registered" not in text(app, "audit")
        fake.add_event("state.recorded", agent)
        fake.add_event("agent.changed", agent)
        await settle(pilot, lambda: "agent changed" in text(app, "audit"))
        assert "state recorded" not in text(app, "audit")


async def test_rows_stay_in_place_while_keys_are_pressed(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Any key holds the order, the heading says so, and rest lets it go."""
    agents = [fake.add_agent(name, "read:email") for name in ("a-agent", "b-agent")]
    app = console(fake.socket, tmp_path)
    view = app.watch_screen.view
    async with running(app, (80, 24)) as pilot:
        await pilot.press("0")
        await asyncio.to_thread(fake.add_stepup, agents[1])
        await settle(pilot, lambda: bool(app.desk.mirror.open_stepups()))
        app.watch_screen.pulse()
        await pilot.pause()
        assert view.order == [agent["id"] for agent in agents]
        assert "order held" in text(app, "agents")
        await quiet(app, pilot)
        assert view.order[0] == agents[1]["id"]
        assert "by attention" in text(app, "agents")


async def test_who_needs_a_look_stays_in_sight_of_a_scrolled_list(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """At the top, in at most half of the rows; the cursor scrolls below."""
    agents = [fake.add_agent(f"agent-{n:02}", "read:email") for n in range(30)]
    for agent in agents[20:22]:
        fake.add_stepup(agent)
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        await pilot.press("end")
        await pilot.pause()
        rows = text(app, "agents").splitlines()
        assert rows[1].split()[:2] == ["agent-20", "WAITING"]
        assert rows[2].split()[:2] == ["agent-21", "WAITING"]
        assert rows[-1].startswith("▌agent-29")


async def test_denials_are_the_last_to_leave_an_agents_line(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """A burst hides none of them, and served requests give way first."""
    agent = fake.add_agent("calendar-agent", "write:calendar")
    fake.add_token(agent, "write:calendar", 600)
    for number in range(44):
        outcome = "denied" if number % 2 else "allowed"
        fake.decide(agent, "write:calendar", outcome)
    fake.add_stepup(agent)
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        (row,) = [r for r in text(app, "agents").splitlines() if "calendar" in r]
        assert "WAITING 1 step-up ◀ 22 denied in 60 s" in row
        assert "22 denied" in row.replace("22 denied in 60 s", "")
        await pilot.resize_terminal(200, 50)
        await pilot.pause()
        assert "escalated" not in drawn(app)


@pytest.mark.parametrize(("size", "rows"), [((80, 24), 1), ((120, 40), 3)])
async def test_each_request_that_waits_is_in_the_bar(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int], rows: int
) -> None:
    """Up to three have a line where there are columns; else the next one is named."""
    busy(fake)
    fake.add_stepup(
        fake.add_agent("ops-agent", "run:tests"),
        action="run:tests",
        parameters={},
        expires_at=iso(fake.now + timedelta(seconds=299)),
    )
    app = console(fake.socket, tmp_path)
    async with running(app, size):
        bar = text(app, "waiting").splitlines()
        assert len(bar) == 1 + rows
        assert "3 waiting" in bar[0]
        if rows == 1:
            assert "+2: email-agent  500 recipients  4:56" in bar[0]


@pytest.mark.parametrize("key", ["", "c", "N", "Q", "T", "A", "P", "L"])
async def test_panic_is_named_on_every_screen(
    fake: FakeOperator, tmp_path: Path, key: str
) -> None:
    """At 80 columns, where others give way to it."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        if key:
            await pilot.press(key)
            await pilot.pause()
            assert app.screen is not app.watch_screen
        await settle(pilot, lambda: "! panic" in drawn(app))
        assert "? keys" in drawn(app)
