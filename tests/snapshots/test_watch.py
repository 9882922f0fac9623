"""How the home screen looks: scenes, sizes, and without colour or glyphs.

After a wanted change look at the pictures in the report first, then renew them with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, console, live, settle
from support.fake_operator import FakeOperator, short_socket
from textual.pilot import Pilot

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
KEYS: dict[str, list[str]] = {
    "audit_held": ["shift+tab", "k", "k", "k"],
    "details": ["j", "j", "tab"],
    "filter": ["slash", *"outcome:den"],
    "filter_mistyped": ["slash", *"staus:x"],
    "revoke": ["j", "r"],
}


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator


def _pressing(*keys: str) -> Callable[[Pilot[Any]], Any]:
    async def before(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await pilot.press(*keys)
        await pilot.pause()

    return before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", ["busy", "empty", "panic", "ledger_down", "hostile"])
def test_scene(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, scene: str, size: str
) -> None:
    """Each state of the world, at each size."""
    SCENES[scene](fake)
    app = console(fake.socket, tmp_path)
    assert snap_compare(app, terminal_size=SIZES[size], run_before=_pressing())


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_link_lost(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """What is shown is old, and says so."""
    SCENES["busy"](fake)
    app = console(fake.socket, tmp_path)

    async def before(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await asyncio.to_thread(fake.stop)
        reason = "no broker answers"
        await settle(pilot, lambda: reason in app.desk.mirror.link.reason)

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)
    fake.start()


@pytest.mark.parametrize("size", ["80x24", "120x40"])
@pytest.mark.parametrize("keys", KEYS)
def test_keys(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, keys: str, size: str
) -> None:
    """After keys: the focus is seen, and what a filter hides is told."""
    SCENES["busy"](fake)
    app = console(fake.socket, tmp_path)
    before = _pressing(*KEYS[keys])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["mono", "agentvault-light"])
def test_look(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, theme: str, size: str
) -> None:
    """Without colour and in ASCII everything can still be told; and on light."""
    SCENES["busy"](fake)
    ascii_only = "yes" if theme == "mono" else "no"
    app = console(fake.socket, tmp_path, theme=theme, alphabet=ascii_only)
    assert snap_compare(app, terminal_size=SIZES[size], run_before=_pressing())


@pytest.mark.parametrize("theme", ["high-contrast", "ansi-dark", "ansi-light"])
def test_theme(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, theme: str
) -> None:
    """The other themes, on the scene with the most colours."""
    SCENES["panic"](fake)
    app = console(fake.socket, tmp_path, theme=theme)
    assert snap_compare(app, terminal_size=(120, 40), run_before=_pressing())


def test_smallest(snap_compare: Any, fake: FakeOperator, tmp_path: Path) -> None:
    """At 40x10 it is still of use."""
    SCENES["panic"](fake)
    app = console(fake.socket, tmp_path)
    assert snap_compare(app, terminal_size=(40, 10), run_before=_pressing())
