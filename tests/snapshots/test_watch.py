"""How the home screen looks: scenes, sizes, and without colour or glyphs.

After a wanted change look at the diff (and the report for SVGs) first, then renew with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, live, settle
from support.fake_operator import FakeOperator
from support.pictures import LIGHT, LOOKS, MIDDLE, SMALLEST, Gallery, Play, wearing
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp

KEYS: dict[str, list[str]] = {
    "audit_held": ["shift+tab", "k", "k", "k"],
    "details": ["j", "j", "tab"],
    "filter": ["slash", *"outcome:den"],
    "filter_mistyped": ["slash", *"staus:x"],
    "revoke": ["j", "r"],
}


def pressing(*keys: str) -> Play:
    async def play(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await pilot.press(*keys)

    return play


async def ready(pilot: Pilot[Any]) -> None:
    """Draw what a new size has room for."""
    app: Any = pilot.app
    app.watch_screen.pulse()
    await settle(pilot, lambda: app.watch_screen.audit.idle)


@pytest.mark.parametrize("scene", ["busy", "empty", "panic", "ledger_down", "hostile"])
async def test_scene(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, scene: str
) -> None:
    """Each state of the world, at each size."""
    SCENES[scene](fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    assert await gallery.differs(app, pressing(), ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_link_lost(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """What is shown is old, and says so."""
    SCENES["busy"](fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await asyncio.to_thread(fake.stop)
        reason = "no broker answers"
        await settle(pilot, lambda: reason in app.desk.mirror.link.reason)

    assert await gallery.differs(app, play, ready=ready) == []
    fake.start()


@pytest.mark.parametrize("keys", KEYS)
async def test_keys(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """After keys: the focus is seen, and what a filter hides is told."""
    SCENES["busy"](fake)

    def make() -> ConsoleApp:
        return wearing(LOOKS["colour"], fake, tmp_path)

    play = pressing(*KEYS[keys])
    assert await gallery.differs_apart(make, play, ready=ready) == []


@pytest.mark.parametrize("keys", ["audit_held", "details", "filter"])
async def test_keys_in_mono(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """Where the focus is, what is held and hidden: told without colour."""
    SCENES["busy"](fake)

    def make() -> ConsoleApp:
        return wearing(LOOKS["mono"], fake, tmp_path)

    play = pressing(*KEYS[keys])
    assert await gallery.differs_apart(make, play, ready=ready) == []


@pytest.mark.parametrize(
    ("look", "scene"),
    [
        *((LOOKS["mono"], scene) for scene in ("busy", "panic", "hostile")),
        (LIGHT, "busy"),
    ],
    ids=["mono-busy", "mono-panic", "mono-hostile", "light-busy"],
)
async def test_look(
    gallery: Gallery,
    fake: FakeOperator,
    tmp_path: Path,
    look: tuple[str, str],
    scene: str,
) -> None:
    """Without colour and in ASCII everything can still be told; and on light."""
    SCENES[scene](fake)
    app = wearing(look, fake, tmp_path)
    assert await gallery.differs(app, pressing(), ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("theme", ["high-contrast", "ansi-dark", "ansi-light"])
async def test_theme(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, theme: str
) -> None:
    """The other themes, on the scene with the most colours."""
    SCENES["panic"](fake)
    app = wearing((theme, "no"), fake, tmp_path)
    sizes = (MIDDLE,)
    assert (
        await gallery.differs(app, pressing(), ready=ready, sizes=sizes, svg=MIDDLE)
        == []
    )


async def test_smallest(gallery: Gallery, fake: FakeOperator, tmp_path: Path) -> None:
    """At 40x10 it is still of use."""
    SCENES["panic"](fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    assert await gallery.differs(app, pressing(), ready=ready, sizes=SMALLEST) == []
