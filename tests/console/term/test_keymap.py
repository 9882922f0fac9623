"""The user's own keys: what is taken, what is refused, and what is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.console_scenes import console, settle
from support.dialog_stand import Stand, StandApp, said, scene
from support.fake_operator import FakeOperator

import agentvault_tui.console as room
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.panic import PanicDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.past import PastScreen
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.term.keyed import KEYED, key_label, keys_of, relabel
from agentvault_tui.console.term.keymap import FILE, Keymap, load, load_all
from agentvault_tui.console.widgets.agents import AgentPane, DetailsPane
from agentvault_tui.console.widgets.audit import AuditPane
from agentvault_tui.console.widgets.bars import Masthead

_EASY = (
    *("enter", "return", "space", "tab", "shift+tab", "backspace"),
    *("ctrl+m", "ctrl+M", "ctrl+j", "ctrl+i", "ctrl+h", "ctrl+space", "ctrl+at"),
    *("ctrl+@", "ctrl+shift+m", "shift+enter", "alt+space"),
)
_HOME = [(AgentPane, Watch, ConsoleApp)]


def _load(folder: Path, text: str) -> Keymap:
    (folder / FILE).write_text(text)
    return load(folder, _HOME)


def test_keys_of_keymap_toml_are_bound(tmp_path: Path) -> None:
    """Text or a list of them; what must stay on its key stays beside them."""
    keymap = _load(
        tmp_path,
        'revoke = "X"\ndown = "ctrl+n, down"\nhelp = ["f1", "?"]\n'
        'quit = "ctrl+x"\nout = "f6"\ncopy = "C"\n',
    )
    assert keymap.problems == []
    assert keymap.keys == {
        "revoke": ("X",),
        "down": ("ctrl+n", "down"),
        "help": ("f1", "question_mark"),
        "quit": ("ctrl+x", "ctrl+q"),
        "out": ("f6", "escape"),
        "copy": ("C",),
    }


def test_two_actions_may_swap_their_keys(tmp_path: Path) -> None:
    """A key that is freed by one line can be taken by another."""
    keymap = _load(tmp_path, 'revoke = "u"\nrestore = "r"\n')
    assert keymap.problems == []
    assert keymap.keys == {"revoke": ("u",), "restore": ("r",)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('revok = "x"', "there is no action revok, did you mean revoke"),
        ('zzzzz = "x"', "there is no action zzzzz"),
        ('"a\\u001b" = "x"', "there is no action a⟦U+001B⟧"),
        ('confirm = "x"', "y alone confirms"),
        ('approve = "y"', "only copying may be on it"),
        ('revoke = "x, y"', "only copying may be on it"),
        ('help = "ctrl+q"', "ctrl+q always quits"),
        ('help = "ctrl+p"', "ctrl+p always opens the palette"),
        ('down = "escape"', "Esc always goes one step out"),
        ('approve = "enter"', "pressed without looking"),
        ('undo = "space"', "pressed without looking"),
        ('panic = "space"', "pressed without looking"),
        ('down = "pagedwn"', "no such key, did you mean pagedown"),
        ('down = "hyper+x"', "no such key"),
        ('down = ""', "at least one key"),
        ("down = 1", "its keys as text"),
        ("down = [1]", "its keys as text"),
        ("[down]\nx = 1", "its keys as text"),
        ('down = "r"', "down cannot be on r: revoke is there; give revoke another key"),
        ('follow = "s"', "step-ups is there"),
        ('approve = "d"', "deny is there"),
        ('down = "j, a"', "approve is there"),
        ("down = [", "it cannot be read"),
        ("\x00", "it cannot be read"),
    ],
)
def test_what_is_not_taken_is_told(tmp_path: Path, line: str, words: str) -> None:
    """In words; the shipped key stays, and the other lines hold."""
    keymap = _load(tmp_path, line)
    assert len(keymap.problems) == 1
    assert words in keymap.problems[0]
    assert keymap.keys == {}


@pytest.mark.parametrize("name", ["approve", "deny", "undo", "panic"])
@pytest.mark.parametrize("key", _EASY)
def test_nothing_is_decided_by_what_a_terminal_sends_for_enter(
    tmp_path: Path, name: str, key: str
) -> None:
    """Nor for Tab, Space and Backspace: under any of their names, with any modifier."""
    keymap = _load(tmp_path, f'{name} = "{key}"\n')
    assert keymap.keys == {}
    assert len(keymap.problems) == 1
    assert "without looking" in keymap.problems[0]


def test_of_two_actions_on_one_key_the_first_keeps_it(tmp_path: Path) -> None:
    """The second goes back to its own, and is told."""
    keymap = _load(tmp_path, 'follow = "R"\nrevoke = "R"\n')
    assert keymap.keys == {"follow": ("R",)}
    assert "follow is there" in keymap.problems[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('a-minute-back = "j"', "a-minute-back cannot be on j: down is there"),
        ('story-next = "k"', "story-next cannot be on k: up is there"),
        ('raw = "space"', "raw cannot be on space: page-down is there"),
    ],
)
async def test_a_clash_on_a_screen_that_is_opened_later_is_said(
    fake: FakeOperator, tmp_path: Path, line: str, words: str
) -> None:
    """At the start already: an agent's screen, the audit, and the past."""
    (tmp_path / FILE).write_text(line)
    app = console(fake.socket, tmp_path, config=tmp_path)
    async with app.run_test() as pilot:
        await settle(pilot, lambda: bool(app.desk.key_problems))
        assert words in app.desk.key_problems[0]


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    """No file, no problem."""
    assert load(tmp_path, _HOME) == Keymap()


