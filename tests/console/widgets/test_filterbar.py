"""The filter bar at the keyboard: completion, saving, and the list of saved filters."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, running, settle
from support.fake_operator import FakeOperator
from textual.pilot import Pilot
from textual.widgets import Static

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.lists import SavedDialog
from agentvault_tui.console.widgets.filterbar import FilterBar

pytestmark = pytest.mark.slow


class Bar:
    """A console whose filter bar is open."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def bar(self) -> FilterBar:
        bar = self.app.watch_screen.bar
        assert bar is not None
        return bar

    @property
    def shown(self) -> str:
        """The field as it is drawn, its ghost too."""
        return self.bar.field.render_line(0).text.rstrip()

    @property
    def hint(self) -> str:
        return str(self.bar.query_one("#hint", Static).content)

    async def type(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


@pytest.fixture
def bar(fake: FakeOperator, tmp_path: Path) -> Any:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Bar]:
        busy(fake)
        app = console(fake.socket, tmp_path)
        async with running(app) as pilot:
            await pilot.press("slash")
            yield Bar(app, pilot)

    return opened


async def test_the_rest_of_a_word_is_its_ghost(bar: Any) -> None:
    """It stands behind the cursor, is no part of the filter, and Tab takes it."""
    async with bar() as at:
        await at.type(*"outcome:d")
        assert at.shown == "outcome:denied"
        assert at.bar.text == "outcome:d"
        assert "Tab denied" in at.hint
        await at.type("tab")
        assert at.bar.text == "outcome:denied"
        assert at.bar.typing


async def test_right_takes_it_too(bar: Any) -> None:
    """At the end of the line, as in a shell; elsewhere it moves."""
    async with bar() as at:
        await at.type(*"stat", "right")
        assert at.bar.text == "status:"
        assert "active  revoked  template  waiting" in at.hint
        await at.type("left", "right")
        assert at.bar.text == "status:"


async def test_up_and_down_choose_among_them(bar: Any) -> None:
    """Round and round; the ghost follows."""
    async with bar() as at:
        await at.type(*"status:", "down", "down", "down")
        assert at.shown == "status:waiting"
        await at.type("down", "up", "up", "tab")
        assert at.bar.text == "status:template"


async def test_agents_are_known_by_name(bar: Any) -> None:
    """Also one that holds what was typed somewhere inside, which has no ghost."""
    async with bar() as at:
        await at.type(*"agent:fin")
        assert at.shown == "agent:finance-agent"
        await at.type(*("backspace",) * 3, *"ance")
        assert at.shown == "agent:ance"
        await at.type("tab")
        assert at.bar.text == "agent:finance-agent"


@pytest.mark.parametrize("key", ["enter", "escape"])
async def test_completions_never_take_enter_or_escape(bar: Any, key: str) -> None:
    """Enter keeps what is typed, Esc takes one step out, whatever is offered."""
    async with bar() as at:
        await at.type(*"outcome:d", key)
        assert at.app.watch_screen.focused is at.app.watch_screen.agents
        assert at.bar.text == ("outcome:d" if key == "enter" else "")


async def test_tab_goes_to_the_panes_when_nothing_is_offered(bar: Any) -> None:
    """The key keeps its other meaning."""
    async with bar() as at:
        await at.type(*"zzz", "tab")
        assert not at.bar.typing
        assert at.bar.text == "zzz"


async def test_a_problem_is_told_with_its_place(bar: Any) -> None:
    """In words, at the end of the line, until it is mended."""
    async with bar() as at:
        await at.type(*"pay outcom:x")
        assert "at 5: no key outcom:, did you mean outcome:" in at.hint
        await at.type(*("backspace",) * 2)
        assert "did you mean" not in at.hint


async def test_a_filter_is_saved_under_a_name(bar: Any) -> None:
    """ctrl+s asks for it in the same line; the filter stays on, @ brings it back."""
    async with bar() as at:
        await at.type(*"status:w", "ctrl+s", *"mine", "enter")
        assert at.app.desk.saved.own() == {"mine": "status:w"}
        assert at.bar.text == "status:w"
        await at.type("escape", "slash", *"@mi")
        assert "@mine" in at.hint
        await at.type("tab")
        assert at.bar.text == "status:w"


async def test_a_name_is_no_filter(bar: Any) -> None:
    """While it is typed the panes stay as they are, and Esc goes back to the filter."""
    async with bar() as at:
        await at.type(*"status:w", "ctrl+s", *"zzz")
        assert str(at.app.watch_screen.view.filter) == "status:w"
        assert (
            "Esc back to the filter" in at.app.watch_screen.keybar.render_line(0).text
        )
        await at.type("escape")
        assert at.bar.text == at.bar.field.value == "status:w"
        assert at.bar.typing
        assert at.app.desk.saved.own() == {}


async def test_what_cannot_be_saved_is_told(bar: Any) -> None:
    """An empty name is refused in words, and can be mended."""
    async with bar() as at:
        await at.type(*"status:w", "ctrl+s", "enter")
        assert at.bar.naming
        await at.type(*"ok", "enter")
        assert at.app.desk.saved.own() == {"ok": "status:w"}


async def test_saved_filters_are_listed_and_put_on(bar: Any) -> None:
    """ctrl+o lists them; Enter puts on the one under the cursor."""
    async with bar() as at:
        await at.type("ctrl+o")
        assert isinstance(at.app.screen, SavedDialog)
        await at.type("j", "enter")
        watch = at.app.watch_screen
        await settle(at.pilot, lambda: bool(watch.view.filter))
        assert at.bar.text == "outcome:denied since:10m"
        assert at.bar.display


async def test_a_saved_filter_is_deleted_and_brought_back(bar: Any) -> None:
    """A built-in one stays."""
    async with bar() as at:
        saved = at.app.desk.saved
        saved.save("mine", "risk:low")
        await at.type("ctrl+o", "x")
        assert saved.own() == {}
        await at.type("u")
        assert saved.own() == {"mine": "risk:low"}
        await at.type("end", "delete")
        assert "built in" in at.app.screen.note
        await at.type("home", "k", "G", "g", "escape")
        assert at.app.screen is at.app.watch_screen


async def test_what_is_pasted_is_made_visible(bar: Any) -> None:
    """A control character in a pasted text is spelled out, never drawn."""
    async with bar() as at:
        at.bar.field.insert_text_at_cursor("a\x1b[2Jb")
        assert at.bar.text == "a⟦U+001B⟧[2Jb"
