"""Advice and policy: what the rows say, and that only a key and then `y` decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import console_scenes as scenes
from support.console_scenes import HOSTILE, Board, advice, busy, settle
from support.dialog_stand import text_of
from support.fake_operator import FakeOperator
from support.fake_state import START
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.tighten import (
    AdviceDialog,
    AdviceScreen,
    CandidateDialog,
    PolicyScreen,
)

SIZES = [(80, 24), (120, 40), (200, 60)]


def furnish(fake: FakeOperator) -> None:
    agents = busy(fake)
    calendar, email = agents["calendar-agent"]["id"], agents["email-agent"]["id"]
    trial = {"status": "on_trial", "trial_ends_at": iso(START)}
    refused = {"would_have_refused": 3, "refused": [5, 6]}
    rule = '@id("advice:adv_1")\nforbid (principal, action, resource);\n'
    fake.advice += [
        advice(email, "unused_scope", "read:email", **trial),
        advice(calendar, "unused_scope", "read:contacts", evidence=refused),
        advice(calendar, "narrower_resource", "write:calendar", change={"rule": rule}),
        advice("", "rule_never_matched", HOSTILE[0], change={"rule": HOSTILE[1]}),
    ]
    changes = [
        ("write:calendar", "allowed", "denied", 27, [4, 5]),
        ("send:email", "allowed", "escalated", 8, [9]),
    ]
    by = [
        {
            "agent": calendar,
            "scope": s,
            "from": was,
            "to": to,
            "count": n,
            "examples": e,
        }
        for s, was, to, n, e in changes
    ]
    fake.shadow = {
        "version": "0f3a5c7e9b1d",
        "since": iso(START),
        "decisions": 91,
        "differences": 27,
        "by": by[:1],
    }
    fake.planned = {
        "digest": "sha256:00",
        "decisions": 91,
        "mismatches": 0,
        "days": 1.0,
        "changes": by,
        "prompts_per_day": {"now": 2.0, "then": 10.0},
        "made": 30,
        "apart": {},
    }


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def board(short: Path, request: pytest.FixtureRequest) -> AsyncIterator[Board]:
    async with scenes.board(short, furnish, request.param) as opened:
        yield opened


async def opened(pilot: Pilot[Any], key: str, kind: type, word: str) -> None:
    await pilot.press(key)
    await settle(pilot, lambda: isinstance(pilot.app.screen, kind))
    await settle(pilot, lambda: word in text_of(pilot.app))


async def decided(pilot: Pilot[Any], key: str, fake: FakeOperator) -> str:
    """Press a key and then `y`; return what the broker was asked."""
    await pilot.press(key)
    await settle(pilot, lambda: isinstance(pilot.app.screen, AdviceDialog))
    assert fake.requests == []
    pilot.app.desk.mirror.clock.advance(0.6)  # type: ignore[attr-defined]
    await pilot.press("y")
    await settle(pilot, lambda: bool(fake.requests))
    return str(fake.requests.pop()[1])


async def test_advice_says_what_whose_and_why(board: Board) -> None:
    """What is on trial is first; evidence and change are of the row with the cursor."""
    pilot, _ = board
    await opened(pilot, "A", AdviceScreen, "4 applied, 1 given back")
    shown = text_of(pilot.app)
    assert "TRIAL" in shown
    assert shown.index("TRIAL") < shown.index("unused scope")
    assert "calendar-agent" in shown
    await pilot.press("j")
    shown = text_of(pilot.app)
    assert "would have refused 3 requests" in shown
    assert ", weekly" in shown
    assert "read:contacts" in shown
    await pilot.press("j", "j")
    assert "\x1b" not in text_of(pilot.app)
    assert "the policy" in text_of(pilot.app)


async def test_keys_take_away_give_back_and_dismiss(board: Board) -> None:
    """Each asks, and `y` does it; a key that does not fit the row does nothing."""
    pilot, fake = board
    await opened(pilot, "A", AdviceScreen, "TRIAL")
    await pilot.press("t", "d")  # it is on trial: neither fits
    assert isinstance(pilot.app.screen, AdviceScreen)
    path = await decided(pilot, "b", fake)
    assert path == "/api/advice/adv_unused_scope_read:ema/give-back"
    pilot.app.desk.mirror.clock.advance(0.6)  # type: ignore[attr-defined]
    await settle(pilot, lambda: "✓" in text_of(pilot.app))
    await pilot.press("escape", "j")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AdviceScreen))
    path = await decided(pilot, "t", fake)
    assert path == "/api/advice/adv_unused_scope_read:con/apply"


async def test_advice_and_the_shadow_are_read_anew_by_themselves(board: Board) -> None:
    """What the broker has learnt since stands there without a key, in calm time."""
    pilot, fake = board
    clock: Any = pilot.app.desk.mirror.clock  # type: ignore[attr-defined]
    await opened(pilot, "A", AdviceScreen, "TRIAL")
    fake.advice[0]["status"] = "given_back"
    clock.advance(31)
    await settle(pilot, lambda: "TRIAL" not in text_of(pilot.app))
    await pilot.press("escape")
    await opened(pilot, "P", PolicyScreen, "27 of 91")
    fake.shadow = {**fake.shadow, "decisions": 92} if fake.shadow else None
    clock.advance(3)
    await settle(pilot, lambda: "27 of 92" in text_of(pilot.app))
    assert isinstance(pilot.app.screen, PolicyScreen)


async def test_a_key_goes_through_the_windows_of_advice(board: Board) -> None:
    """The broker's own comes first, then longer ones, and the title names each."""
    pilot, _ = board
    await opened(pilot, "A", AdviceScreen, "over 1 minute")
    for told in ("1 day", "7 days", "30 days", "90 days", "1 minute"):
        await pilot.press("w")
        await settle(pilot, lambda told=told: f"over {told}" in text_of(pilot.app))  # type: ignore[misc]
    assert "over 90 days" not in text_of(pilot.app)