_NAMES = st.sampled_from(
    [
        "revoke",
        "approve",
        "deny",
        "down",
        "up",
        "copy",
        "confirm",
        "out",
        "help",
        "quit",
    ]
)
_KEYS = st.lists(
    st.sampled_from([*"yadrujk?", "enter", "escape", "ctrl+q"]), max_size=3
)


@given(st.dictionaries(_NAMES, _KEYS))
def test_no_keymap_binds_a_decision_to_a_careless_key(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, list[str]]
) -> None:
    """Whatever is asked for: y approves and revokes nothing, and one can always leave.

    And no key has two meanings where one of them was the user's.
    """
    folder = tmp_path_factory.mktemp("home")
    lines = [f"{name} = {keys!r}" for name, keys in wanted.items()]
    keymap = _load(folder, "\n".join(lines))
    for name, keys in keymap.keys.items():
        assert name != "confirm"
        assert "y" not in keys or name == "copy"
        assert "ctrl+q" not in keys or name == "quit"
    for kind in KEYED:
        shipped = keys_of(kind)
        for name in set(shipped.values()) & set(keymap.keys):
            others = {
                key
                for key, other in shipped.items()
                if other and other != name and other not in keymap.keys
            }
            always = {"escape", "ctrl+q"}
            assert not (set(keymap.keys[name]) - always) & others


CALENDAR, PAYMENTS = "agt_0000000000000002", "agt_0000000000000001"
OWN = {
    "approve": ("A",),
    "last": ("B",),
    "panic": ("P",),
    "restore": ("R",),
    "save": ("ctrl+y",),
    "saved": ("ctrl+k",),
    "time": ("T",),
    "view": ("V",),
}
_NAMED = re.compile(
    r"(?:^|[ ;.(])(?:[a-zA-Z!?@]|ctrl\+\w|End|Tab) (?:goes|shows|lifts|restores|serves"
    r"|saves|lists|waits|revokes|approves|denies|copies|opens|ends)\b"
)


def trees() -> Iterator[ast.Module]:
    for path in Path(str(room.__file__)).parent.rglob("*.py"):
        if "plain" not in path.parts:
            yield ast.parse(path.read_text("utf-8"))


