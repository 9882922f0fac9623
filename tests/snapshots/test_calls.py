"""How calls in flight look, at each size, and without colour or glyphs.

After a wanted change look at the diff first, then renew with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import flying, live, settle
from support.fake_operator import FakeOperator
from support.pictures import LOOKS, Gallery, wearing
from textual.pilot import Pilot


async def play(pilot: Pilot[Any]) -> None:
    await live(pilot)
    await pilot.press("c", "j")
    app: Any = pilot.app
    await settle(pilot, lambda: bool(app.screen.services.rows))
    app.screen.pulse()


@pytest.mark.parametrize("looks", ["colour", "mono"])
async def test_calls(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, looks: str
) -> None:
    """What waits, what flies, and how services are."""
    flying(fake)
    app = wearing(LOOKS[looks], fake, tmp_path)
    assert await gallery.differs(app, play) == []
