"""How filtering looks: completions, a problem, a name being typed, the saved ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, live, settle
from support.fake_operator import FakeOperator
from support.pictures import LOOKS, Gallery, wearing
from textual.pilot import Pilot

KEYS: dict[str, list[str]] = {
    "keys": ["slash", *"o"],
    "values": ["slash", *"status:", "down"],
    "agents": ["slash", *"-outcome:allowed agent:em"],
    "naming": ["slash", *"status:waiting", "ctrl+s", *"my qu"],
    "saved": ["slash", "ctrl+o", "j"],
    "help": ["question_mark"],
    "kept": ["slash", *"outcome:denied", "enter"],
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("keys", KEYS)
async def test_filters(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str, look: str
) -> None:
    """What is typed, what may follow, what is hidden: readable at each size."""
    SCENES["busy"](fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await pilot.press(*KEYS[keys])

    async def ready(pilot: Pilot[Any]) -> None:
        app.watch_screen.pulse()
        await settle(pilot, lambda: app.watch_screen.audit.idle)

    assert await gallery.differs(app, play, ready=ready) == []
