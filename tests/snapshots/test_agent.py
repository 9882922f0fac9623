"""How an agent's screen looks: panes, sizes, and without colour or glyphs.

After a wanted change look at the diff (and the report for SVGs) first, then renew with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, live, settle, working_day
from support.cut_off import half_done, uncredited
from support.fake_operator import FakeOperator
from support.pictures import LIGHT, LOOKS, MIDDLE, SMALLEST, Gallery, Play, wearing
from textual.pilot import Pilot

KEYS: dict[str, list[str]] = {
    "calendar": [],
    "day": ["shift+tab", *["h"] * 17],
    "events_held": ["tab", "k", "k"],
}


def _read(screen: Any) -> bool:
    screen.pulse()
    events, mirror = screen.events, screen.desk.mirror
    held = (
        len(mirror.tokens(each)) == mirror.live_tokens(each) for each in mirror.agents
    )
    return events.feed.wants(events.size.height) is None and all(held)


def opening(name: str, *keys: str) -> Play:
    """Open the screen of the agent called *name*, then press *keys*."""

    async def play(pilot: Pilot[Any]) -> None:
        await live(pilot)
        app: Any = pilot.app
        mirror = app.desk.mirror
        found = next(a.id for a in mirror.agents.values() if name in a.name)
        app.watch_screen.visit(found)
        await pilot.press("enter")
        await pilot.pause()
        screen = app.screen
        await settle(pilot, lambda: screen.facts.activity is not None)
        await settle(pilot, lambda: _read(screen))
        for key in keys:
            await pilot.press(key)
            await settle(pilot, lambda: _read(screen))

    return play


async def ready(pilot: Pilot[Any]) -> None:
    """Wait until all is read that a size has room for."""
    screen: Any = pilot.app.screen
    await settle(pilot, lambda: _read(screen))
    screen.pulse()


@pytest.mark.parametrize("keys", KEYS)
async def test_agent(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """Each pane with the focus, at each size."""
    working_day(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    play = opening("calendar-agent", *KEYS[keys])
    assert await gallery.differs(app, play, ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("name", ["payments", "records", "research"])
async def test_others(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, name: str
) -> None:
    """One that waits, one that is refused, one that is revoked."""
    working_day(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    assert await gallery.differs(app, opening(f"{name}-agent"), ready=ready) == []


@pytest.mark.parametrize("how", [half_done, uncredited])
async def test_cut_off(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, how: Any
) -> None:
    """Each step with its time, what was left for whom, and the countdown."""
    working_day(fake)
    agent = next(a for a in fake.agents.values() if a["name"] == "research-agent")
    agent.update(how(fake.now))
    app = wearing(LOOKS["colour"], fake, tmp_path)
    assert await gallery.differs(app, opening("research-agent"), ready=ready) == []


@pytest.mark.parametrize("look", [LOOKS["mono"], LIGHT], ids=["mono", "light"])
async def test_look(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: tuple[str, str]
) -> None:
    """Without colour and in ASCII everything can still be told; and on light."""
    working_day(fake)
    app = wearing(look, fake, tmp_path)
    play = opening("calendar-agent", "shift+tab", "h")
    assert await gallery.differs(app, play, ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_hostile(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """What an agent chose stays text, and in its place."""
    SCENES["hostile"](fake)
    app = wearing(LOOKS[look], fake, tmp_path)
    assert await gallery.differs(app, opening("gnp.exe"), ready=ready) == []


async def test_link_lost(gallery: Gallery, fake: FakeOperator, tmp_path: Path) -> None:
    """What is shown is old, and says so."""
    working_day(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await opening("calendar-agent")(pilot)
        await ready(pilot)
        await asyncio.to_thread(fake.stop)
        reason = "no broker answers"
        await settle(pilot, lambda: reason in app.desk.mirror.link.reason)

    async def drawn(pilot: Pilot[Any]) -> None:
        app.screen.pulse()  # type: ignore[attr-defined]

    assert await gallery.differs(app, play, ready=drawn) == []
    fake.start()


@pytest.mark.parametrize("keys", ["facts", "day", "events"])
async def test_smallest(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """At 40x10 it is still of use."""
    working_day(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    press = {"facts": [], "day": ["shift+tab", "h"], "events": ["tab"]}[keys]
    play = opening("calendar-agent", *press)
    assert await gallery.differs(app, play, ready=ready, sizes=SMALLEST) == []