async def test_enter_looks_at_the_event_or_the_agent(board: Board) -> None:
    """A request that would have been refused is an event; else there is the agent."""
    pilot, _ = board
    await opened(pilot, "A", AdviceScreen, "TRIAL")
    await pilot.press("j", "enter")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AuditScreen))
    assert "Advice" not in text_of(pilot.app)
    await pilot.press("escape", "escape")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AdviceScreen))
    await pilot.press("j", "enter")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AgentScreen))
    assert "calendar-agent" in text_of(pilot.app)


async def test_the_shadow_and_a_plan_are_told_with_examples(
    board: Board, short: Path
) -> None:
    """`n` names a file; the plan says what changes and the prompts; Enter shows one."""
    pilot, fake = board
    await opened(pilot, "P", PolicyScreen, "27 of 91 decisions would differ")
    assert "allowed → denied" in text_of(pilot.app)
    await pilot.press("n")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CandidateDialog))
    file = short / "new.cedar"
    await pilot.press(*str(short / "none.cedar"), "enter")
    await settle(pilot, lambda: "cannot be read" in text_of(pilot.app))
    file.write_text("permit (principal, action, resource);")
    await pilot.press(*["backspace"] * 10, *file.name, "enter")
    await settle(pilot, lambda: "prompts a day" in text_of(pilot.app))
    assert "2.0 now, 10.0 then" in text_of(pilot.app)
    assert "allowed → waiting" in text_of(pilot.app)
    lines = text_of(pilot.app).splitlines()
    last = max(n for n, one in enumerate(lines) if "allowed → waiting" in one)
    assert "Shadow" in lines[last + 2]
    assert fake.requests[0][1] == "/api/policy/plan"
    await pilot.press("enter")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AuditScreen))


async def test_a_candidate_that_is_refused_is_told_in_its_pane(
    board: Board, short: Path
) -> None:
    """The broker's words stand where the plan would."""
    pilot, fake = board
    fake.planned = None
    await opened(pilot, "P", PolicyScreen, "27 of 91")
    (short / "x").write_text("permit (")
    await pilot.press("n")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CandidateDialog))
    await pilot.press(*str(short / "x"), "enter")
    await settle(pilot, lambda: "line 1: no rule" in text_of(pilot.app))
    assert "prompts a day" not in text_of(pilot.app)
