"""The screen of limits: what is used, what is left, and when some of it frees."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import HOSTILE, START, busy, console, running, settle
from support.dialog_stand import text_of
from support.fake_operator import FakeOperator
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.screens.limits import LimitsScreen


def limited(fake: FakeOperator) -> None:
    """A ceiling nearly reached, one that is, and one that nothing is used of."""
    busy(fake)
    known = {"agents": [], "per": "agent", "over": "deny", "currency": None}
    for name, most in (("payments-a-day", 20), ("mails", 5), ("deletions", 3)):
        limit = {"id": name, "scopes": ["sends"], "within": "24h", "most": most}
        fake.limits.append({**known, **limit})
    frees = iso(START + timedelta(minutes=5))
    nothing = {"resource": None, "frees_at": frees, "agent_id": "agt_1"}
    fake.uses += [
        {"limit": "mails", "used": 5, "left": 0, "agent_name": HOSTILE[0], **nothing},
        {
            "limit": "payments-a-day",
            "used": 18,
            "left": 2,
            "agent_name": "payer",
            **nothing,
        },
    ]


async def opened(pilot: Pilot[Any]) -> str:
    await pilot.press("Q")
    await settle(pilot, lambda: isinstance(pilot.app.screen, LimitsScreen))
    screen: Any = pilot.app.screen
    await settle(pilot, lambda: bool(screen.list.rows))
    return text_of(pilot.app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_the_key_shows_each_limit_and_what_is_left(
    short: Path, size: tuple[int, int]
) -> None:
    """In the order of the file, with one row for a limit nothing is used of."""
    with FakeOperator(short / "s.sock") as fake:
        limited(fake)
        async with running(console(fake.socket, short), size=size) as pilot:
            shown = await opened(pilot)
            assert max(map(len, shown.splitlines())) <= size[0]
            assert "payments-a-day" in shown
            assert "\x1b" not in shown
            if size[0] >= 80:
                assert "2 of 20 in 24h" in shown
                assert "0 of 5 in 24h" in shown
                assert "3 of 3 in 24h" in shown
                assert "nothing used" in shown
                assert "in 5 min " in shown
                assert "ago" not in shown
            await pilot.press("Q")
            await settle(pilot, lambda: not isinstance(pilot.app.screen, LimitsScreen))
