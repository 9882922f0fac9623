"""The dialog of a change: an operator asks, and an approver confirms exactly that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from support.console_scenes import console, drawn, running, settle
from support.dialog_stand import Stand, StandApp, decide, said, scene, text_of
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock
from support.wire_shapes import as_json, filled
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.dialogs.revoke import RestoreDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.errors import RefusedError
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.presenters.records import StepUpRow

SUMMARY = "replace policy.cedar, limits.toml: version 12ab34cd becomes 99ee77aa"
BEFORE, AFTER = "1f2e3d4c5b6a7980" * 4, "9a8b7c6d5e4f3021" * 4
DIFF = "@@ -1,2 +1,2 @@\n // rules\n-recipients <= 20\n+recipients <= 9000\u202e"
APPROVALS = {"have": 1, "need": 2, "may": "any approver but bob and alice"}
BOB = {"sub": "auth0|2", "name": "bob", "amr": ["otp", "mfa"], "auth_time": None}
NOT_OF_A_CHANGE = ("Agent ", "agent", "token", "edeem", "with scope", "Why ask")


def proposed() -> tuple[Stand, StepUpRow]:
    stand = scene()
    texts = [["policy.cedar", BEFORE, AFTER], ["limits.toml", None, AFTER]]
    row = stand.propose(
        SUMMARY,
        "policy",
        details={"texts": texts},
        approvals={**APPROVALS, "by": [BOB]},
    )
    stand.texts = [
        {"name": "policy.cedar", "before": BEFORE, "after": AFTER, "diff": DIFF},
        {"name": "limits.toml", "before": None, "after": AFTER, "diff": "+[[limits]]"},
    ]
    return stand, row


def shown(stand: Stand, row: StepUpRow) -> StandApp:
    return StandApp(
        stand, lambda desk: StepUpDialog(desk, stand.mirror.stepups[row.id])
    )


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_it_says_who_what_and_who_may_approve(size: tuple[int, int]) -> None:
    """Nothing is cut, and nothing is worded as an agent's request."""
    stand, row = proposed()
    app = shown(stand, row)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.settle()
        words = said(app)
        for expected in (
            f"Change {row.fingerprint}",
            "Operator alice",
            f"Change {SUMMARY}",
            "Is change:policy ▲▲ risk HIGH",
            f"policy.cedar {BEFORE[:12]} → {AFTER[:12]}",
            f"limits.toml none → {AFTER[:12]}",
            "exactly this change, once",
            "Approvals 1 of 2 (bob); may still: any approver but bob and alice",
        ):
            assert expected in words
        for word in NOT_OF_A_CHANGE:
            assert word not in words, word
        await pilot.press("v")
        await pilot.pause()
        assert f"SHA-256   {BEFORE[:48]}" in text_of(app)
        assert "becomes   " + AFTER[:48] in text_of(app)


async def test_it_is_approved_once_the_lines_that_change_were_read() -> None:
    """They come with the change, are in the full view, and show what is hidden."""
    stand, row = proposed()
    app = shown(stand, row)
    async with app.run_test(size=(80, 24)) as pilot:
        await read(app, pilot)
        assert stand.actions.read_bodies == [row.id]
        await decide(app, pilot, "a")
        assert "press v, read to the end, then approve" in said(app)
        assert stand.actions.asked == []
        await pilot.press("v")
        await pilot.pause()
        app.settle()
        seen = text_of(app)
        for _ in range(4):
            await pilot.press("pagedown")
            await pilot.pause()
            seen += text_of(app)
        for line in ("-recipients <= 20", "+recipients <= 9000⟦U+202E⟧", "+[[limits]]"):
            assert line in seen, line
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", row.id, row.digest)]


