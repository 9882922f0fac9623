"""Filters with names, in a file of the console's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentvault_tui.console.state.saved import BUILT_IN, FILE, SavedFilters


@pytest.fixture
def saved(tmp_path: Path) -> SavedFilters:
    return SavedFilters(tmp_path / "home")


def test_what_is_saved_is_there_for_the_next_console(saved: SavedFilters) -> None:
    """Under its name, before the built-in ones, until it is deleted."""
    assert saved.save(" night ", "outcome:denied since:8h") == ""
    again = SavedFilters(saved.file.parent if saved.file else None)
    assert next(iter(again.all().items())) == ("night", "outcome:denied since:8h")
    assert again.delete("night") == ""
    assert saved.all() == dict(BUILT_IN)


def test_only_the_owner_can_read_it(saved: SavedFilters) -> None:
    """The file has mode 0600 and its folder 0700, under any umask; nothing else is."""
    old = os.umask(0)
    try:
        saved.save("a", "b")
    finally:
        os.umask(old)
    assert saved.file is not None
    assert saved.file.stat().st_mode & 0o777 == 0o600
    assert saved.file.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in saved.file.parent.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("", "x", "needs a name"),
        ("x", "  ", "needs a name"),
        ("a\x1b[2J", "x", "visible"),
        ("x" * 41, "x", "at most 40"),
        ("x", "y\u202e", "at most 500"),
    ],
)
def test_what_cannot_be_saved_is_told(
    saved: SavedFilters, name: str, text: str, words: str
) -> None:
    """In words, and nothing is written."""
    assert words in saved.save(name, text)
    assert saved.file is not None
    assert not saved.file.exists()


def test_one_of_ones_own_may_take_the_place_of_a_built_in(saved: SavedFilters) -> None:
    """The built-in one is back when it is deleted, and cannot be deleted itself."""
    assert saved.save("high risk", "risk:high -owner:alice") == ""
    assert saved.all()["high risk"] == "risk:high -owner:alice"
    assert saved.delete("high risk") == ""
    assert saved.all()["high risk"] == BUILT_IN["high risk"]
    assert "built in" in saved.delete("high risk")
    assert saved.delete("never was") == "It is gone."


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"filters": 1}', "[" * 100_000, "\xff"]
)
def test_a_broken_file_is_left_as_it_is(saved: SavedFilters, content: str) -> None:
    """It counts as none, and saving says so instead of writing over it."""
    assert saved.file is not None
    saved.file.parent.mkdir()
    saved.file.write_bytes(content.encode("latin-1"))
    assert saved.all() == dict(BUILT_IN)
    assert "cannot be read" in saved.save("a", "b")
    assert saved.file.read_bytes() == content.encode("latin-1")


def test_what_was_written_by_hand_is_made_displayable(saved: SavedFilters) -> None:
    """Control characters in names or texts never reach a screen."""
    assert saved.file is not None
    saved.file.parent.mkdir()
    saved.file.write_text(json.dumps({"filters": {"a\x1b": "b\u202e", "c": 1}}))
    assert saved.own() == {"a⟦U+001B⟧": "b⟦U+202E⟧"}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Saving says which file it could not write."""
    (tmp_path / "file").write_text("")
    told = SavedFilters(tmp_path / "file").save("a", "b")
    assert "cannot be" in told


def test_without_a_folder_it_lasts_as_long_as_the_console() -> None:
    """Nothing is written anywhere."""
    saved = SavedFilters()
    assert saved.save("a", "b") == ""
    assert saved.own() == {"a": "b"}
