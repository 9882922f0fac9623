"""How filtering looks: completions, a problem, a name being typed, the saved ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, console, live
from support.fake_operator import FakeOperator, short_socket
from textual.pilot import Pilot

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
KEYS: dict[str, list[str]] = {
    "keys": ["slash", *"o"],
    "values": ["slash", *"status:", "down"],
    "agents": ["slash", *"-outcome:allowed agent:em"],
    "naming": ["slash", *"status:waiting", "ctrl+s", *"my qu"],
    "saved": ["slash", "ctrl+o", "j"],
    "help": ["question_mark"],
    "kept": ["slash", *"outcome:denied", "enter"],
}


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator


@pytest.mark.parametrize("look", ["agentvault", "mono"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keys", KEYS)
def test_filters(  # noqa: PLR0917 - three of them are pytest's
    snap_compare: Any,
    fake: FakeOperator,
    tmp_path: Path,
    keys: str,
    size: str,
    look: str,
) -> None:
    """What is typed, what may follow, what is hidden: readable at each size."""
    SCENES["busy"](fake)
    alphabet = "yes" if look == "mono" else "no"
    app = console(fake.socket, tmp_path, theme=look, alphabet=alphabet)

    async def before(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await pilot.press(*KEYS[keys])
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)
