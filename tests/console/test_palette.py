"""The palette finds commands and agents by name, and runs what the whole text finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, running, settle
from support.fake_operator import FakeOperator
from textual.command import CommandList
from textual.widgets import Input

from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.palette import NamedCommands

pytestmark = pytest.mark.slow


async def test_enter_runs_no_result_of_an_earlier_text(
    fake: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who types fast would go to another agent, and revoke that one."""
    search, goes_on = NamedCommands.search, asyncio.Event()

    async def slow(self: NamedCommands, query: str) -> AsyncIterator[Any]:
        if len(query) > 1:
            await goes_on.wait()
        async for hit in search(self, query):
            yield hit

    monkeypatch.setattr(NamedCommands, "search", slow)
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (120, 40)) as pilot:
        watch: Any = app.watch_screen
        await pilot.press("colon")
        await settle(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press(*"finance", "enter")
        goes_on.set()
        await settle(pilot, lambda: app.screen is watch)
        await settle(pilot, lambda: watch.chosen.name == "finance-agent")
        assert watch.chosen.name == "finance-agent"


async def test_a_command_acts_on_the_agent_that_it_names(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """The cursor may be on another one once it runs."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (120, 40)) as pilot:
        watch: Any = app.watch_screen
        await settle(pilot, lambda: watch.chosen is not None)
        named = watch.chosen.name
        found = [
            hit
            async for hit in NamedCommands(watch).search(f"revoke: {named}")
            if str(hit.text).endswith(named)
        ]
        await pilot.press("j")
        assert watch.chosen.name != named
        await found[0].command()
        assert app.screen is watch
        await pilot.press("k")
        await found[0].command()
        await settle(pilot, lambda: isinstance(app.screen, RevokeDialog))
        assert app.screen.agent.name == named


async def test_no_command_names_the_agent_of_the_newest_event(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """It is another one a moment later."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (120, 40)) as pilot:
        watch: Any = app.watch_screen
        await settle(pilot, lambda: watch.feed.under_cursor is not None)
        assert watch.feed.follow
        texts = [str(one.text) async for one in NamedCommands(watch).discover()]
        assert texts
        assert not [one for one in texts if "event's agent:" in one.lower()]


async def test_an_incident_s_commands_come_first(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Before anything is typed: requests that wait, then revoke, then panic."""
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        watch: Any = app.watch_screen
        await settle(pilot, lambda: watch.chosen is not None)
        texts = [str(one.text) async for one in NamedCommands(watch).discover()]
        waiting = len(app.desk.mirror.open_stepups())
        assert waiting
        assert all(one.startswith("Step-up ") for one in texts[:waiting])
        assert texts[waiting] == f"Revoke the agent: {watch.chosen.name}"
        assert "Panic: stop everything, or lift that" in texts[waiting:][:4]
        assert texts.count("Step-ups") == 1
        assert texts.count("Panic: stop everything, or lift that") == 1
        await pilot.press("colon")
        finder: Any = app.screen
        results = finder.query_one(CommandList)
        await settle(pilot, lambda: results.option_count == len(texts))
        listed = [str(one.hit.text) for one in results.options]
        assert listed[: waiting + 1] == texts[: waiting + 1]


async def test_enter_shows_a_result_of_scattered_letters_first(
    fake: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`:foo` and Enter in one go hold no feed: "Follow or hold" has f, o and o."""
    search, goes_on = NamedCommands.search, asyncio.Event()

    async def slow(self: NamedCommands, query: str) -> AsyncIterator[Any]:
        await goes_on.wait()
        async for hit in search(self, query):
            yield hit

    monkeypatch.setattr(NamedCommands, "search", slow)
    busy(fake)
    app = console(fake.socket, tmp_path)
    async with running(app, (120, 40)) as pilot:
        watch: Any = app.watch_screen
        await pilot.press("colon")
        await settle(pilot, lambda: isinstance(app.focused, Input))
        finder: Any = app.screen
        await pilot.press(*"foo", "enter")
        goes_on.set()
        await settle(pilot, lambda: not finder._is_submitted)
        assert app.screen is finder
        assert watch.feed.follow
        await pilot.press("enter")
        await settle(pilot, lambda: app.screen is watch)
        await settle(pilot, lambda: not watch.feed.follow)
