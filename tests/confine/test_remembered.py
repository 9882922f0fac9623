"""Folders that commands were given are remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentvault_tui.confine.remembered import GivenFolders, add_given, read_given
from agentvault_tui.errors import NotConfinedError


def test_folders_are_added_to_those_before(tmp_path: Path) -> None:
    """Those that are gone from the disk are left out."""
    record = tmp_path / "homes/given.json"
    folders = [tmp_path / name for name in ("a", "b", "gone")]
    for folder in folders:
        folder.mkdir()
    a, b, gone = folders
    assert read_given(record) == GivenFolders()
    add_given(record, [a, gone], [a / ".git"])
    gone.rmdir()
    (b / "bare").mkdir()
    add_given(record, [b], [b / "bare"])
    assert read_given(record) == GivenFolders(
        frozenset({a, b}), frozenset({b / "bare"})
    )


@pytest.mark.parametrize("text", ["", "[]", '{"git": []}', '{"writable": 1, "git": 1}'])
def test_a_record_that_cannot_be_read_refuses(tmp_path: Path, text: str) -> None:
    """Without it, what commands changed would be believed."""
    record = tmp_path / "given.json"
    record.write_text(text)
    with pytest.raises(NotConfinedError, match="cannot be read"):
        read_given(record)
    with pytest.raises(NotConfinedError, match="cannot be read"):
        add_given(record, [tmp_path], [])
