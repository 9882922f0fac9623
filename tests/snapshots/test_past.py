"""How the past looks: at every size, in each alphabet, and where a time is typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import console, live, settle
from support.fake_operator import FakeOperator, short_socket
from support.fake_past import incident
from textual.pilot import Pilot

from agentvault_tui.console.screens.past import PastScreen

SIZES = {"40x10": (40, 10), "80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
PLACES = {"waiting": ["{"] * 4, "panic": ["{"] * 3, "start": ["home"]}


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        incident(operator)
        yield operator


def _going(*keys: str) -> Any:
    """Look back, and press *keys* one by one."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await live(pilot)
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, PastScreen))
        for key in keys:
            past = app.screen
            await pilot.press({"{": "left_curly_bracket"}.get(key, key))
            await settle(
                pilot, lambda past=past: not past._reading or past._reading.done()
            )
        app.screen_stack[1].pulse()
        await pilot.pause()
        app.screen_stack[1].pulse()
        await pilot.pause()

    return before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_place(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, place: str, size: str
) -> None:
    """A word and a frame on every row at the top, whatever the size."""
    app = console(fake.socket, tmp_path)
    before = _going(*PLACES[place])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
@pytest.mark.parametrize("theme", ["mono", "agentvault-light"])
def test_look(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, theme: str, size: str
) -> None:
    """Without colour and in ASCII it cannot be taken for now; and on light."""
    ascii_only = "yes" if theme == "mono" else "no"
    app = console(fake.socket, tmp_path, theme=theme, alphabet=ascii_only)
    before = _going(*PLACES["waiting"])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_moment(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """Where a time is typed: the forms, the ends, and what is wrong, in words."""
    app = console(fake.socket, tmp_path)

    async def before(pilot: Pilot[Any]) -> None:
        await _going("home")(pilot)
        await pilot.press("at", *"lunch", "enter")
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_stepup(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """A step-up of the past says so in its title, and why it takes no decision."""
    app = console(fake.socket, tmp_path)

    async def before(pilot: Pilot[Any]) -> None:
        await _going(*PLACES["waiting"])(pilot)
        await pilot.press("s")
        await pilot.pause()
        clock: Any = app.desk.mirror.clock
        clock.advance(1)
        await pilot.press("d")
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)
