"""The user's own keys: what is taken, what is refused, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.term.keyed import KEYED, keys_of
from agentvault_tui.console.term.keymap import FILE, Keymap, load
from agentvault_tui.console.widgets.agents import AgentPane

_EASY = (
    *("enter", "return", "space", "tab", "shift+tab", "backspace"),
    *("ctrl+m", "ctrl+M", "ctrl+j", "ctrl+i", "ctrl+h", "ctrl+space", "ctrl+at"),
    *("ctrl+@", "ctrl+shift+m", "shift+enter", "alt+space"),
)
_HOME = [(AgentPane, Watch, ConsoleApp)]


def _load(folder: Path, text: str) -> Keymap:
    (folder / FILE).write_text(text)
    return load(folder, _HOME)


def test_keys_are_taken(tmp_path: Path) -> None:
    """Text or a list of them; what must stay on its key stays beside them."""
    keymap = _load(
        tmp_path,
        'revoke = "X"\ndown = "ctrl+n, down"\nhelp = ["f1", "?"]\n'
        'quit = "ctrl+x"\nout = "b"\ncopy = "c"\n',
    )
    assert keymap.problems == []
    assert keymap.keys == {
        "revoke": ("X",),
        "down": ("ctrl+n", "down"),
        "help": ("f1", "question_mark"),
        "quit": ("ctrl+x", "ctrl+q"),
        "out": ("b", "escape"),
        "copy": ("c",),
    }


def test_two_may_change_places(tmp_path: Path) -> None:
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


def test_of_two_on_one_key_the_first_has_it(tmp_path: Path) -> None:
    """The second goes back to its own, and is told."""
    keymap = _load(tmp_path, 'follow = "x"\nrevoke = "x"\n')
    assert keymap.keys == {"follow": ("x",)}
    assert "follow is there" in keymap.problems[0]


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
def test_no_keymap_is_dangerous(
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
