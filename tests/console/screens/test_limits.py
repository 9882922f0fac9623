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
                (heads,) = (one for one in shown.splitlines() if "over it" in one)
                row = next(one for one in shown.splitlines() if " of 20" in one)
                assert heads.index("left") == row.index("2 of 20")
                assert "2 of 20 in 24h" in shown
                assert "0 of 5 in 24h" in shown
                assert "3 of 3 in 24h" in shown
                assert "nothing used" in shown
                assert "in 5 min " in shown
                assert "ago" not in shown
            await pilot.press("Q")
            await settle(pilot, lambda: not isinstance(pilot.app.screen, LimitsScreen))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_sums_stand_whole_and_call_outs_say_whether_they_answer(
    short: Path, size: tuple[int, int]
) -> None:
    """Names give way to money; of each call-out there is the last answer."""
    with FakeOperator(short / "s.sock") as fake:
        limited(fake)
        money = {"id": "payments-of-a-day", "scopes": ["payments"], "within": "24h"}
        about = {"agents": [], "per": "agent", "over": "step_up", "currency": "USD"}
        fake.limits.append({**money, **about, "most": 1_500_000})
        use = {"limit": money["id"], "agent_name": "payments-agent", "used": 12_000}
        left = {"left": 1_488_000, "resource": None, "agent_id": "agt_1"}
        fake.uses.append({**use, **left, "frees_at": None})
        hook = {"scopes": ["sends"], "budget_ms": 50, "signed": False}
        asked = {**hook, "url": "https://rules.test/x", "asked_at": iso(START)}
        fake.hooks += [
            {**asked, "id": "freeze", "answers": True, "ms": 3},
            {**asked, "id": "slow", "answers": False, "ms": 50, "problem": HOSTILE[0]},
            {**hook, "id": "new", "url": "unix:/run/rules.sock"},
        ]
        async with running(console(fake.socket, short), size=size) as pilot:
            shown = await opened(pilot)
            assert "1,488,000 of 1500000 USD (unit unknown) in 24h" in shown
            assert max(map(len, shown.splitlines())) <= size[0]
            rows = {row.split()[0]: row for row in shown.splitlines() if row.split()}
            assert "answered in 3 ms" in rows["freeze"]
            assert "FAILED" in rows["slow"]
            assert "not asked yet" in rows["new"]
            assert "\x1b" not in shown
