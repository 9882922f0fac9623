"""How an agent's screen looks: panes, sizes, and without colour or glyphs.

After a wanted change look at the pictures in the report first, then renew them with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, console, live, settle, working_day
from support.fake_operator import FakeOperator, short_socket
from textual.pilot import Pilot

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
KEYS: dict[str, list[str]] = {
    "calendar": [],
    "day": ["shift+tab", *["h"] * 17],
    "events_held": ["tab", "k", "k"],
}


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator


def _read(screen: Any) -> bool:
    screen.pulse()
    events = screen.events
    return events.feed.wants(events.size.height) is None


def opening(name: str, *keys: str) -> Callable[[Pilot[Any]], Any]:
    """Open the screen of the agent called *name*, then press *keys*."""

    async def before(pilot: Pilot[Any]) -> None:
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
        app.screen.pulse()
        await pilot.pause()

    return before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keys", KEYS)
def test_agent(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, keys: str, size: str
) -> None:
    """Each pane with the focus, at each size."""
    working_day(fake)
    app = console(fake.socket, tmp_path)
    before = opening("calendar-agent", *KEYS[keys])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["payments", "records", "research"])
def test_others(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, name: str, size: str
) -> None:
    """One that waits, one that is refused, one that is revoked."""
    working_day(fake)
    app = console(fake.socket, tmp_path)
    before = opening(f"{name}-agent")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["mono", "agentvault-light"])
def test_look(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, theme: str, size: str
) -> None:
    """Without colour and in ASCII everything can still be told; and on light."""
    working_day(fake)
    ascii_only = "yes" if theme == "mono" else "no"
    app = console(fake.socket, tmp_path, theme=theme, alphabet=ascii_only)
    before = opening("calendar-agent", "shift+tab", "h")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", SIZES)
def test_hostile(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """What an agent chose stays text, and in its place."""
    SCENES["hostile"](fake)
    app = console(fake.socket, tmp_path)
    before = opening("gnp.exe")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_link_lost(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """What is shown is old, and says so."""
    working_day(fake)
    app = console(fake.socket, tmp_path)

    async def before(pilot: Pilot[Any]) -> None:
        await opening("calendar-agent")(pilot)
        await asyncio.to_thread(fake.stop)
        reason = "no broker answers"
        await settle(pilot, lambda: reason in app.desk.mirror.link.reason)
        app.screen.pulse()  # type: ignore[attr-defined]
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)
    fake.start()


@pytest.mark.parametrize("keys", ["facts", "day", "events"])
def test_smallest(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """At 40x10 it is still of use."""
    working_day(fake)
    app = console(fake.socket, tmp_path)
    press = {"facts": [], "day": ["shift+tab", "h"], "events": ["tab"]}[keys]
    before = opening("calendar-agent", *press)
    assert snap_compare(app, terminal_size=(40, 10), run_before=before)
