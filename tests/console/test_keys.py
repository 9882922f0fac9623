"""Every key: lists obey the same ones, `y` copies, a keymap is obeyed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, running, settle
from support.fake_operator import FakeOperator
from textual.app import App
from textual.command import CommandPalette
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.desk import offer_undo
from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.lists import SavedDialog, StepUpsDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.state.past import PastMirror
from agentvault_tui.console.term.keyed import KEYED, keys_of
from agentvault_tui.console.term.keymap import load_all

pytestmark = pytest.mark.slow

LISTS = ("agents", "audit", "details", "queue", "saved", "help", "view")
_LEADING: dict[str, list[str]] = {
    "agents": [],
    "audit": ["shift+tab", "f"],
    "details": ["tab"],
    "queue": ["s"],
    "saved": ["slash", "ctrl+o"],
    "help": ["question_mark"],
    "view": ["s", "enter", "v"],
}
"""Keys that lead from the home screen to a list."""


class Stage:
    """A running console, and where the cursor of what is in front stands."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot
        self.copied: list[str] = []

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    @property
    def place(self) -> object:
        screen, watch = self.app.screen, self.app.watch_screen
        if isinstance(screen, StepUpsDialog | SavedDialog):
            return screen.cursor
        if isinstance(screen, HelpDialog | StepUpDialog):
            return screen.sheet.top
        if watch.focused is watch.agents:
            return watch.view.cursor
        if watch.focused is watch.audit:
            return watch.feed.index
        return watch.details._top


Opened = Callable[..., Any]


