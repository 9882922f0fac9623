"""How the past looks: at every size, in each alphabet, and where a time is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import live, settle
from support.fake_operator import FakeOperator
from support.fake_past import incident
from support.pictures import (
    LIGHT,
    LOOKS,
    MIDDLE,
    SIZES,
    SMALLEST,
    Gallery,
    Play,
    wearing,
)
from textual.pilot import Pilot

from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.base import PaneScreen
from agentvault_tui.console.screens.past import PastScreen

PLACES = {"waiting": ["{"] * 4, "panic": ["{"] * 3, "start": ["home"]}


VIEWS: dict[str, list[str]] = {
    "agent": ["enter"],
    "audit": ["L"],
    "event": ["L", "k", "enter"],
}


def going(*keys: str) -> Play:
    """Look back, and press *keys* one by one."""

    async def play(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await live(pilot)
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, PastScreen))
        past = app.screen
        for key in keys:
            await pilot.press({"{": "left_curly_bracket"}.get(key, key))
            await settle(pilot, lambda: not past._reading or past._reading.done())

    return play


async def ready(pilot: Pilot[Any]) -> None:
    """Draw whatever of the past lies in front, once it is all read."""
    for screen in pilot.app.screen_stack:
        if isinstance(screen, PaneScreen) and screen.desk.past:
            await settle(pilot, lambda screen=screen: _read(screen))
            screen.pulse()
            await pilot.pause()
            screen.pulse()


def _read(screen: Any) -> bool:
    screen.pulse()
    if isinstance(screen, AgentScreen):
        return screen.facts.activity is not None and screen.events.idle
    if isinstance(screen, AuditScreen):
        row = screen.feed.under_cursor
        known = not screen.open or (row and row.seq in screen.evidence.by_seq)
        return bool(known and screen.reading.idle and screen.list.idle)
    return True


@pytest.mark.parametrize("place", PLACES)
async def test_place(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, place: str
) -> None:
    """A word and a frame on every row at the top, whatever the size."""
    incident(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    play = going(*PLACES[place])
    sizes = (*SMALLEST, *SIZES)
    assert await gallery.differs(app, play, ready=ready, sizes=sizes) == []


@pytest.mark.parametrize("look", [LOOKS["mono"], LIGHT], ids=["mono", "light"])
async def test_look(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: tuple[str, str]
) -> None:
    """Without colour and in ASCII it cannot be taken for now; and on light."""
    incident(fake)
    app = wearing(look, fake, tmp_path)
    play = going(*PLACES["waiting"])
    assert await gallery.differs(app, play, ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("view", VIEWS)
async def test_view(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, view: str, look: str
) -> None:
    """An agent, the audit, an event: marked as past in every row at the top."""
    incident(fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await going(*PLACES["waiting"])(pilot)
        await ready(pilot)
        for key in VIEWS[view]:
            await pilot.press(key)
            await pilot.pause()

    assert await gallery.differs(app, play, ready=ready) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_moment(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """Where a time is typed: the forms, the ends, and what is wrong, in words."""
    incident(fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await going("home")(pilot)
        await pilot.press("at", *"lunch", "enter")

    assert await gallery.differs(app, play, ready=ready) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_stepup(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """A step-up of the past says so in its title, and why it takes no decision."""
    incident(fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await going(*PLACES["waiting"])(pilot)
        await pilot.press("s")
        await pilot.pause()
        clock: Any = app.desk.mirror.clock
        clock.advance(1)
        await pilot.press("d")

    assert await gallery.differs(app, play, ready=ready) == []
