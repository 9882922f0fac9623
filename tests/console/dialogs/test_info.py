"""The help: its keys can be searched, and Enter runs the one that is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, live, running, settle
from support.fake_operator import FakeOperator

from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.panic import PanicDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.tighten import PolicyScreen


@pytest.mark.parametrize(
    ("query", "kind"),
    [("policy", PolicyScreen), ("panic", PanicDialog), ("revoke ag", RevokeDialog)],
)
async def test_enter_runs_the_key_that_is_found(
    fake: FakeOperator, tmp_path: Path, query: str, kind: type
) -> None:
    """As its key does: what destroys still asks for another key."""
    busy(fake)
    app: Any = console(fake.socket, tmp_path)
    async with running(app, (100, 30)) as pilot:
        await live(pilot)
        await pilot.press("question_mark", "slash", *query, "enter")
        await settle(pilot, lambda: isinstance(app.screen, kind))
        assert fake.requests == []


async def test_a_search_is_left_before_the_help_is(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Letters are text while it is typed; Esc shows all keys again, then closes."""
    busy(fake)
    app: Any = console(fake.socket, tmp_path)
    async with running(app, (100, 30)) as pilot:
        await live(pilot)
        await pilot.press("question_mark", "slash", *"jkq")
        assert app.screen.sought == "jkq"
        await pilot.press("enter")
        assert isinstance(app.screen, HelpDialog)
        await pilot.press("backspace", "backspace", "backspace", "backspace")
        assert app.screen.sought is None
        await pilot.press("slash", "x", "escape")
        assert isinstance(app.screen, HelpDialog)
        await pilot.press("escape")
        await settle(pilot, lambda: not isinstance(app.screen, HelpDialog))


async def test_enter_in_the_help_never_decides(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """A key that approves or denies is named, and pressed by itself alone."""
    busy(fake)
    app: Any = console(fake.socket, tmp_path)
    async with running(app, (100, 30)) as pilot:
        await live(pilot)
        await pilot.press("s", "enter")
        await settle(pilot, lambda: isinstance(app.screen, StepUpDialog))
        for word in ("approve", "deny"):
            await pilot.press("question_mark", "slash", *word, "enter")
            assert isinstance(app.screen, HelpDialog)
            assert "Enter never does" in app.screen.note
            await pilot.press("escape", "escape")
            await settle(pilot, lambda: isinstance(app.screen, StepUpDialog))
        assert all(row.open for row in app.desk.mirror.open_stepups())
        assert len(app.desk.mirror.open_stepups()) == 2