def test_every_name_has_the_key_it_is_said_to_have() -> None:
    """Where a sentence gives an action's name and shipped key, a binding has both."""
    load_all()
    shipped = {
        (name, key_label(key))
        for kind in KEYED
        for key, name in keys_of(kind).items()
        if name
    }
    given = {
        tuple(ast.literal_eval(arg) for arg in node.args)
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "key"
        and len(node.args) == 2
        and all(isinstance(arg, ast.Constant) for arg in node.args)
    }
    assert len(given) > 8
    assert given <= shipped


def test_no_sentence_has_a_key_in_its_words() -> None:
    """A key written into a sentence would stay there whatever the user has."""
    found = []
    for tree in trees():
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        found += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
            and _NAMED.search(node.value)
        ]
    # What stays on its key may be named: Esc, Enter, and y in a danger dialog.
    assert [text for text in found if not text.startswith("y ")] == []


def own(**change: str) -> Stand:
    stand = scene()
    stand.desk.keymap = dict(OWN)
    if change:
        stand.agent(CALENDAR, **change)
    return stand


def cut(stand: Stand) -> None:
    stand.change("sup_7f3a", resource="x" * 400)


Make = Callable[[Desk], Dialog[Any]]
DIALOGS: dict[str, tuple[Callable[[Stand], object], Make, str]] = {
    "revoked already": (
        lambda stand: stand.agent(CALENDAR, status="revoked"),
        lambda desk: RevokeDialog(desk, desk.mirror.agents[CALENDAR]),
        "R restores it",
    ),
    "stopped already": (lambda stand: stand.panic("fire"), PanicDialog, "P lifts it"),
    "a value is cut": (
        cut,
        lambda desk: StepUpDialog(desk, desk.mirror.stepups["sup_7f3a"]),
        "V shows it whole, A waits for it",
    ),
    "the past": (
        lambda stand: setattr(stand.desk, "past", True),
        lambda desk: StepUpDialog(desk, desk.mirror.stepups["sup_7f3a"]),
        "T goes back to now",
    ),
}


@pytest.mark.parametrize("case", DIALOGS)
async def test_dialogs_name_the_users_keys(case: str) -> None:
    """In notes and obstacles, before and after a decision."""
    change, make, words = DIALOGS[case]
    stand = own()
    change(stand)
    app = StandApp(stand, make)
    async with app.run_test(size=(100, 40)) as pilot:
        app.settle()
        await pilot.pause()
        assert words in said(app)


async def test_what_was_decided_names_the_users_keys() -> None:
    """The way back is named in the outcome, too."""
    stand = own()
    revoke = RevokeDialog(stand.desk, stand.mirror.agents[CALENDAR])
    app = StandApp(stand, lambda _: revoke)
    async with app.run_test(size=(100, 40)) as pilot:
        app.settle()
        await pilot.press("y")
        await pilot.pause()
        revoke.update_page()
        assert "R restores it" in said(app)


async def test_help_names_the_users_keys_of_filters() -> None:
    """The line on saved filters, where filters work."""
    stand = own()
    dialog = HelpDialog(stand.desk, {})
    assert "ctrl+y saves one, ctrl+k lists" in dialog._with_keys(
        "{save} saves one, {saved} lists them"
    )


def test_panes_name_the_users_keys() -> None:
    """What waits above the agents, what is revoked, how to follow again."""
    stand = own(status="revoked")
    assert stand.desk.restores == "; R restores"
    stand.panic("fire")
    masthead = Masthead(stand.desk, id="masthead")
    assert masthead._panic().endswith("P lifts it")
    stand.desk.link.read_only = True
    assert stand.desk.restores == ""
    assert "lifts" not in masthead._panic()


def test_labels_of_two_keys_are_both_the_users() -> None:
    """A footer that names a pair of keys names both anew."""
    keymap = {"a-minute-back": ("x",), "down": ("J",), "last": ("B",)}
    assert relabel("h l", [PastScreen], keymap) == "x l"
    assert relabel("j k", [DetailsPane], keymap) == "J k"
    assert relabel("End", [AuditPane], keymap) == "B"
