"""The screen of alerts: what did not arrive, sending it again, and the sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import console_scenes as scenes
from support.console_scenes import Board, console, running, settle, undelivered
from support.dialog_stand import text_of
from support.fake_operator import FakeOperator
from textual.pilot import Pilot

from agentvault_tui.console.screens.alerts import AlertsScreen


@pytest.fixture
async def board(short: Path) -> AsyncIterator[Board]:
    async with scenes.board(short, undelivered) as opened:
        yield opened


async def opened(pilot: Pilot[Any]) -> None:
    await pilot.press("N")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AlertsScreen))
    screen: Any = pilot.app.screen
    await settle(pilot, lambda: bool(screen.sinks.rows))


async def test_the_header_tells_and_the_key_shows(board: Board) -> None:
    """How many did not arrive stands on every screen; N lists them and the sinks."""
    pilot, _ = board
    await settle(pilot, lambda: "2 alerts did not arrive" in text_of(pilot.app))
    await opened(pilot)
    shown = text_of(pilot.app)
    assert "A person has to decide" in shown
    assert "it answered 404" in shown
    for sink in ("ops", "siem", "night"):
        assert sink in shown
    assert "4 held" in shown
    assert "\x1b" not in shown


async def test_enter_sends_again(board: Board) -> None:
    """Enter sends the one under the cursor, and says how that went."""
    pilot, fake = board
    await opened(pilot)
    await pilot.press("j", "enter")
    await settle(pilot, lambda: len(fake.dead) == 1)
    method, path, body = fake.requests[0]
    assert (method, path, body) == ("POST", "/api/alerts/retry", {"id": "msg_1"})
    screen: Any = pilot.app.screen
    await settle(pilot, lambda: len(screen.dead.rows) == 1)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_it_fits(short: Path, size: tuple[int, int]) -> None:
    """At each size no line is longer than the screen, and the list has rows."""
    with FakeOperator(short / "s.sock") as fake:
        undelivered(fake)
        async with running(console(fake.socket, short), size=size) as pilot:
            await opened(pilot)
            lines = text_of(pilot.app).splitlines()
            assert max(map(len, lines)) <= size[0]
            assert any("did not arrive" in line for line in lines)