async def test_lines_that_cannot_be_read_keep_it_from_being_approved() -> None:
    """It says why, and reads again while it is open."""
    stand, row = proposed()
    stand.actions.error = RefusedError("the store does not answer")
    app = shown(stand, row)
    async with app.run_test(size=(80, 24)) as pilot:
        await read(app, pilot)
        await pilot.press("v")
        for _ in range(4):
            await pilot.press("pagedown")
        await pilot.pause()
        assert "not read yet: the store does not answer" in said(app)
        stand.actions.error = None
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        stand.clock.advance(3)
        await read(app, pilot)
        assert len(stand.actions.read_bodies) == 2
        await pilot.press(*["pagedown"] * 4)
        await pilot.pause()
        assert "+[[limits]]" in text_of(app)


async def read(app: StandApp, pilot: Pilot[None]) -> None:
    """Let the dialog read what it shows, and draw it."""
    await pilot.pause()
    app.dialog.update_page()
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.settle()


async def view(app: StandApp, pilot: Pilot[None]) -> None:
    """Read the full view to its end."""
    await read(app, pilot)
    await pilot.press("v", *["pagedown"] * 4)
    await pilot.pause()
    await pilot.press("v")
    await pilot.pause()
    app.settle()


async def test_it_is_approved_by_its_digest_and_applied() -> None:
    """`a` sends id and digest; no key repeats it or opens an agent that is none."""
    stand, row = proposed()
    app = shown(stand, row)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await view(app, pilot)
        await decide(app, pilot, "m")
        await decide(app, pilot, "o")
        assert isinstance(app.screen, StepUpDialog)
        stand.actions.error = RefusedError(
            "you asked for this change yourself (no_self)",
            "another person has to approve it",
        )
        await decide(app, pilot, "a")
        assert "yourself (no_self): another person has to approve it" in said(app)
        stand.actions.error = None
        await decide(app, pilot, "a")
        assert stand.actions.asked[-1] == ("approve", row.id, row.digest)
        assert "○ change applied" in text_of(app)
        by: dict[str, Any] = {**BOB, "name": "carol"}
        now = iso(stand.clock.now())
        ended = {"decided_by": by, "decided_at": now, "device": None}
        stand.change(row.id, status="applied", **ended)
        app.settle()
        words = said(app)
        assert "✓ approved by carol" in words
        assert "✓ change applied" in words
        for word in NOT_OF_A_CHANGE:
            assert word not in words, word


async def test_it_is_denied_with_a_reason_for_the_requester() -> None:
    """Nobody is an agent there: the requester reads the reason."""
    stand, row = proposed()
    app = shown(stand, row)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.settle()
        await pilot.press("n")
        await pilot.pause()
        assert "The requester will read this" in text_of(app)
        await pilot.press(*"no")
        await decide(app, pilot, "enter")
        assert stand.actions.asked == [("deny", row.id, "no")]
        assert "Nothing was changed. The reason: no" in said(app)


async def test_a_restore_that_an_approver_must_confirm_shows_its_change(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Neither a success nor an error: the change that waits is what is open then."""
    agent = fake.add_agent("payer", status="revoked", revoked_at=iso(fake.now))
    asks = {"id": "chg_0000000000000001", "agent_id": "", "agent_name": "alice"}
    why = {"action": "change:agents", "why": "restore payer", "fingerprint": "C0DE"}
    waiting = as_json(filled(ChangeInfo, {**asks, **why, "summary": why["why"]}))

    def held() -> JSONResponse:
        # Its frame on the stream may be the later one.
        fake.stepups[asks["id"]] = {**usual, **asks, **why, "status": "pending"}
        return JSONResponse(waiting, 202)

    usual = fake.add_stepup(agent, status="denied")
    fake.answers["/api/agents/restore"] = held
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        await pilot.press("u")
        await settle(pilot, lambda: isinstance(app.screen, RestoreDialog))
        clock = app.desk.mirror.clock
        assert isinstance(clock, ManualClock)
        clock.advance(0.7)
        await pilot.press("y")
        await settle(pilot, lambda: isinstance(app.screen, StepUpDialog))
        assert "Change C0DE" in drawn(app)
        assert "restore payer" in drawn(app)
        await pilot.press("escape")
        await settle(pilot, lambda: isinstance(app.screen, Watch))
        assert fake.agents[agent["id"]]["status"] == "revoked"
