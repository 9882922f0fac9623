"""Keys, filters and keymap that README and docs/console.md show are the console's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from support.pages import DOCS, ROOT, blocks
from textual.keys import _character_to_key

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.term.keyed import KEYED, keys_of
from agentvault_tui.console.term.keymap import load, load_all
from agentvault_tui.presenters.filters import Filter

README, PAGE = ROOT / "README.md", DOCS / "console.md"


@pytest.mark.parametrize("page", [README, PAGE], ids=lambda page: page.name)
def test_each_key_of_the_table_is_bound(page: Path) -> None:
    """A key in a table of keys works somewhere in the console."""
    load_all()
    bound = {key for kind in (*KEYED, ConsoleApp) for key in keys_of(kind)}
    table = page.read_text().partition("| key | does |")[2].partition("\n\n")[0]
    shown = re.findall(r"`(\w|[!/:?]|Enter|Esc|Tab)`|(ctrl\+\w)", table)
    assert len(shown) > 10
    names = {"Esc": "escape", "Enter": "enter", "Tab": "tab"}
    for one, other in shown:
        key = one or other
        name = names.get(key) or (_character_to_key(key) if len(key) == 1 else key)
        assert name in bound, key


def test_each_filter_shown_is_understood() -> None:
    """The examples have no term that the console would complain about."""
    (block,) = blocks(PAGE, "text")
    named = re.findall(r"filters, such as `([^`]+)`", README.read_text())
    shown = [*block.splitlines(), *named]
    assert len(shown) == 4
    for line in shown:
        assert Filter.parse(line).problem == "", line


def test_the_keymap_shown_is_accepted(tmp_path: Path) -> None:
    """The example of keymap.toml clashes with nothing."""
    (block,) = blocks(PAGE, "toml")
    (tmp_path / "keymap.toml").write_text(block)
    keymap = load(tmp_path, [])
    assert keymap.problems == []
    assert {*keymap.keys} == {*tomllib.loads(block)}