@pytest.fixture
def opened(
    fake: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opened:
    @contextlib.asynccontextmanager
    async def open_stage(
        keymap: str = "", size: tuple[int, int] = (100, 18)
    ) -> AsyncIterator[Stage]:
        busy(fake)
        home = tmp_path / "home"
        home.mkdir()
        if keymap:
            (home / "keymap.toml").write_text(keymap)
        app = console(fake.socket, tmp_path, config=home)
        async with running(app, size) as pilot:
            stage = Stage(app, pilot)
            # What reaches the terminal goes through the base class; see `clipboard`.
            monkeypatch.setattr(
                App, "copy_to_clipboard", lambda _, text: stage.copied.append(text)
            )
            for number in range(20):
                app.desk.saved.save(f"f{number:02}", f"agent:{number}")
            yield stage

    return open_stage


@pytest.mark.parametrize("where", LISTS)
async def test_every_list_obeys_the_same_keys(opened: Opened, where: str) -> None:
    """Letters as in vim, arrows, and the keys with words on them, on every list."""
    # Low, so that each list is longer than the screen; details need two rows of panes.
    async with opened(size=(120, 26) if where == "details" else (100, 18)) as stage:
        await stage.press(*_LEADING[where])
        start = stage.place
        await stage.press("g")
        first = stage.place
        await stage.press("home")
        assert stage.place == first
        await stage.press("j")
        second = stage.place
        assert second != first
        for there, back in (("down", "up"), ("j", "k")):
            await stage.press(back)
            assert stage.place == first
            await stage.press(there)
            assert stage.place == second
        await stage.press("G")
        last = stage.place
        if where != "audit":
            await stage.press("end")
            assert stage.place == last
        await stage.press("g", "pagedown")
        page = stage.place
        assert page not in {first, second} or page == last
        await stage.press("pageup")
        assert stage.place == first
        await stage.press("ctrl+d")
        assert stage.place == page
        await stage.press("ctrl+u")
        assert stage.place == first
        assert start is not None


async def _device(stage: Stage) -> None:
    await stage.press("s", "enter")
    stage.app.desk.mirror.clock.advance(1)  # type: ignore[attr-defined]
    await stage.press("a")
    dialog: Any = stage.app.screen
    await settle(stage.pilot, lambda: dialog.row.device is not None)


def _stepup(stage: Stage) -> Any:
    return stage.app.desk.mirror.open_stepups()[0]


COPIES: dict[str, tuple[list[str], Callable[[Stage], str]]] = {
    "agents": ([], lambda s: s.app.watch_screen.view.cursor or ""),
    "details": (["tab"], lambda s: s.app.watch_screen.view.cursor or ""),
    "audit": (["shift+tab"], lambda s: s.app.desk.mirror.events[-1].decision_id),
    "queue": (["s"], lambda s: _stepup(s).id),
    "stepup": (["s", "enter"], lambda s: _stepup(s).id),
    "view": (["s", "enter", "v"], lambda s: _stepup(s).digest),
    "saved": (["slash", "ctrl+o"], lambda _: "agent:19"),
}


@pytest.mark.parametrize("where", COPIES)
async def test_y_copies_what_is_under_the_cursor(opened: Opened, where: str) -> None:
    """In every pane and dialog that has something to copy, once, and it is said."""
    keys, expected = COPIES[where]
    async with opened(size=(120, 40)) as stage:
        await stage.press(*keys)
        assert stage.copied == []
        await stage.press("y")
        assert stage.copied == [expected(stage)]
        told = [n.message for n in stage.app._notifications]
        assert any(expected(stage)[:20] in message for message in told)


async def test_a_user_code_is_never_copied(opened: Opened) -> None:
    """While the second factor is proven it is the link, without the code in it."""
    async with opened(size=(120, 40)) as stage:
        await _device(stage)
        await stage.press("y")
        device: Any = stage.app.screen
        assert stage.copied == [device.row.device.verification_uri]
        assert device.row.device.user_code not in stage.copied[0]


async def test_y_copies_nothing_where_it_decides(
    opened: Opened, fake: FakeOperator
) -> None:
    """In the revoke dialog it revokes, and copies nothing."""
    async with opened() as stage:
        await stage.press("r")
        assert isinstance(stage.app.screen, RevokeDialog)
        stage.app.desk.mirror.clock.advance(1)  # type: ignore[attr-defined]
        await stage.press("y")
        await settle(stage.pilot, lambda: bool(fake.requests))
        assert stage.copied == []


async def test_cutting_in_an_input_stays_in_the_console(opened: Opened) -> None:
    """Only `y` reaches the terminal's clipboard; an input's own copy can be pasted."""
    async with opened() as stage:
        await stage.press("slash", *"abc", "shift+home", "ctrl+c", "end", "ctrl+v")
        assert stage.copied == []
        assert stage.app.watch_screen.query_one(Input).value == "abcabc"


async def test_a_keymap_is_obeyed_everywhere(opened: Opened) -> None:
    """The key, the footer, the bar of what waits and the help say the user's own."""
    async with opened('revoke = "f9"\n"step-ups" = "f6"\ndown = "ctrl+n"\n') as stage:
        before = stage.place
        await stage.press("j", "r")
        assert stage.place == before
        assert stage.app.screen is stage.app.watch_screen
        await stage.press("ctrl+n")
        assert stage.place != before
        footer = stage.app.watch_screen.keybar.render_line(0).text
        assert "f9 revoke" in footer
        assert "f6 step-ups" in footer
        assert "f6 open" in stage.app.watch_screen.waiting.render_line(0).text
        await stage.press("question_mark")
        body = "\n".join("".join(t for t, _ in row) for row in _page(stage).body)
        assert "yours: revoke" in body
        await stage.press("escape", "f9")
        assert isinstance(stage.app.screen, RevokeDialog)


async def test_clashes_are_told_at_the_start(opened: Opened) -> None:
    """And again in the help; the shipped keys stay."""
    async with opened('down = "r"\nrevok = "x"\nconfirm = "c"\nup = "k"\n') as stage:
        (told,) = [n.message for n in stage.app._notifications]
        assert "down cannot be on r: revoke is there" in told
        assert "did you mean revoke" in told
        await stage.press("question_mark")
        body = "\n".join("".join(t for t, _ in row) for row in _page(stage).body)
        assert "Not taken from keymap.toml" in body
        assert "confirm stays as it is" in body
        await stage.press("escape", "r")
        assert isinstance(stage.app.screen, RevokeDialog)


async def test_a_filter_key_of_ones_own_is_text_in_the_filter(opened: Opened) -> None:
    """Also then the very next byte is text, and so is that key itself."""
    async with opened('filter = "x"\n') as stage:
        await stage.press("x", "r", "x", "slash")
        assert stage.app.screen is stage.app.watch_screen
        assert stage.app.watch_screen.query_one(Input).value == "rx/"


async def _run(stage: Stage, title: str) -> None:
    app, screen = stage.app, stage.app.screen
    found = {c.title: c.callback for c in app.get_system_commands(screen)}
    answer = found[title]()
    if isinstance(answer, Awaitable):
        await answer
    await stage.pilot.pause()


async def test_the_palette_has_every_action_of_the_screen_in_front(
    opened: Opened,
) -> None:
    """By its words, with its key, and it does what the key does."""
    async with opened(size=(120, 40)) as stage:
        app = stage.app
        titles = {c.title: c.help for c in app.get_system_commands(app.screen)}
        assert "Revoke the agent" not in titles  # what is about an agent names it
        assert titles["Filter"] == "key /"
        assert {"Follow or hold", "Copy id", "Saved filters"} <= set(titles)
        assert {f"Theme {name}" for name in ("agentvault", "mono")} <= set(titles)
        assert "Restore the agent" not in titles
        await _run(stage, "Follow or hold")
        assert not app.watch_screen.feed.follow
        agent = stage.app.watch_screen.chosen
        await stage.press("colon", *"revokethe")
        await stage.pilot.pause(0.4)
        await stage.press("enter")
        await settle(stage.pilot, lambda: isinstance(app.screen, RevokeDialog))
        assert app.screen.agent is agent


async def test_the_palette_names_a_key_by_what_is_printed_on_it(opened: Opened) -> None:
    """A bracket too, which the palette would read as markup."""
    async with opened(size=(120, 40)) as stage:
        await stage.press("L", "k", "enter")
        commands = stage.app.get_system_commands(stage.app.screen)
        keys = [Content.from_markup(command.help).plain for command in commands]
        assert {"key [", "key ]"} <= set(keys)
        assert not any("square_bracket" in key for key in keys)


async def test_ctrl_p_opens_the_palette_whatever_the_keymap_says(
    opened: Opened,
) -> None:
    """As the colon does, and also when that has become another key."""
    async with opened(keymap='palette = "f9"') as stage:
        await stage.press("ctrl+p")
        assert CommandPalette.is_open(stage.app)
        await stage.press("escape", "f9")
        assert CommandPalette.is_open(stage.app)


@pytest.mark.parametrize("keys", [["r"], ["s", "enter"]])
async def test_the_palette_decides_nothing(opened: Opened, keys: list[str]) -> None:
    """What a dialog asks its own key for is in no list that Enter takes from."""
    async with opened() as stage:
        await stage.press(*keys)
        app = stage.app
        titles = {c.title.lower() for c in app.get_system_commands(app.screen)}
        assert not titles & {"revoke", "deny", "approve, 2nd factor", "deny, say why"}


@pytest.mark.parametrize(("read_only", "past"), [(0, 0), (1, 0), (0, 1)])
async def test_the_palette_takes_no_restore_back(
    opened: Opened, read_only: int, past: int
) -> None:
    """That cuts an agent off with no question asked, so its own key alone does it."""
    async with opened() as stage:
        app = stage.app
        app.desk.link.read_only = bool(read_only)
        app.desk.past = PastMirror(app.desk.mirror) if past else None
        agent = next(iter(app.desk.mirror.agents.values()))
        offer_undo(app.desk, agent, app.desk.mirror.last_seq)
        titles = [c.title.lower() for c in app.get_system_commands(app.screen)]
        assert titles
        assert not [title for title in titles if "undo" in title]


async def test_the_palette_saves_and_clears_a_filter(opened: Opened) -> None:
    """Where there is one."""
    async with opened() as stage:
        await stage.press("slash", *"risk:low", "enter")
        await _run(stage, "Save this filter")
        await stage.press(*"lows", "enter")
        assert stage.app.desk.saved.own()["lows"] == "risk:low"
        await _run(stage, "Clear the filter")
        assert not stage.app.watch_screen.view.filter


@pytest.mark.parametrize(
    ("typed", "does"),
    [
        ("delete filter f07", lambda s: "f07" not in s.app.desk.saved.own()),
        ("filter f07", lambda s: str(s.app.watch_screen.view.filter) == "agent:7"),
        ("go to records", lambda s: s.app.watch_screen.chosen.name == "records-agent"),
        ("step-up email", lambda s: isinstance(s.app.screen, StepUpDialog)),
    ],
)
async def test_the_palette_finds_by_name(
    opened: Opened, typed: str, does: Callable[[Stage], bool]
) -> None:
    """Saved filters, agents and step-ups."""
    async with opened(size=(120, 40)) as stage:
        await stage.press("colon")
        field = stage.app.screen.query_one(Input)
        field.value = typed
        options: Any = stage.app.screen.query_one("CommandList")
        await settle(
            stage.pilot,
            lambda: (
                bool(options.option_count)
                and typed.rsplit(maxsplit=1)[-1]
                in str(options.get_option_at_index(0).prompt).lower()
            ),
        )
        await stage.press("enter")
        await settle(stage.pilot, lambda: does(stage))
        assert does(stage)


_LIST_KEYS = {
    **dict.fromkeys(("j", "down"), "down"),
    **dict.fromkeys(("k", "up"), "up"),
    **dict.fromkeys(("pagedown", "ctrl+d"), "page-down"),
    **dict.fromkeys(("pageup", "ctrl+u"), "page-up"),
    **dict.fromkeys(("home", "g"), "first"),
    **dict.fromkeys(("end", "G"), "last"),
}


def test_no_list_leaves_a_moving_key_out() -> None:
    """Whatever moves down moves by all the usual keys, on screens to come as well."""
    load_all()
    for kind in KEYED:
        bound = keys_of(kind)
        if "down" in bound.values():
            assert {key: bound.get(key) for key in _LIST_KEYS} == _LIST_KEYS, kind


def test_every_key_has_a_name_and_words() -> None:
    """So that the palette, the help and a keymap know it."""
    load_all()
    for kind in KEYED:
        for binding in kind.__dict__["BINDINGS"]:
            assert binding.id
            assert binding.description
            assert " " not in binding.id


def _page(stage: Stage) -> Any:
    screen: Any = stage.app.screen
    return screen.sheet.page
